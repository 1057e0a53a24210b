//! Several damages at once, by chance.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use crate::{damage, maps, programs, stand::Stand};

/// How often several things are broken at once.
const ROUNDS: usize = 12;
/// How many at most.
const AT_ONCE: usize = 6;

/// The seed, printed so that a failure can be repeated.
fn seed() -> Result<u64> {
    let seed = match env::var("OVERLAY_REPAIR_SEED") {
        Ok(text) => text.parse().context("OVERLAY_REPAIR_SEED is no number")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("repeat with OVERLAY_REPAIR_SEED={seed}");
    Ok(seed)
}

/// xorshift64 (Marsaglia 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [.., high, low] = self.0.to_be_bytes();
        usize::from(u16::from_be_bytes([high, low])) % limit
    }
}

#[test]
fn whatever_is_broken_together_is_repaired() -> Result<()> {
    let seed = seed()?;
    let mut chance = Chance(seed ^ 0x9e37_79b9_7f4a_7c15);
    let stand = Stand::raise("trrand")?;
    let mut damages = damage::all(&stand);
    damages.extend(maps::damages());
    damages.extend(programs::damages(&stand)?);
    for round in 0..ROUNDS {
        let mut done = Vec::new();
        for _ in 0..=chance.below(AT_ONCE) {
            let damage = &damages[chance.below(damages.len())];
            // What another one has broken before cannot be broken again.
            if (damage.make)(&stand).is_ok() {
                done.push(damage.what.clone());
            }
        }
        let done = done.join("; ");
        println!("round {round}: {done}");
        stand.is_whole(&format!("{done} (OVERLAY_REPAIR_SEED={seed})"))?;
    }
    let received = stand.received()?;
    stand.is_whole("a last look")?;
    assert!(stand.received()? > received, "the programs carry nothing");
    Ok(stand.guard.down()?)
}
