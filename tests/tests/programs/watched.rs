//! Programs that tell what they do: they do the same as the others, and tell the truth.

use aya::{
    EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
};
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use overlay_common::{
    globals::STRIP,
    journal::{
        Decision, EVENTS, LOST, Lost, MAX_SNAP, NONE, SAID_SNAP, Sighting, Step, Watch, kinds,
        outcomes,
    },
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, GENERIC_GUARD, Program, UNDERLAY_GUARD},
    reasons::{DropReason, PassReason},
};

use crate::{
    counters::Outcome,
    node::{Node, load, load_watched},
    traffic::{arriving, from_node, inner, inside, outer, routed, to_remote, tunnelled},
    world::{ROADS, Road, roads},
};

/// What a program has told.
struct Told {
    steps: Vec<Step>,
    packets: Vec<(Sighting, Vec<u8>, Vec<u8>)>,
}

/// A watched node and the ring that it tells into.
struct Watched {
    node: Node,
    ring: RingBuf<MapData>,
}

impl Watched {
    fn new(watch: &Watch) -> Self {
        let mut node = Node::watched(watch);
        let ring = node.ebpf_mut().take_map(EVENTS).unwrap();
        let ring = RingBuf::try_from(ring).unwrap();
        Self { node, ring }
    }

    fn told(&mut self) -> Told {
        let mut told = Told {
            steps: Vec::new(),
            packets: Vec::new(),
        };
        while let Some(event) = self.ring.next() {
            match read::<u32>(&event) {
                kinds::DECISION => {
                    let decision: Decision = read(&event);
                    told.steps.push(Step::ALL[decision.step as usize]);
                }
                kinds::SIGHTING => {
                    let sighting: Sighting = read(&event);
                    let bytes = &event[size_of::<Sighting>()..];
                    let (before, after) = bytes.split_at(sighting.shown_before as usize);
                    assert_eq!(after.len(), sighting.shown_after as usize);
                    told.packets
                        .push((sighting, before.to_vec(), after.to_vec()));
                }
                kind => panic!("an event of kind {kind}"),
            }
        }
        told
    }

    fn lost(&self) -> Lost {
        let lost: PerCpuArray<_, Lost> =
            PerCpuArray::try_from(self.node.ebpf().map(LOST).unwrap()).unwrap();
        let values = lost.get(&0, 0).unwrap();
        values.iter().fold(Lost::default(), |sum, cpu| Lost {
            over_budget: sum.over_budget + cpu.over_budget,
            ring_full: sum.ring_full + cpu.ring_full,
        })
    }
}

fn read<T: AnyBitPattern>(bytes: &[u8]) -> T {
    pod_read_unaligned(&bytes[..size_of::<T>()])
}

/// Packets that meet every kind of end, with the program that they come to.
fn packets() -> Vec<(&'static str, Program, Vec<u8>)> {
    let mut packets = Vec::new();
    for road in roads() {
        let Road {
            here,
            there,
            tunnel,
        } = road;
        let places = road.places();
        let from_peer = |source, destination| inside(&road, inner(source, destination));
        let mut expired = inner(here, there);
        expired.ttl = 1;
        for packet in [
            to_remote(&road),
            routed(expired),
            routed(inner(here, places.world)),
            routed(inner(here, places.other_network)),
            routed(inner(there, there)),
            routed(inner(here, places.cut_off)),
            routed(inner(here, places.database)),
            routed(inner(here, places.multicast)),
        ] {
            packets.push((FROM_ENDPOINT, Program::FromEndpoint, packet));
        }
        packets.push((FROM_HOST, Program::FromHost, from_node(&road)));
        for packet in [
            from_peer(there, here),
            from_peer(places.world, here),
            from_peer(there, places.absent),
            arriving(
                outer(tunnel.stranger),
                &tunnelled(tunnel, inner(there, here)),
            ),
        ] {
            packets.push((FROM_UNDERLAY, Program::FromUnderlay, packet));
        }
    }
    packets
}

#[test]
fn they_do_the_same_as_the_others_and_tell_it() {
    let mut plain = Node::new();
    let mut watched = Watched::new(&Watch::EVERYTHING);
    for (program, place, packet) in packets() {
        let expected = plain.run(program, &packet, 0);
        let run = watched.node.run(program, &packet, 0);
        assert_eq!(run.outcome, expected.outcome);
        assert_eq!(run.bytes.len(), expected.bytes.len());
        let told = watched.told();
        assert!(
            matches!(told.steps[..], [Step::Port | Step::Ours, ..]),
            "{:?}: {:?}",
            run.outcome,
            told.steps
        );
        let [(sighting, before, after)] = &told.packets[..] else {
            panic!("{} packets of one", told.packets.len());
        };
        assert_eq!(sighting.program, place as u32);
        assert_eq!(sighting.length_before as usize, packet.len());
        assert_eq!(before[..], packet[..packet.len().min(128)]);
        let (outcome, reason) = match run.outcome {
            Outcome::To(peer) | Outcome::From(peer) => {
                assert_eq!(sighting.peer, peer);
                (outcomes::SENT, NONE)
            }
            Outcome::Local => (outcomes::SENT, NONE),
            Outcome::Pass(reason) => (outcomes::PASSED, reason as u32),
            Outcome::Drop(reason, sender) => {
                assert_eq!(sighting.peer, sender.unwrap_or(NONE));
                (outcomes::DROPPED, reason as u32)
            }
        };
        assert_eq!((sighting.outcome, sighting.reason), (outcome, reason));
        if outcome == outcomes::SENT {
            assert_eq!(after[..], run.bytes[..run.bytes.len().min(128)]);
            let last = told.steps.last();
            let end = matches!(
                last,
                Some(Step::ToNeighbour | Step::ByRoute | Step::Delivered)
            );
            assert!(end && sighting.handed_to == 1, "{last:?}");
        } else {
            assert_eq!((&after[..], sighting.handed_to), (&[][..], NONE));
        }
    }
    assert_eq!(watched.lost(), Lost::default());
}

#[test]
fn the_guard_tells_what_it_drops() {
    let mut watched = Watched::new(&Watch::EVERYTHING);
    for road in roads() {
        let stranger = outer(road.tunnel.stranger);
        let packet = arriving(
            stranger,
            &tunnelled(road.tunnel, inner(road.there, road.here)),
        );
        let outcome = watched.node.guard(&packet);
        assert_eq!(outcome, Some(Outcome::Drop(DropReason::UnknownVtep, None)));
        let told = watched.told();
        let [(sighting, before, _)] = &told.packets[..] else {
            panic!("{} packets of one", told.packets.len());
        };
        assert_eq!(sighting.program, Program::UnderlayGuard as u32);
        assert_eq!(sighting.reason, DropReason::UnknownVtep as u32);
        assert_eq!(before[..], packet[..128]);
    }
}

/// Runs a packet that is sent, one that is passed and one that is dropped; the outcomes of those
/// that were told.
fn told_of(watch: &Watch) -> Vec<u32> {
    let mut watched = Watched::new(watch);
    let road = &ROADS[0];
    for packet in [
        to_remote(road),
        routed(inner(road.here, road.places().world)),
        routed(inner(road.there, road.there)),
    ] {
        watched.node.run(FROM_ENDPOINT, &packet, 0);
    }
    let told = watched.told();
    told.packets
        .iter()
        .map(|(sighting, ..)| sighting.outcome)
        .collect()
}

#[test]
fn only_what_is_asked_for_is_told() {
    use outcomes::{DROPPED, PASSED, SENT};
    let bit = |number: u32| 1 << number;
    for (watch, expected) in [
        (Watch::EVERYTHING, &[SENT, PASSED, DROPPED][..]),
        (
            Watch {
                snap: 0,
                ..Watch::EVERYTHING
            },
            &[],
        ),
        (
            Watch {
                programs: bit(Program::FromUnderlay as u32),
                ..Watch::EVERYTHING
            },
            &[],
        ),
        (
            Watch {
                sent: 0,
                ..Watch::EVERYTHING
            },
            &[PASSED, DROPPED],
        ),
        (
            Watch {
                passes: bit(PassReason::TooBig as u32),
                ..Watch::EVERYTHING
            },
            &[SENT, DROPPED],
        ),
        (
            Watch {
                drops: bit(DropReason::SpoofedSource as u32),
                passes: 0,
                sent: 0,
                ..Watch::EVERYTHING
            },
            &[DROPPED],
        ),
        (
            Watch {
                endpoint: 1,
                ..Watch::EVERYTHING
            },
            &[SENT, PASSED, DROPPED],
        ),
        (
            Watch {
                endpoint: 7,
                ..Watch::EVERYTHING
            },
            &[],
        ),
        (
            Watch {
                peer: ROADS[0].tunnel.index,
                ..Watch::EVERYTHING
            },
            &[SENT],
        ),
        (
            Watch {
                peer: 77,
                ..Watch::EVERYTHING
            },
            &[],
        ),
    ] {
        assert_eq!(told_of(&watch), expected, "{watch:?}");
    }
    let decisions = Watch {
        decisions: 0,
        ..Watch::EVERYTHING
    };
    let mut watched = Watched::new(&decisions);
    watched.node.run(FROM_ENDPOINT, &to_remote(&ROADS[0]), 0);
    assert_eq!(watched.told().steps, []);
}

#[test]
fn more_than_the_budget_is_counted_and_not_told() {
    const RUNS: u64 = 500;
    let watch = Watch {
        budget: 1,
        ..Watch::EVERYTHING
    };
    let mut watched = Watched::new(&watch);
    let packet = to_remote(&ROADS[0]);
    for _ in 0..RUNS {
        watched.node.run(FROM_ENDPOINT, &packet, 0);
    }
    let told = watched.told().packets.len() as u64;
    let lost = watched.lost();
    assert!(told > 0 && lost.over_budget > 0, "{told}, {lost:?}");
    assert_eq!(told + lost.over_budget + lost.ring_full, RUNS);
}

#[test]
fn a_full_ring_loses_events_and_no_packets() {
    const RUNS: u64 = 200;
    let watch = Watch {
        decisions: 0,
        snap: 2048,
        ..Watch::EVERYTHING
    };
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(EVENTS, 4096);
    let mut ebpf = load_watched(&mut loader, &watch);
    let ring = RingBuf::try_from(ebpf.take_map(EVENTS).unwrap()).unwrap();
    let node = Node::of(ebpf);
    let mut watched = Watched { node, ring };
    for _ in 0..RUNS {
        let run = watched.node.run(FROM_ENDPOINT, &to_remote(&ROADS[0]), 0);
        assert!(matches!(run.outcome, Outcome::To(_)));
    }
    let lost = watched.lost();
    let told = watched.told().packets.len() as u64;
    assert!(told > 0 && lost.ring_full > 0, "{told}, {lost:?}");
    assert_eq!(told + lost.ring_full, RUNS);
}

#[test]
fn the_verifier_accepts_every_variant() {
    let nothing = Watch::NOTHING;
    let whole = Watch {
        snap: u32::try_from(MAX_SNAP).unwrap(),
        ..Watch::EVERYTHING
    };
    let filtered = Watch {
        endpoint: 3,
        peer: 4,
        budget: 5,
        ..whole
    };
    let said = Watch {
        snap: u32::try_from(SAID_SNAP).unwrap(),
        budget: 10,
        ..nothing
    };
    // Of messages: none, of drops, of all.
    for watch in [nothing, said, Watch::EVERYTHING, whole, filtered] {
        for (strip, level) in [(0_u32, 0_u8), (0, 2), (1, 4)] {
            let mut loader = EbpfLoader::new();
            loader.override_global(STRIP, &strip, true);
            loader.override_global("AYA_LOG_LEVEL", &level, true);
            load_watched(&mut loader, &watch);
        }
    }
}

#[test]
fn the_programs_that_carry_the_traffic_have_nothing_of_it() {
    let plain = load();
    for map in [EVENTS, LOST, "DESK", "AYA_LOGS"] {
        assert!(plain.map(map).is_none(), "{map}");
    }
    let watched = load_watched(&mut EbpfLoader::new(), &Watch::EVERYTHING);
    for name in [
        FROM_ENDPOINT,
        FROM_HOST,
        FROM_UNDERLAY,
        UNDERLAY_GUARD,
        GENERIC_GUARD,
    ] {
        let size = |ebpf: &aya::Ebpf| {
            let info = ebpf.program(name).unwrap().info().unwrap();
            info.size_translated().unwrap() / 8
        };
        let (plain, watched) = (size(&plain), size(&watched));
        println!("{name}: {plain} instructions, {watched} when watched");
        assert!(plain < watched, "{name}");
    }
}
