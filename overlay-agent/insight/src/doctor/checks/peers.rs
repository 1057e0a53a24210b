//! Whether peers are there, as the underlay tells it.

use overlay_control::Finding;

use super::{Check, Fault, advice, command, on_all_nodes};
use crate::doctor::facts::{Answer, Facts, Neighbour, NeighbourState, PeerFacts};

const UNREACHABLE: Fault = Fault::problem(
    "peer-unreachable",
    "Nothing that is sent to its containers arrives.",
);
const STALE: Fault = Fault::problem(
    "stale-neighbour",
    "Packets leave for a MAC that nobody asks about again, so they do not arrive until somebody \
     corrects it.",
);
const PORT: Fault = Fault::problem("tunnel-port-closed", "The peer discards tunnelled packets.");
const NARROW: Fault = Fault::warning(
    "path-too-narrow",
    "Routers cut full packets up, or drop them: throughput falls, and some connections hang.",
);
const HOLE: Fault = Fault::problem(
    "path-black-hole",
    "Small packets arrive and full ones vanish without a word: connections open, and then hang.",
);

pub(super) const CHECKS: [Check; 5] = [
    UNREACHABLE.always(unreachable),
    STALE.always(stale),
    PORT.always(port),
    NARROW.always(narrow),
    HOLE.always(hole),
];

/// What gets through a path that is too narrow.
const SMALLER: &str = "a smaller mtu";

/// Peers behind an underlay that works: for the others, that is the fault.
pub(super) fn with_underlay(facts: &Facts) -> impl Iterator<Item = &PeerFacts> {
    let works = |peer: &&PeerFacts| {
        let mut devices = facts.underlay.iter();
        let device = devices.find(|device| Some(device.name) == peer.device);
        peer.device.is_some() && device.is_none_or(|device| device.up && device.running)
    };
    facts.peers.iter().filter(works)
}

/// Whether anything has come back from it, or of it.
fn is_silent(peer: &PeerFacts) -> bool {
    let asked = peer.underlay.small == Answer::Silent && peer.tunnel.small == Answer::Silent;
    asked && peer.received == 0
}

fn neighbour_is(peer: &PeerFacts, state: NeighbourState) -> Option<&Neighbour> {
    peer.neighbour
        .as_ref()
        .filter(|neighbour| neighbour.state == state)
}

fn unreachable(facts: &Facts) -> Vec<Finding> {
    let silent = with_underlay(facts).filter(|peer| is_silent(peer));
    silent
        .filter_map(|peer| {
            let neighbour = neighbour_is(peer, NeighbourState::Unanswered)?;
            let what = if neighbour.address == peer.vtep {
                format!("nobody on {} answers for {}", neighbour.device, peer.vtep)
            } else {
                format!(
                    "nobody on {} answers for {}, the way to {}",
                    neighbour.device, neighbour.address, peer.vtep
                )
            };
            let cure = advice(
                "see whether the node runs and is plugged in, and whether its address is still this",
            );
            Some(UNREACHABLE.at(&peer.name, what, cure))
        })
        .collect()
}

fn stale(facts: &Facts) -> Vec<Finding> {
    let silent = with_underlay(facts).filter(|peer| is_silent(peer));
    silent
        .filter_map(|peer| {
            let Neighbour {
                device,
                address,
                mac,
                ..
            } = neighbour_is(peer, NeighbourState::Set)?;
            let mac = mac.map_or_else(|| "no MAC".to_owned(), |mac| mac.to_string());
            let what = format!(
                "{address} on {device} is set to {mac} for good, and peer {} does not answer",
                peer.name
            );
            let remove = format!("ip neigh del {address} dev {device}");
            let cure = command(
                "remove it, so that the kernel asks for the right one",
                facts.commands.on_node(remove),
            );
            Some(STALE.at(address, what, cure))
        })
        .collect()
}

fn port(facts: &Facts) -> Vec<Finding> {
    let closed = with_underlay(facts).filter(|peer| peer.port_answer == Answer::Answered);
    closed
        .map(|peer| {
            let what = format!("nobody listens on UDP port {} of {}", peer.port, peer.vtep);
            let cure = advice(format!(
                "start the agent there, or {}",
                on_all_nodes("the same port", &peer.network)
            ));
            PORT.at(&peer.name, what, cure)
        })
        .collect()
}

fn narrow(facts: &Facts) -> Vec<Finding> {
    // Over IPv6 the agent follows what the kernel learns.
    let peers = with_underlay(facts).filter(|peer| peer.vtep.is_ipv4());
    peers
        .filter_map(|peer| {
            let told = peer
                .path_mtu
                .filter(|mtu| *mtu < u32::from(peer.underlay.size));
            let refused = peer.underlay.large == Answer::TooBig;
            let (what, cure) = match told {
                Some(mtu) => (
                    format!(
                        "the path to {} carries {mtu} bytes, and tunnel packets have up to {}",
                        peer.vtep, peer.underlay.size
                    ),
                    fits(peer, mtu),
                ),
                None if refused => (
                    format!(
                        "a router on the path to {} refuses packets of {} bytes",
                        peer.vtep, peer.underlay.size
                    ),
                    on_all_nodes(SMALLER, &peer.network),
                ),
                None => return None,
            };
            Some(NARROW.at(&peer.name, what, advice(cure)))
        })
        .collect()
}

fn fits(peer: &PeerFacts, path: u32) -> String {
    let overhead = peer.underlay.size.saturating_sub(peer.tunnel.size);
    let mtu = path.saturating_sub(overhead.into());
    format!(
        "{}; if the path is not that narrow, remove the route that says so (\"ip route get {}\")",
        on_all_nodes(format_args!("mtu = {mtu}"), &peer.network),
        peer.vtep
    )
}

fn hole(facts: &Facts) -> Vec<Finding> {
    let peers = with_underlay(facts);
    peers
        .filter_map(|peer| {
            let largest = peer.health.as_ref().and_then(|health| health.largest);
            let what = if peer.underlay.vanishes() {
                format!(
                    "{} answers small packets, and none of {} bytes",
                    peer.vtep, peer.underlay.size
                )
            } else if peer.tunnel.vanishes() && peer.underlay.large != Answer::TooBig {
                format!(
                    "through the tunnel it answers small packets, and none of {} bytes",
                    peer.tunnel.size
                )
            } else if let Some(largest) = largest.filter(|largest| *largest < peer.tunnel.size) {
                format!(
                    "the largest packet that came through the tunnel has {largest} bytes, and \
                     containers send up to {}",
                    peer.tunnel.size
                )
            } else {
                return None;
            };
            let cure = advice(format!(
                "raise the MTU of the link that drops them (\"tracepath -n {}\" finds it), or {}",
                peer.vtep,
                on_all_nodes(SMALLER, &peer.network)
            ));
            Some(HOLE.at(&peer.name, what, cure))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::healthy::{broken, only};
    use crate::doctor::facts::{Answer, Facts, Health, NeighbourState, Reach};

    fn silent(size: u16) -> Reach {
        Reach {
            size,
            large: Answer::Silent,
            small: Answer::Silent,
        }
    }

    fn gone(state: NeighbourState) -> impl FnOnce(&mut Facts) {
        move |facts| {
            let peer = &mut facts.peers[0];
            (peer.underlay, peer.tunnel) = (silent(1500), silent(1450));
            peer.received = 0;
            if let Some(neighbour) = &mut peer.neighbour {
                neighbour.state = state;
            }
        }
    }

    #[test]
    fn a_neighbour_tells_whether_a_silent_peer_is_gone() {
        let found = only("peer-unreachable", gone(NeighbourState::Unanswered));
        assert_eq!(found.object, "n2");
        let found = only("stale-neighbour", gone(NeighbourState::Set));
        assert_eq!(found.cure.commands, ["ip neigh del 192.168.56.12 dev eth1"]);
        // Its filter may drop what we ask with.
        let firewalled = broken(gone(NeighbourState::Known));
        assert!(firewalled.is_empty(), "{firewalled:#?}");
    }

    #[test]
    fn without_an_underlay_peers_are_not_blamed() {
        only("underlay-down", |facts| {
            gone(NeighbourState::Unanswered)(facts);
            facts.underlay[0].running = false;
        });
    }

    #[test]
    fn a_closed_port_is_told() {
        let found = only("tunnel-port-closed", |facts| {
            facts.peers[0].port_answer = Answer::Answered;
        });
        assert_eq!(
            found.what,
            "nobody listens on UDP port 4789 of 192.168.56.12"
        );
    }

    #[test]
    fn narrow_paths_and_black_holes_are_told_apart() {
        let found = only("path-too-narrow", |facts| {
            facts.peers[0].path_mtu = Some(1400);
        });
        assert!(found.cure.text.starts_with("set mtu = 1350"), "{found:?}");
        only("path-too-narrow", |facts| {
            facts.peers[0].underlay.large = Answer::TooBig;
            facts.peers[0].underlay.small = Answer::Answered;
        });
        let hole = |size| Reach {
            size,
            large: Answer::Silent,
            small: Answer::Answered,
        };
        let found = only("path-black-hole", |facts| {
            facts.peers[0].underlay = hole(1500);
            facts.peers[0].tunnel = hole(1450);
        });
        assert!(found.what.starts_with("192.168.56.12 answers small"));
        let found = only("path-black-hole", |facts| {
            facts.peers[0].tunnel = hole(1450);
        });
        assert!(found.what.starts_with("through the tunnel"));
        only("path-black-hole", |facts| {
            facts.peers[0].health = Some(Health {
                largest: Some(1300),
                ..Health::default()
            });
        });
    }
}
