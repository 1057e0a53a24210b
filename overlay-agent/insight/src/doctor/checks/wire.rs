//! What arrives and should not, as counters tell it while they are watched.

use overlay_common::reasons::{DropReason, PassReason};
use overlay_control::{Cure, Finding};
use overlay_core::plural::count;

use super::{Check, Fault, Looked, advice, list};
use crate::doctor::{
    commands::tcpdump,
    facts::{Facts, Growth},
};

const STRANGER: Fault = Fault::warning(
    "unknown-vtep",
    "Either a node is missing from [[networks.peers]], or an unknown host is sending VXLAN.",
);
const BEHIND: Fault = Fault::problem(
    "source-not-behind-peer",
    "The subnets that this node and the peer have in mind differ, or two nodes have the same one.",
);
const SPOOFED: Fault = Fault::warning(
    "spoofed-source",
    "A container uses an address that is not its own: it is misconfigured, forwards for others, or \
     tries something.",
);
const DROPPED: Fault = Fault::warning("packets-dropped", "Somebody sends what nobody may receive.");
const UNVERIFIED: Fault = Fault::note(
    "checksums-unverified",
    "The kernel verifies them, and receives those packets at its own speed.",
);

const BY_KERNEL: Fault = Fault::note(
    "received-by-kernel",
    "What the programs leave to the kernel arrives as well, at the kernel's speed.",
);

const WRONG: Fault = Fault::problem(
    "checksums-wrong",
    "Pings pass, and UDP and TCP do not: as a rule the network card of the node that sends them makes \
     the checksums inside tunnels wrongly.",
);

pub(super) const CHECKS: [Check; 7] = [
    WRONG.if_seen(wrong),
    STRANGER.if_seen(stranger),
    BEHIND.if_seen(behind),
    SPOOFED.if_seen(spoofed),
    DROPPED.if_seen(dropped),
    UNVERIFIED.if_seen(unverified),
    BY_KERNEL.if_seen(by_kernel),
];

fn of(facts: &Facts) -> Result<&Growth, String> {
    facts.growth.as_ref().map_err(Clone::clone)
}

fn in_time(packets: u64, growth: &Growth) -> String {
    let seconds = growth.time.as_secs_f32();
    format!("{} in {seconds:.1} s", count(packets, "packet"))
}

fn underlay(facts: &Facts) -> String {
    list(facts.underlay.iter().map(|device| device.name))
}

fn port(facts: &Facts) -> u16 {
    facts.networks.first().map_or(0, |network| network.port)
}

/// A finding if packets were dropped for the reason.
fn when(
    growth: &Growth,
    reason: DropReason,
    found: impl FnOnce(String) -> Finding,
) -> Vec<Finding> {
    let packets = growth.dropped(reason);
    let dropped = (packets > 0).then(|| format!("{}: {}", in_time(packets, growth), reason.text()));
    dropped.map(found).into_iter().collect()
}

fn stranger(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let see = format!(
        "\"{}\" shows from where, and {} all that comes; if it is a node of the network, add it to \
         its peers with that vtep",
        facts.commands.agent("monitor --reason unknown_vtep"),
        tcpdump(underlay(facts), port(facts))
    );
    Ok(when(growth, DropReason::UnknownVtep, |what| {
        STRANGER.at(underlay(facts), what, advice(see))
    }))
}

fn behind(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let senders = facts.peers.iter().filter(|peer| peer.misplaced > 0);
    let senders: Vec<_> = senders.map(|peer| &peer.name).collect();
    let object = if senders.is_empty() {
        underlay(facts)
    } else {
        list(senders)
    };
    let cure = advice(
        "compare the subnets of that peer in this node's configuration with those in its own, and \
         see that no two nodes have the same",
    );
    Ok(when(growth, DropReason::SourceNotBehindVtep, |what| {
        BEHIND.at(object, what, cure)
    }))
}

fn spoofed(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let cure: Cure = advice(format!(
        "\"{}\" shows which container; if it forwards for others, give it forwarding = true and \
             allowed_sources",
        facts.commands.agent("monitor --reason dropped")
    ));
    let both = [DropReason::SpoofedSource, DropReason::SpoofedNeighbour];
    let found = both.into_iter().flat_map(|reason| {
        when(growth, reason, |what| {
            SPOOFED.at("containers", what, cure.clone())
        })
    });
    Ok(found.collect())
}

/// The reasons that have no check of their own.
fn dropped(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let others = DropReason::ALL.iter().filter(|reason| {
        !matches!(
            reason,
            DropReason::UnknownVtep
                | DropReason::SourceNotBehindVtep
                | DropReason::SpoofedSource
                | DropReason::SpoofedNeighbour
        )
    });
    let cure = advice(format!(
        "\"{}\" shows who sends them; docs/conformance.md says which packets these are",
        facts.commands.agent("monitor --reason dropped")
    ));
    let found = others.flat_map(|&reason| {
        when(growth, reason, |what| {
            DROPPED.at(reason.name(), what, cure.clone())
        })
    });
    Ok(found.collect())
}

fn wrong(facts: &Facts) -> Looked {
    let found = facts.wrong_checksums.as_ref().map_err(Clone::clone)?;
    let cure = advice(
        "on the node that sends them: \"ethtool -K DEVICE tx-checksum-ip-generic off\" (or \
         tx-checksum-ipv4 and tx-checksum-ipv6) for its underlay, and keep it off at every start; \
         its own doctor's offload-off is right to be passed over then",
    );
    let findings = found.iter().map(|wrong| {
        let what = format!(
            "{} with a wrong checksum inside came in while it was watched",
            count(wrong.packets, "packet")
        );
        WRONG.at(&wrong.receiver, what, cure.clone())
    });
    Ok(findings.collect())
}

/// Packets, and packets a second, that are worth a word.
const MANY: u64 = 100;

fn unverified(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let packets = growth.passed(PassReason::UnverifiedChecksum);
    let seconds = growth.time.as_secs().max(1);
    if packets / seconds < MANY {
        return Ok(Vec::new());
    }
    let senders = facts.peers.iter().filter(|peer| {
        let mut passed = peer.passed.iter();
        passed.any(|(reason, _)| *reason == PassReason::UnverifiedChecksum)
    });
    let senders: Vec<_> = senders.map(|peer| &peer.name).collect();
    let from = if senders.is_empty() {
        String::new()
    } else {
        format!(", from {}", list(senders))
    };
    let what = format!(
        "{} with UDP checksums that no device has verified{from}",
        in_time(packets, growth)
    );
    let cure = advice(
        "nothing must be done; peers that are kernel VXLAN devices with \"noudpcsum\" send none",
    );
    Ok(vec![UNVERIFIED.at(underlay(facts), what, cure)])
}

/// What is always the kernel's, and what has a check of its own.
const USUAL: [PassReason; 6] = [
    PassReason::NotIp,
    PassReason::NotUnicast,
    PassReason::ToNode,
    PassReason::NoRoute,
    PassReason::NodeAddress,
    PassReason::UnverifiedChecksum,
];

fn by_kernel(facts: &Facts) -> Looked {
    let growth = of(facts)?;
    let seconds = growth.time.as_secs().max(1);
    let found = facts.peers.iter().filter_map(|peer| {
        let passed = peer.passed.iter();
        let passed = passed.filter(|(reason, _)| !USUAL.contains(reason));
        let (most, _) = passed.clone().max_by_key(|(_, packets)| *packets)?;
        let left: u64 = passed.clone().map(|(_, packets)| packets).sum();
        if left / seconds < MANY {
            return None;
        }
        let share = 100 * left / (left + peer.received);
        let why = list(passed.map(|(reason, packets)| format!("{} {packets}", reason.name())));
        let what = format!(
            "{}, {share} % of what it sent, left to the kernel ({why})",
            in_time(left, growth)
        );
        let cure = format!(
            "nothing must be done: {}; \"{}\" lists all reasons, \"{}\" whose rules and hooks they are",
            most.text(),
            facts.commands.agent("stats"),
            facts.commands.agent("status"),
        );
        Some(BY_KERNEL.at(peer.name.to_string(), what, advice(cure)))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use overlay_common::reasons::{DropReason, PassReason};
    use overlay_control::Severity;

    use super::super::healthy::only;
    use crate::doctor::facts::{Facts, WrongChecksums};

    fn drops(reason: DropReason) -> impl FnOnce(&mut Facts) {
        move |facts| {
            if let Ok(growth) = &mut facts.growth {
                growth.drops = vec![(reason, 3)];
            }
        }
    }

    #[test]
    fn each_reason_has_its_check() {
        let found = only("unknown-vtep", drops(DropReason::UnknownVtep));
        assert!(found.what.starts_with("3 packets in 1.0 s: "), "{found:?}");
        let found = only("source-not-behind-peer", |facts| {
            drops(DropReason::SourceNotBehindVtep)(facts);
            facts.peers[0].misplaced = 3;
        });
        assert_eq!(found.object, "n2");
        only("spoofed-source", drops(DropReason::SpoofedNeighbour));
        let found = only("packets-dropped", drops(DropReason::InnerVlanTag));
        assert_eq!(found.object, "inner_vlan_tag");
    }

    #[test]
    fn wrong_checksums_are_told_by_who_received_them() {
        let found = only("checksums-wrong", |facts| {
            facts.wrong_checksums = Ok(vec![WrongChecksums {
                receiver: "web".to_owned(),
                packets: 2,
            }]);
        });
        assert_eq!(found.object, "web");
        assert!(found.what.starts_with("2 packets"), "{found:?}");
        assert!(found.cure.text.contains("tx-checksum-ip-generic off"));
    }

    #[test]
    fn unverified_checksums_are_worth_a_note() {
        let found = only("checksums-unverified", |facts| {
            if let Ok(growth) = &mut facts.growth {
                growth.passes.push((PassReason::UnverifiedChecksum, 900));
            }
        });
        assert_eq!(found.severity, Severity::Note);
    }

    #[test]
    fn what_the_kernel_receives_of_a_peer_is_told_with_the_reason() {
        let found = only("received-by-kernel", |facts| {
            facts.peers[0].received = 100;
            facts.peers[0].passed = vec![
                (PassReason::ToNode, 5_000),
                (PassReason::NoRoute, 5_000),
                (PassReason::Translated, 290),
                (PassReason::Fragment, 10),
            ];
        });
        assert_eq!(found.severity, Severity::Note);
        assert_eq!(found.object, "n2");
        assert_eq!(
            found.what,
            "300 packets in 1.0 s, 75 % of what it sent, left to the kernel \
             (translated 290, fragment 10)"
        );
    }
}
