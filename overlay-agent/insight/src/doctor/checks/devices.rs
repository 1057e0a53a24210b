//! The underlay's devices and addresses.

use overlay_control::Finding;
use overlay_core::{desired::Obstacle, model::IfName};

use super::{Check, Fault, Looked, advice, command, list};
use crate::doctor::{
    commands::remove_address,
    facts::{Facts, NodeAddress},
};

const DOWN: Fault = Fault::problem("underlay-down", "No peer can be reached through it.");
const OFFLOADS: Fault = Fault::warning(
    "offload-off",
    "The processor does for every packet what the device could do, or does for many at once.",
);
const ONE_QUEUE: Fault = Fault::note(
    "one-receive-queue",
    "One processor receives all that a peer sends, however many there are.",
);
const DUPLICATE: Fault = Fault::problem(
    "duplicate-vtep",
    "Tunnel packets for that address go to one of those who have it, and it need not be the right one.",
);

pub(super) const CHECKS: [Check; 4] = [
    DOWN.always(down),
    OFFLOADS.if_seen(offloads),
    ONE_QUEUE.if_seen(one_queue),
    DUPLICATE.always(duplicate),
];

/// What costs a lot when it is off, as `ethtool -k` calls it.
const FEATURES: [&str; 8] = [
    "rx-checksum",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-udp_tnl-segmentation",
    "rx-gro",
];

/// The kernel makes veths without it: nothing is lost, as no wire cuts up what passes them.
const NOT_OF_VETHS: &str = "rx-gro";

fn down(facts: &Facts) -> Vec<Finding> {
    let down = facts
        .underlay
        .iter()
        .filter(|device| !device.up || !device.running);
    down.map(|device| {
        let name = device.name;
        if device.up {
            let cure = advice("look at its cable, its switch, or the other end of its pair");
            DOWN.at(name, "it is up and has no carrier", cure)
        } else {
            let up = facts.commands.on_node(format!("ip link set {name} up"));
            DOWN.at(name, "it is down", command("set it up", up))
        }
    })
    .collect()
}

fn offloads(facts: &Facts) -> Looked {
    let mut found = Vec::new();
    for device in &facts.underlay {
        let unused = device.unused_features.as_ref().map_err(Clone::clone)?;
        let wanted = unused.iter().filter(|feature| {
            FEATURES.contains(&feature.as_str())
                && (device.kind != "veth" || *feature != NOT_OF_VETHS)
        });
        let wanted: Vec<&str> = wanted.map(String::as_str).collect();
        if wanted.is_empty() {
            continue;
        }
        let on: Vec<String> = wanted.iter().map(|name| format!("{name} on")).collect();
        let name = device.name;
        let on = facts
            .commands
            .on_node(format!("ethtool -K {name} {}", on.join(" ")));
        let what = format!("it has and does not use {}", list(&wanted));
        let sums = wanted
            .iter()
            .any(|feature| feature.starts_with("tx-checksum"));
        let cure = if sums {
            "switch it on, unless it was switched off because the card makes checksums wrongly \
             (checksums-wrong)"
        } else {
            "switch it on"
        };
        found.push(OFFLOADS.at(name, what, command(cure, on)));
    }
    Ok(found)
}

/// Flows of a tunnel differ in the source port alone (RFC 7348 §5).
fn one_queue(facts: &Facts) -> Looked {
    let mut found = Vec::new();
    for device in &facts.underlay {
        if device.one_queue.as_ref().map_err(Clone::clone)? != &Some(true) {
            continue;
        }
        let name = device.name;
        let by_ports = facts
            .commands
            .on_node(format!("ethtool -N {name} rx-flow-hash udp4 sdfn"));
        let what = "it has several receive queues, and spreads UDP over them by addresses alone";
        let cure = command("have it look at ports, too", by_ports);
        found.push(ONE_QUEUE.at(name, what, cure));
    }
    Ok(found)
}

fn is_underlay(facts: &Facts, device: IfName) -> bool {
    facts.underlay.iter().any(|link| link.name == device)
}

/// Whether the kernel has found, when an outer address was added, that another node has it: then
/// nobody here may use it.
pub(super) fn is_of_another(facts: &Facts, address: &NodeAddress) -> bool {
    let ip = address.net.addr();
    let wanted = |obstacle: &Obstacle| matches!(obstacle, Obstacle::NoSuchAddress { address, .. } if *address == ip);
    let is_outer = is_underlay(facts, address.device) || facts.obstacles.iter().any(wanted);
    is_outer && !address.usable
}

fn duplicate(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for address in &facts.addresses {
        let (device, ip) = (address.device, address.net.addr());
        let owner = facts.peers.iter().find(|peer| peer.vtep == ip);
        let remove = || {
            let remove = remove_address(address.net, device);
            facts.commands.on_node(remove)
        };
        if let Some(peer) = owner {
            let what = format!(
                "{device} of this node has the address, and so has peer {}",
                peer.name
            );
            let cure = if facts.vteps.contains(&ip) {
                // Without it the node would be cut off.
                advice("this node is reached by it: correct the peer's vtep")
            } else {
                command(
                    "take it from this node, or correct the peer's vtep",
                    remove(),
                )
            };
            found.push(DUPLICATE.at(ip, what, cure));
        } else if is_of_another(facts, address) {
            let what = format!("another node on the link of {device} has the address, too");
            let cure = advice(
                "give one of the two nodes another address; if this one keeps it, remove it here \
                 and add it again, as the kernel asks the others only then",
            );
            found.push(DUPLICATE.at(ip, what, cure));
        } else if facts.vteps.contains(&ip)
            && !is_underlay(facts, device)
            && facts
                .addresses
                .iter()
                .any(|of| of.net.addr() == ip && of.device != device)
        {
            let what = format!("{device}, which is not an underlay, has the address, too");
            found.push(DUPLICATE.at(ip, what, command("take it from there", remove())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use overlay_core::desired::Obstacle;

    use super::super::healthy::{broken, only};
    use crate::doctor::facts::NodeAddress;

    #[test]
    fn a_device_that_is_down_is_told_from_one_without_a_carrier() {
        let found = only("underlay-down", |facts| facts.underlay[0].running = false);
        assert!(found.cure.commands.is_empty());
        let found = only("underlay-down", |facts| facts.underlay[0].up = false);
        assert_eq!(found.cure.commands, ["ip link set eth1 up"]);
    }

    #[test]
    fn only_features_that_matter_and_that_there_are_count() {
        let unused = |kind: &'static str, names: [&'static str; 2]| {
            move |facts: &mut crate::doctor::facts::Facts| {
                kind.clone_into(&mut facts.underlay[0].kind);
                facts.underlay[0].unused_features = Ok(names.map(str::to_owned).to_vec());
            }
        };
        let found = only(
            "offload-off",
            unused("", ["rx-gro", "rx-udp-gro-forwarding"]),
        );
        assert_eq!(found.cure.commands, ["ethtool -K eth1 rx-gro on"]);
        assert!(broken(unused("veth", ["rx-gro", "rx-gro-list"])).is_empty());
    }

    #[test]
    fn queues_that_a_peer_does_not_fill_are_noted_where_the_device_tells() {
        let found = only("one-receive-queue", |facts| {
            facts.underlay[0].one_queue = Ok(Some(true));
        });
        assert_eq!(
            found.cure.commands,
            ["ethtool -N eth1 rx-flow-hash udp4 sdfn"]
        );
        assert!(broken(|facts| facts.underlay[0].one_queue = Ok(None)).is_empty());
    }

    #[test]
    fn an_address_that_two_have_is_told_with_both() {
        let also = |device: &str, net: &str, usable: bool| NodeAddress {
            device: device.parse().unwrap(),
            net: net.parse().unwrap(),
            usable,
        };
        let found = only("duplicate-vtep", |facts| {
            facts.addresses.push(also("eth1", "192.168.56.12/24", true));
        });
        assert_eq!(found.object, "192.168.56.12");
        assert_eq!(
            found.cure.commands,
            ["ip address del 192.168.56.12/24 dev eth1"]
        );
        only("duplicate-vtep", |facts| {
            facts
                .addresses
                .push(also("dummy0", "192.168.56.11/32", true));
        });
        // Without its address, the node has no VTEP.
        let found = only("duplicate-vtep", |facts| {
            facts.addresses[0].usable = false;
            facts.vteps.clear();
            let underlay = vec!["eth1".parse().unwrap()];
            facts.obstacles = vec![Obstacle::NoVtep { underlay }];
        });
        assert!(found.what.contains("another node"), "{found:?}");
    }
}
