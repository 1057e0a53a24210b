//! A bad wire: what is lost, doubled, damaged, late or cut off harms nothing but itself, and
//! nothing of it is left when it is well again. The kernel's VXLAN is the measure.

mod reboot;
mod stand;

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result};
use overlay_tests::{
    check::{self, Answer},
    faults::Fault,
    netns, poll, run,
    script::inside,
};

use stand::{Path, Stand, on_all_paths};

const PINGS: u64 = 40;
/// Long enough for a neighbour to be taken for gone.
const PARTITION: Duration = Duration::from_secs(8);
/// How long an answer is waited for that is not expected.
const MOMENT: Duration = Duration::from_millis(200);

/// What `ping` said of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pings {
    answered: u64,
    doubled: u64,
}

fn pings(stand: &Stand) -> Result<Pings> {
    let to = stand.container(1).address;
    let line = format!("ping -n -q -c {PINGS} -i 0.02 -W 1 {to}");
    let out = run::output(inside(&stand.container(0).namespace, line))?;
    let number_before = |what: &str| -> Option<u64> {
        let (before, _) = out.stdout.split_once(what)?;
        before
            .rsplit([' ', '+', ','])
            .find(|word| !word.is_empty())?
            .parse()
            .ok()
    };
    Ok(Pings {
        answered: number_before(" received").context(out.stdout.clone())?,
        doubled: number_before(" duplicates").unwrap_or_default(),
    })
}

#[test]
fn what_is_lost_is_lost_once() -> Result<()> {
    on_all_paths("tloss", |stand| {
        let fault = stand.fault(Fault::Loss(3))?;
        let before = (stand.path == Path::Fast).then(|| stand.carried_by_second());
        let seen = pings(stand)?;
        assert!(
            (1..PINGS).contains(&seen.answered) && seen.doubled == 0,
            "{seen:?}"
        );
        if let Some(before) = before.transpose()? {
            let now = stand.carried_by_second()?;
            // What arrived was answered, and every answer came back.
            let counted = (now.0 - before.0, now.1 - before.1);
            assert_eq!(counted, (seen.answered, seen.answered));
        }
        drop(fault);
        let there = stand.fault(Fault::Loss(50))?;
        let back = stand.fault_towards(0, Fault::Loss(50))?;
        stand.pair().tcp(&[4 << 20])?;
        drop((there, back));
        stand.is_unharmed()
    })
}

#[test]
fn what_arrives_twice_counts_twice() -> Result<()> {
    on_all_paths("tdouble", |stand| {
        let fault = stand.fault(Fault::Duplication)?;
        let before = (stand.path == Path::Fast).then(|| stand.carried_by_second());
        let seen = pings(stand)?;
        // `ping` ends with the last answer, and does not wait for that one's double.
        assert_eq!(seen.answered, PINGS);
        assert!((PINGS - 1..=PINGS).contains(&seen.doubled), "{seen:?}");
        if let Some(before) = before.transpose()? {
            let counted = || -> Result<_> {
                let now = stand.carried_by_second()?;
                Ok((now.0 - before.0, now.1 - before.1))
            };
            poll::until_well(|| {
                let counted = counted().map_err(|error| error.to_string());
                (counted != Ok((2 * PINGS, 2 * PINGS))).then(|| format!("{counted:?}"))
            })
            .map_err(Error::msg)?;
        }
        stand.pair().tcp(&[4 << 20])?;
        drop(fault);
        stand.is_unharmed()
    })
}

#[test]
fn what_is_late_arrives_all_the_same() -> Result<()> {
    const DATAGRAMS: u32 = 500;
    const LENGTH: usize = 1000;
    on_all_paths("tlate", |stand| {
        let fault = stand.fault(Fault::Reordering(4))?;
        let to = stand.container(1);
        let server = netns::inside(&to.namespace, || UdpSocket::bind((to.address, 9)))??;
        let client = netns::inside(&stand.container(0).namespace, || {
            UdpSocket::bind((stand.container(0).address, 0))
        })??;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let receive = || -> Result<Vec<u32>> {
            let mut datagram = [0; LENGTH];
            let mut numbers = Vec::new();
            for _ in 0..DATAGRAMS {
                server.recv(&mut datagram)?;
                let number = datagram.first_chunk().context("it is longer")?;
                numbers.push(u32::from_be_bytes(*number));
            }
            Ok(numbers)
        };
        let numbers = thread::scope(|scope| -> Result<_> {
            let receiver = scope.spawn(receive);
            for number in 0..DATAGRAMS {
                let mut datagram = [0; LENGTH];
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                client.send_to(&datagram, (to.address, 9))?;
                // No queue is long enough for all of them at once.
                thread::sleep(Duration::from_micros(100));
            }
            receiver
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let overtaken = numbers.windows(2).filter(|two| two[0] > two[1]).count();
        assert!(overtaken > 0, "the wire kept the order");
        let all: BTreeSet<u32> = numbers.into_iter().collect();
        assert!(all.into_iter().eq(0..DATAGRAMS));
        stand.pair().tcp(&[4 << 20])?;
        drop(fault);
        stand.is_unharmed()
    })
}

/// Which of the bytes of a tunnel packet can be damaged so that a ping is still answered.
fn harmless_bytes(stand: &Stand) -> Result<Vec<u16>> {
    /// From the outer Ethernet header to the data of an echo request.
    const LAST: u16 = 14 + 20 + 8 + 8 + 14 + 20 + 8 + 16;
    let (from, to) = (&stand.container(0).namespace, stand.container(1).address);
    let mut harmless = Vec::new();
    for place in 0..LAST {
        let _fault = stand.fault(Fault::Corruption(place))?;
        let answer = check::ping_for(from, to.into(), MOMENT)?;
        if matches!(answer, Answer::Ttl(_)) {
            harmless.push(place);
        }
    }
    Ok(harmless)
}

#[test]
fn what_is_damaged_is_dropped_where_the_kernel_drops_it() -> Result<()> {
    let reference = Stand::raise("tdmgk", Path::Kernel)?;
    let expected = harmless_bytes(&reference)?;
    reference.is_unharmed()?;
    reference.guard.down()?;
    for (path, name) in [(Path::Fast, "tdmgf"), (Path::Slow, "tdmgs")] {
        let stand = Stand::raise(name, path)?;
        assert_eq!(harmless_bytes(&stand)?, expected, "{path:?}");
        stand.is_unharmed()?;
        let fault = stand.fault(Fault::RareCorruption(200, 50))?;
        stand.pair().tcp(&[2 << 20])?;
        drop(fault);
        stand.is_unharmed()?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn what_was_cut_off_is_back_with_the_wire() -> Result<()> {
    on_all_paths("tpart", |stand| {
        let there = stand.fault(Fault::Partition)?;
        let back = stand.fault_towards(0, Fault::Partition)?;
        let (from, to) = (&stand.container(0).namespace, stand.container(1).address);
        let until = Instant::now() + PARTITION;
        while Instant::now() < until {
            let answer = check::ping_for(from, to.into(), Duration::from_secs(1))?;
            assert!(matches!(answer, Answer::None(_)), "{answer:?}");
        }
        drop((there, back));
        stand.is_unharmed()
    })
}
