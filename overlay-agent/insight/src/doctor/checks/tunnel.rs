//! Whether peers understand us, as the tunnel tells it.

use std::time::Duration;

use overlay_control::Finding;
use overlay_core::model::Family;

use super::{Check, Fault, advice, devices, firewall, peers::with_underlay};
use crate::doctor::{
    commands::tcpdump,
    facts::{Answer, Encrypted, Facts, Health, NeighbourState, PeerFacts},
};

const SILENT: Fault = Fault::problem(
    "tunnel-silent",
    "The peer's node is there, but its containers cannot be reached.",
);
const ONE_WAY: Fault = Fault::problem(
    "one-way",
    "Packets pass in one direction alone, so nothing that needs an answer works.",
);
const VERSION: Fault = Fault::warning(
    "peer-version",
    "Versions work together, but faults that one of them has cured the other still has.",
);

const NO_HANDSHAKE: Fault = Fault::problem(
    "peer-no-handshake",
    "Nothing that is sent to its containers arrives: the network is encrypted.",
);

pub(super) const CHECKS: [Check; 4] = [
    NO_HANDSHAKE.always(no_handshake),
    SILENT.always(silent),
    ONE_WAY.always(one_way),
    VERSION.always(version),
];

/// What is probed by the agent itself is known; the rest is asked by datagrams that everybody
/// refuses, and a peer that refuses them on the underlay does so in the tunnel.
fn answers_not(peer: &PeerFacts) -> bool {
    let probed = peer
        .health
        .as_ref()
        .is_some_and(|health| health.last_answered.is_some());
    !probed && peer.underlay.is_answered() && peer.tunnel.small == Answer::Silent
}

/// What another check has a better name for.
fn is_explained(facts: &Facts, peer: &PeerFacts) -> bool {
    peer.port_answer == Answer::Answered
        // What it answers is dropped here (`source-not-behind-peer`).
        || peer.misplaced > 0
        || without_handshake(peer).is_some()
        || firewall::is_eaten(facts, peer)
        || is_answered_elsewhere(facts, peer)
}

/// Whether answers go to another node that has this one's outer address, too.
fn is_answered_elsewhere(facts: &Facts, peer: &PeerFacts) -> bool {
    let mut addresses = facts.addresses.iter();
    addresses.any(|address| {
        Family::of(address.net.addr()) == Family::of(peer.vtep)
            && devices::is_of_another(facts, address)
    })
}

fn health(peer: &PeerFacts) -> Option<(&PeerFacts, &Health)> {
    Some((peer, peer.health.as_ref()?))
}

/// How long keys are used at most (`REJECT_AFTER_TIME` of `WireGuard`).
const KEYS_LIVE: Duration = Duration::from_mins(3);

/// Its keys, where none are agreed on although it was spoken to.
fn without_handshake(peer: &PeerFacts) -> Option<Encrypted> {
    let encrypted = peer.encrypted?;
    let lives = encrypted.handshake.is_some_and(|age| age < KEYS_LIVE);
    (!lives && !peer.tunnel.is_answered()).then_some(encrypted)
}

fn no_handshake(facts: &Facts) -> Vec<Finding> {
    let is_there = |peer: &&PeerFacts| {
        let neighbour = peer.neighbour.as_ref();
        let gone = neighbour.is_some_and(|it| it.state == NeighbourState::Unanswered);
        !gone && peer.port_answer != Answer::Answered
    };
    let found = with_underlay(facts).filter(is_there);
    found
        .filter_map(|peer| {
            let Encrypted {
                own,
                peer: key,
                handshake,
            } = without_handshake(peer)?;
            let since = match handshake {
                Some(age) => format!("for {} minutes", age.as_secs() / 60),
                None => "yet".to_owned(),
            };
            let what = format!(
                "{} has not agreed on keys with this node {since}; either knows another key of the other one, or \
                 UDP port {} does not get through",
                peer.vtep, peer.port
            );
            let cure = advice(format!(
                "on that node, \"overlay-agent key\" prints its key, which has to be {key} here; there, \
                 this node's public_key has to be {own}; {} on both shows whether packets arrive",
                tcpdump(device(peer), peer.port)
            ));
            Some(NO_HANDSHAKE.at(&peer.name, what, cure))
        })
        .collect()
}

fn silent(facts: &Facts) -> Vec<Finding> {
    let silent = with_underlay(facts).filter(|peer| {
        answers_not(peer)
            && !is_explained(facts, peer)
            && peer.received == 0
            && !is_heard_alone(peer)
    });
    silent
        .map(|peer| {
            let what = format!(
                "{} answers on the underlay, and nothing comes back through the tunnel",
                peer.vtep
            );
            let cure = advice(format!(
                "see on that node, with \"overlay-agent doctor\", whether its agent runs, has VNI {}, knows this \
                 node as a peer, and lets UDP port {} pass; and what filters there are between ({} \
                 on both)",
                peer.vni,
                peer.port,
                tcpdump(device(peer), peer.port)
            ));
            SILENT.at(&peer.name, what, cure)
        })
        .collect()
}

/// It is heard, and says that it does not hear us.
fn is_heard_alone(peer: &PeerFacts) -> bool {
    let health = peer.health.as_ref();
    health.is_some_and(|health| health.heard_by_peer == Some(false) && health.last_heard.is_some())
}

fn one_way(facts: &Facts) -> Vec<Finding> {
    let found = with_underlay(facts).filter(|peer| {
        is_heard_alone(peer)
            || (answers_not(peer) && !is_explained(facts, peer) && peer.received > 0)
    });
    found
        .map(|peer| {
            let what = format!(
                "packets of {} arrive through the tunnel, and what is sent to it is not answered",
                peer.vtep
            );
            let cure = advice(format!(
                "look for a filter of UDP port {} on the way there and on that node; on this one {} \
                 shows both directions",
                peer.port,
                tcpdump(device(peer), peer.port)
            ));
            ONE_WAY.at(&peer.name, what, cure)
        })
        .collect()
}

fn device(peer: &PeerFacts) -> String {
    peer.device
        .map_or_else(|| "any".to_owned(), |device| device.to_string())
}

fn version(facts: &Facts) -> Vec<Finding> {
    let ours = env!("CARGO_PKG_VERSION");
    let all = facts.peers.iter().filter_map(health);
    all.filter_map(|(peer, health)| {
        let theirs = health.version.as_ref()?;
        let abi = health.abi.filter(|abi| *abi != overlay_common::ABI);
        if theirs == ours && abi.is_none() {
            return None;
        }
        let layout = abi.map_or(String::new(), |abi| {
            format!(
                ", with maps of layout {abi} where ours have {}",
                overlay_common::ABI
            )
        });
        let what = format!("it runs {theirs}, and this node {ours}{layout}");
        let cure = advice("upgrade the older one; a restart of the agent loses no packet");
        Some(VERSION.at(&peer.name, what, cure))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay_common::reasons::DropReason;
    use overlay_core::model::PublicKey;

    use super::super::healthy::{broken, only};
    use crate::doctor::facts::{Answer, Encrypted, Facts, Health, NodeAddress, Reach};

    fn unanswered(received: u64) -> impl FnOnce(&mut Facts) {
        move |facts| {
            let peer = &mut facts.peers[0];
            peer.received = received;
            peer.tunnel = Reach {
                size: 1450,
                large: Answer::Silent,
                small: Answer::Silent,
            };
        }
    }

    fn tells(health: Health) -> impl FnOnce(&mut Facts) {
        move |facts| facts.peers[0].health = Some(health)
    }

    #[test]
    fn a_silent_tunnel_is_told_from_one_that_goes_one_way() {
        let found = only("tunnel-silent", unanswered(0));
        assert!(found.cure.text.contains("VNI 1"), "{found:?}");
        only("one-way", unanswered(7));
        only("one-way", |facts| {
            unanswered(0)(facts);
            tells(Health {
                last_heard: Some(Duration::from_secs(1)),
                heard_by_peer: Some(false),
                ..Health::default()
            })(facts);
        });
    }

    #[test]
    fn a_tunnel_with_probes_that_are_answered_is_not_silent() {
        let found = broken(|facts| {
            unanswered(0)(facts);
            tells(Health {
                last_answered: Some(Duration::from_secs(1)),
                ..Health::default()
            })(facts);
        });
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn a_node_whose_address_another_one_has_is_answered_there() {
        only("duplicate-vtep", |facts| {
            unanswered(7)(facts);
            facts.peers[0].vtep = "fd00:56::2".parse().unwrap();
            facts.addresses.push(NodeAddress {
                device: "eth1".parse().unwrap(),
                net: "fd00:56::1/64".parse().unwrap(),
                usable: false,
            });
        });
    }

    #[test]
    fn keys_that_do_not_fit_explain_the_silence() {
        let keys = |handshake| {
            move |facts: &mut Facts| {
                unanswered(0)(facts);
                let [own, peer] = [1, 2].map(|byte| PublicKey::new([byte; PublicKey::LENGTH]));
                facts.peers[0].encrypted = Some(Encrypted {
                    own,
                    peer,
                    handshake,
                });
            }
        };
        let found = only("peer-no-handshake", keys(None));
        let own = PublicKey::new([1; PublicKey::LENGTH]).to_string();
        assert!(found.cure.text.contains(&own), "{found:?}");
        only("peer-no-handshake", keys(Some(Duration::from_secs(400))));
        only("tunnel-silent", keys(Some(Duration::from_secs(4))));
    }

    #[test]
    fn answers_from_elsewhere_explain_the_silence() {
        for received in [0, 7] {
            only("source-not-behind-peer", |facts| {
                unanswered(received)(facts);
                facts.peers[0].misplaced = 3;
                if let Ok(growth) = &mut facts.growth {
                    growth.drops = vec![(DropReason::SourceNotBehindVtep, 3)];
                }
            });
        }
    }

    #[test]
    fn a_closed_port_explains_the_silence() {
        only("tunnel-port-closed", |facts| {
            unanswered(0)(facts);
            facts.peers[0].port_answer = Answer::Answered;
        });
    }

    #[test]
    fn what_the_peer_says_of_itself_is_compared() {
        let found = only(
            "peer-version",
            tells(Health {
                version: Some("9.9.9".to_owned()),
                abi: Some(99),
                ..Health::default()
            }),
        );
        assert!(found.what.contains("layout 99"), "{found:?}");
        let same = broken(tells(Health {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            abi: Some(overlay_common::ABI),
            ..Health::default()
        }));
        assert!(same.is_empty(), "{same:#?}");
    }
}
