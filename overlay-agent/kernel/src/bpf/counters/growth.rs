//! The peers' counters: an array for every CPU, which is made as large as it is needed.
//!
//! An array cannot grow. One that has become too small is replaced by a larger one when the
//! programs are loaded onto it; until they are attached, the old ones count in the old one.

use std::{fs, path::PathBuf};

use aya::maps::{MapData, MapInfo, PerCpuArray};
use overlay_common::maps::{MAX_PEERS, PEER_STATS, PeerStats};

use super::{Counters, Pins, failed};
use crate::{
    KernelError, Result,
    bpf::{
        made::{Notes, in_the_way},
        pins::SET_ASIDE,
        table::open_path,
    },
    hooks,
};

/// Slots that an array has at least.
const FEWEST: usize = 1024;

/// How many peers there are to be slots for.
fn counted(peers: usize) -> usize {
    peers.max(hooks::map_entries(PEER_STATS).unwrap_or_default())
}

/// How many slots are made for so many peers: room to double, and slot 0, which is nobody's.
pub(in super::super) fn slots(peers: usize) -> usize {
    let peers = counted(peers);
    let room = peers.saturating_mul(2).next_power_of_two();
    room.clamp(FEWEST, MAX_PEERS) + 1
}

/// An array that is too small, out of the way of its successor; back in its place if nothing
/// comes of that.
pub(in super::super) struct SetAside {
    pin: PathBuf,
    aside: PathBuf,
    slots: u32,
}

/// Makes room for a larger array where the one that is there does not suffice.
pub(in super::super) fn set_aside(pins: &Pins, peers: usize) -> Result<Option<SetAside>> {
    let pin = pins.map(PEER_STATS);
    let aside = pins.map(SET_ASIDE);
    let slots = match MapInfo::from_pin(&pin) {
        Ok(info) => info.max_entries(),
        Err(error) => {
            let error = failed(format!("look at map {}", pin.display()), &error);
            return if error.not_there() {
                Ok(None)
            } else {
                Err(error)
            };
        }
    };
    if slots as usize > counted(peers).min(MAX_PEERS) {
        return Ok(None);
    }
    let is_ours = |name| Notes(pins).is_ours(hooks::abi(), name);
    if !is_ours(PEER_STATS) {
        // Whoever loads the programs is told that it is in the way.
        return Ok(None);
    }
    if aside.exists() && !is_ours(SET_ASIDE) {
        return Err(in_the_way(
            format!("rename {}", pin.display()),
            pins,
            &aside,
        ));
    }
    fs::rename(&pin, &aside)
        .map_err(|error| KernelError::io(format!("rename {}", pin.display()), &error))?;
    Ok(Some(SetAside { pin, aside, slots }))
}

impl SetAside {
    /// Takes what was counted over into the successor.
    pub(in super::super) fn carry_over(self, counters: &mut Counters) -> Result<()> {
        let before: PerCpuArray<MapData, PeerStats> = open_path(&self.aside, PEER_STATS)?;
        for slot in 0..self.slots {
            let counted = before
                .get(&slot, 0)
                .map_err(|error| failed(format!("read slot {slot} of map {PEER_STATS}"), &error))?;
            if counted.iter().any(|stats| *stats != PeerStats::default()) {
                counters.set_peer(slot, counted)?;
            }
        }
        Ok(())
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        let put = if self.pin.exists() {
            fs::remove_file(&self.aside)
        } else {
            fs::rename(&self.aside, &self.pin)
        };
        if let Err(error) = put {
            tracing::warn!(
                "{}",
                KernelError::io(format!("clear away {}", self.aside.display()), &error)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_common::maps::MAX_PEERS;

    use super::slots;

    #[test]
    fn there_is_a_slot_for_each_peer_and_room_for_more() {
        assert_eq!(slots(0), 1025);
        assert_eq!(slots(600), 2049);
        assert_eq!(slots(MAX_PEERS), MAX_PEERS + 1);
        assert_eq!(slots(usize::MAX / 4), MAX_PEERS + 1);
    }
}
