//! What follows from what: causes come first, and what follows from one says so.

use std::{collections::BTreeMap, mem};

use overlay_control::Finding;
use overlay_core::desired::troubles;

use crate::doctor::facts::{Facts, PeerFacts};

/// Whether a finding follows from another one, both being of the checks that an entry names.
type Follows = fn(&Facts, cause: &Finding, finding: &Finding) -> bool;

/// Cause, what follows from it, and what proves that it does. What follows from what is here once, so
/// there is no circle.
const CAUSES: [(&str, &str, Follows); 19] = [
    ("kernel-too-old", "fastpath-unavailable", always),
    ("bpffs-missing", "fastpath-unavailable", always),
    ("underlay-missing", troubles::PEER_NO_ROUTE, always),
    ("underlay-down", "underlay-missing", is_named),
    ("underlay-down", troubles::PEER_NO_ROUTE, was_the_way),
    ("underlay-down", "range-around-vtep", was_the_only_way),
    ("wireguard-missing", "peer-no-handshake", always),
    (troubles::OWN_KEY, "peer-no-handshake", same_object),
    (troubles::DUPLICATE_VTEP, "peer-unreachable", same_peer),
    (troubles::DUPLICATE_VTEP, "tunnel-port-closed", same_peer),
    (troubles::DUPLICATE_VTEP, "tunnel-silent", same_peer),
    (troubles::DUPLICATE_VTEP, "one-way", same_peer),
    ("mtu-does-not-fit", "path-too-narrow", peer_of_network),
    ("mtu-does-not-fit", "path-black-hole", peer_of_network),
    ("path-too-narrow", "path-black-hole", same_object),
    ("program-detached", "counters-stand-still", same_device),
    ("offload-off", "checksums-unverified", without_checksums),
    ("connections-followed", "received-by-kernel", is_tracked),
    ("rule-drops-containers", "received-by-kernel", is_hooked),
];

/// Puts findings in order: the worst first, but each behind what it follows from.
pub(super) fn in_order(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.sort_by_key(|finding| finding.severity);
    let causes: Vec<Option<usize>> = findings
        .iter()
        .map(|finding| cause_of(facts, findings, finding))
        .collect();
    let mut following: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (index, cause) in causes.iter().enumerate() {
        following.entry(*cause).or_default().push(index);
    }
    for (index, cause) in causes.iter().enumerate() {
        let check = cause.and_then(|cause| findings.get(cause));
        let check = check.map(|cause| cause.check.clone());
        if let Some(finding) = findings.get_mut(index) {
            finding.follows_from = check;
        }
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &root in following.get(&None).into_iter().flatten() {
        let mut group = Vec::new();
        walk(&following, root, &mut group);
        groups.push(group);
    }
    // A cause may be less bad than what follows from it.
    groups.sort_by_key(|group| {
        let members = group.iter().filter_map(|&index| findings.get(index));
        members.map(|finding| finding.severity).min()
    });
    let order = groups.into_iter().flatten();
    let mut all: Vec<Option<Finding>> = mem::take(findings).into_iter().map(Some).collect();
    let taken = order.filter_map(|index| all.get_mut(index)?.take());
    findings.extend(taken);
}

/// A finding and all that follows from it, in order.
fn walk(following: &BTreeMap<Option<usize>, Vec<usize>>, from: usize, group: &mut Vec<usize>) {
    group.push(from);
    for &next in following.get(&Some(from)).into_iter().flatten() {
        walk(following, next, group);
    }
}

fn cause_of(facts: &Facts, findings: &[Finding], finding: &Finding) -> Option<usize> {
    let known = CAUSES.iter().filter(|(_, of, _)| *of == finding.check);
    let mut places = known.filter_map(|(check, _, follows)| {
        let is_it = |cause: &Finding| cause.check == *check && follows(facts, cause, finding);
        findings.iter().position(is_it)
    });
    places.next()
}

fn always(_: &Facts, _: &Finding, _: &Finding) -> bool {
    true
}

fn same_object(_: &Facts, cause: &Finding, finding: &Finding) -> bool {
    cause.object == finding.object
}

/// By the peer's name, or by its outer address.
fn same_peer(facts: &Facts, cause: &Finding, finding: &Finding) -> bool {
    let mut peers = facts.peers.iter();
    cause.object == finding.object
        || peers.any(|peer| {
            let names = [peer.name.to_string(), peer.vtep.to_string()];
            names.contains(&cause.object) && names.contains(&finding.object)
        })
}

fn peer_of_network(facts: &Facts, cause: &Finding, finding: &Finding) -> bool {
    let mut peers = facts.peers.iter();
    peers.any(|peer| peer.network.as_str() == cause.object && peer.name.as_str() == finding.object)
}

/// The object is a list of devices.
fn same_device(_: &Facts, cause: &Finding, finding: &Finding) -> bool {
    let mut devices = finding.object.split(", ");
    devices.any(|device| device == cause.object)
}

/// The device is named in what was seen.
fn is_named(_: &Facts, cause: &Finding, finding: &Finding) -> bool {
    let mut words = finding.what.split([' ', ':', ',']);
    cause.object == finding.object || words.any(|word| word == cause.object)
}

/// The peer is on the link of a device that is down, whose routes go with it, or no device of the
/// underlay is up.
fn was_the_way(facts: &Facts, cause: &Finding, finding: &Finding) -> bool {
    let on_its_link = |peer: &&PeerFacts| {
        let mut addresses = facts.addresses.iter();
        addresses.any(|address| {
            address.device.as_str() == cause.object && address.net.contains(&peer.vtep)
        })
    };
    let mut peers = facts.peers.iter();
    let peer = peers.find(|peer| peer.name.as_str() == finding.object);
    peer.as_ref().is_some_and(on_its_link) || was_the_only_way(facts, cause, finding)
}

fn was_the_only_way(facts: &Facts, _: &Finding, _: &Finding) -> bool {
    let mut devices = facts.underlay.iter();
    devices.all(|device| !(device.up && device.running))
}

fn without_checksums(_: &Facts, cause: &Finding, _: &Finding) -> bool {
    cause.what.contains("rx-checksum")
}

fn is_tracked(_: &Facts, _: &Finding, finding: &Finding) -> bool {
    finding.what.contains("tracked ")
}

fn is_hooked(_: &Facts, _: &Finding, finding: &Finding) -> bool {
    finding.what.contains("hooked ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use overlay_control::{Cure, Finding, Severity};

    use super::{super::healthy::facts, CAUSES, in_order};
    use crate::doctor::checks::names;

    fn finding(check: &str, object: &str, severity: Severity) -> Finding {
        Finding {
            check: check.to_owned(),
            severity,
            object: object.to_owned(),
            what: "seen".to_owned(),
            why: String::new(),
            follows_from: None,
            cure: Cure::default(),
        }
    }

    fn told(findings: &[Finding]) -> Vec<(&str, Option<&str>)> {
        let told = findings.iter();
        told.map(|it| (&*it.check, it.follows_from.as_deref()))
            .collect()
    }

    #[test]
    fn every_entry_is_of_checks_and_there_is_no_circle() {
        let names: BTreeSet<&str> = names().into_iter().collect();
        for (cause, check, _) in &CAUSES {
            assert!(
                names.contains(cause) && names.contains(check),
                "{cause}, {check}"
            );
            let mut reached = BTreeSet::from([*check]);
            for _ in &CAUSES {
                let next = CAUSES.iter().filter(|(from, ..)| reached.contains(from));
                let next: Vec<&str> = next.map(|(_, to, _)| *to).collect();
                reached.extend(next);
            }
            assert!(!reached.contains(cause), "{cause} follows from itself");
        }
    }

    #[test]
    fn causes_come_before_what_follows_and_the_worst_group_first() {
        use Severity::{Note, Problem, Warning};
        let mut facts = facts();
        facts.underlay[0].running = false;
        let mut found = vec![
            finding("container-mtu", "web", Warning),
            finding("checksums-unverified", "eth1", Note),
            finding("peer-no-route", "n2", Problem),
            finding("offload-off", "eth1", Warning),
            finding("underlay-down", "eth1", Problem),
            finding("range-around-vtep", "lab", Warning),
        ];
        found[3].what = "it has and does not use rx-checksum".to_owned();
        in_order(&facts, &mut found);
        let expected = [
            ("underlay-down", None),
            ("peer-no-route", Some("underlay-down")),
            ("range-around-vtep", Some("underlay-down")),
            ("container-mtu", None),
            ("offload-off", None),
            ("checksums-unverified", Some("offload-off")),
        ];
        assert_eq!(told(&found), expected);
    }

    #[test]
    fn what_cannot_be_proven_stands_for_itself() {
        use Severity::Problem;
        let mut facts = facts();
        let mut other = facts.underlay[0].clone();
        other.name = "eth2".parse().unwrap();
        facts.underlay.push(other);
        facts.underlay[1].up = false;
        let mut found = vec![
            finding("peer-no-route", "n2", Problem),
            finding("underlay-down", "eth2", Problem),
        ];
        in_order(&facts, &mut found);
        assert_eq!(
            told(&found),
            [("peer-no-route", None), ("underlay-down", None)],
            "n2 is on the link of eth1, which is up"
        );
    }
}
