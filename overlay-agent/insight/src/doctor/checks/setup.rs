//! What stands in the agent's way, and what it has to leave out.
//!
//! The agent tells the same in `status`; here each has a name, and a command where one helps.

use overlay_control::{Cure, Finding};
use overlay_core::{
    desired::{Obstacle, Problem, troubles},
    surroundings::NoGuard,
    trouble::Trouble,
};

use super::{Check, Fault, Looked, advice, devices, room};
use crate::doctor::{
    commands::{remove_address, remove_route},
    facts::Facts,
};

const STOPPED: &str =
    "Until it is put right the agent makes, changes and repairs nothing on this node.";

const UNDERLAY: Fault = Fault::problem(troubles::UNDERLAY_MISSING, STOPPED);
const MTU: Fault = Fault::problem(troubles::MTU_DOES_NOT_FIT, STOPPED);
const FILTER: Fault = Fault::problem(troubles::PACKET_FILTER_MISSING, STOPPED);
const GUARD: Fault = Fault::warning(troubles::GUARD_TABLE_MISSING, ROUND);
const GUARD_NAME: Fault = Fault::problem(troubles::GUARD_TABLE_TAKEN, ROUND);
const ROUND: &str = "The rules of [networks.security] hold for what the programs take, but not for \
                     what the kernel receives for a tunnel: outer fragments and IP options, other \
                     devices of the node, and everything while the fast path is off.";
const NAME: Fault = Fault::problem(troubles::DEVICE_NAME_TAKEN, STOPPED);
const VXLAN: Fault = Fault::problem(troubles::FOREIGN_VXLAN, STOPPED);
const PORT: Fault = Fault::problem(troubles::PORT_TAKEN, STOPPED);
const ADDRESS: Fault = Fault::problem(troubles::GATEWAY_TAKEN, STOPPED);
const OWN_ADDRESS: Fault = Fault::problem(
    troubles::ADDRESS_TAKEN,
    "The kernel takes packets for that address for the node's own: by its path the container with \
     it is not reached.",
);
const ROUTE: Fault = Fault::problem(
    troubles::ROUTE_TAKEN,
    "Packets of the node, and what the programs leave to the kernel, go where that route leads.",
);
const NO_ROUTE: Fault = Fault::problem(
    troubles::PEER_NO_ROUTE,
    "Nothing can be sent to the peer's containers.",
);
const RANGE: Fault = Fault::warning(
    troubles::RANGE_AROUND_VTEP,
    "What is for an address of the range that no peer has leaves this node unencapsulated, by its \
     default route.",
);
const AROUND: Fault = Fault::problem(
    troubles::SUBNET_AROUND_UNDERLAY,
    "Nothing is changed: the node would lose part of its underlay, with all who reach it from there.",
);
const FULL: Fault = Fault::problem(troubles::MAP_FULL, room::LEFT_OUT);
const ATTACHED: Fault = Fault::problem(
    troubles::ENDPOINT_NOT_ATTACHED,
    "The container is not in its network.",
);
const DEFAULT_ROUTE: Fault = Fault::warning(
    troubles::CONTAINER_DEFAULT_ROUTE,
    "The container reaches the network only if it has routes of its own there.",
);

const PASSED_BY: Fault = Fault::warning(
    troubles::HOOK_PASSED_BY,
    "Whoever put it there expects it to shape, count or drop packets that it does not see.",
);

const WIREGUARD: Fault = Fault::problem(troubles::WIREGUARD_MISSING, STOPPED);
const OWN_KEY: Fault = Fault::problem(
    troubles::OWN_KEY,
    "Nothing can be encrypted for the peer, so nothing is sent to it.",
);

pub(super) const CHECKS: [Check; 20] = [
    WIREGUARD.always(|facts| found(facts, &WIREGUARD)),
    OWN_KEY.always(|facts| found(facts, &OWN_KEY)),
    PASSED_BY.always(|facts| found(facts, &PASSED_BY)),
    UNDERLAY.always(|facts| found(facts, &UNDERLAY)),
    MTU.always(|facts| found(facts, &MTU)),
    FILTER.always(|facts| found(facts, &FILTER)),
    GUARD.if_seen(guard),
    GUARD_NAME.always(|facts| found(facts, &GUARD_NAME)),
    NAME.always(|facts| found(facts, &NAME)),
    VXLAN.always(|facts| found(facts, &VXLAN)),
    PORT.always(|facts| found(facts, &PORT)),
    ADDRESS.always(|facts| found(facts, &ADDRESS)),
    OWN_ADDRESS.always(|facts| found(facts, &OWN_ADDRESS)),
    ROUTE.always(|facts| found(facts, &ROUTE)),
    NO_ROUTE.always(|facts| found(facts, &NO_ROUTE)),
    RANGE.always(|facts| found(facts, &RANGE)),
    AROUND.always(|facts| found(facts, &AROUND)),
    FULL.always(|facts| found(facts, &FULL)),
    ATTACHED.always(|facts| found(facts, &ATTACHED)),
    DEFAULT_ROUTE.always(|facts| found(facts, &DEFAULT_ROUTE)),
];

/// Those of one name.
fn found(facts: &Facts, fault: &Fault) -> Vec<Finding> {
    let obstacles = facts.obstacles.iter();
    let obstacles = obstacles.filter(|obstacle| !is_duplicate(facts, obstacle));
    let obstacles = obstacles.map(|one| (Trouble::from(one), removal_of_obstacle(facts, one)));
    let problems = facts.problems.iter();
    let problems = problems.filter(|problem| !is_elsewhere(facts, problem));
    let problems = problems.map(|one| (Trouble::from(one), removal_of_problem(one)));
    obstacles
        .chain(problems)
        .filter(|(trouble, _)| trouble.id == fault.name)
        .map(|(trouble, removal)| {
            let commands = removal.map(|command| facts.commands.on_node(command));
            let cure = Cure {
                text: trouble.cure.into_owned(),
                commands: commands.into_iter().collect(),
            };
            fault.at(trouble.subject, trouble.what, cure)
        })
        .collect()
}

/// The command that takes away what is in the way, where one does.
fn removal_of_obstacle(facts: &Facts, obstacle: &Obstacle) -> Option<String> {
    match obstacle {
        // What it does goes on. Another instance's is in use.
        Obstacle::DeviceTaken { device } => Some(troubles::rename(*device)),
        Obstacle::AddressTaken {
            address,
            device,
            owner,
            ..
        } => {
            let mut there = facts.addresses.iter();
            let net = there.find(|of| of.device == *device && of.net.addr() == *address)?;
            owner.is_none().then(|| remove_address(net.net, device))
        }
        Obstacle::RouteTaken {
            destination, other, ..
        } => (other.owner.is_none()).then(|| remove_route(*destination)),
        _ => None,
    }
}

/// Why there can be no guard of the tunnels' ports, which is no problem of the agent's. Where
/// nothing is done without `nft`, that is what is told.
fn guard(facts: &Facts) -> Looked {
    let mut obstacles = facts.obstacles.iter();
    if obstacles.any(|obstacle| matches!(obstacle, Obstacle::NoFilter { .. })) {
        return Ok(Vec::new());
    }
    match &facts.no_guard {
        Some(NoGuard::Hidden(cause)) => Err(cause.clone()),
        Some(NoGuard::Unavailable(cause)) if !facts.networks.is_empty() => {
            let cure =
                advice("install nftables, and use a kernel that has it (CONFIG_NF_TABLES_INET)");
            Ok(vec![GUARD.at("nft", cause, cure)])
        }
        _ => Ok(found(facts, &GUARD)),
    }
}

fn removal_of_problem(problem: &Problem) -> Option<String> {
    match problem {
        Problem::RouteTaken {
            destination, other, ..
        } => (other.owner.is_none()).then(|| remove_route(*destination)),
        Problem::DeviceTaken { device, owner, .. } => {
            owner.is_none().then(|| troubles::rename(*device))
        }
        Problem::AddressTaken {
            net, device, owner, ..
        } => owner.is_none().then(|| remove_address(*net, device)),
        _ => None,
    }
}

/// Whether the node lacks an outer address that it has, but that another node has, too.
fn is_duplicate(facts: &Facts, obstacle: &Obstacle) -> bool {
    let mut addresses = facts.addresses.iter();
    match obstacle {
        Obstacle::NoVtep { .. } => addresses.any(|address| devices::is_of_another(facts, address)),
        Obstacle::NoSuchAddress { address, .. } => {
            addresses.any(|of| of.net.addr() == *address && devices::is_of_another(facts, of))
        }
        _ => false,
    }
}

/// Whether another check tells more: a VTEP that is this node's own has no way, and a container's
/// own default route may really lead astray.
fn is_elsewhere(facts: &Facts, problem: &Problem) -> bool {
    match problem {
        Problem::NoWay { vtep, .. } => {
            let mut addresses = facts.addresses.iter();
            addresses.any(|address| address.net.addr() == *vtep)
        }
        Problem::OtherDefaultRoute { endpoint, .. } => {
            let mut containers = facts.containers.iter();
            containers.any(|container| container.name == *endpoint && !container.astray.is_empty())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use overlay_control::Severity;
    use overlay_core::{
        desired::{Inside, Obstacle, Problem},
        surroundings::NoGuard,
    };

    use super::super::healthy::{broken, only};

    #[test]
    fn an_obstacle_has_a_name_an_object_and_a_command() {
        let found = only("foreign-vxlan", |facts| {
            facts.obstacles = vec![Obstacle::PortTaken {
                network: "lab".parse().unwrap(),
                port: 4789,
                device: "vx9".parse().unwrap(),
                owner: None,
            }];
        });
        assert_eq!(found.object, "vx9");
        assert!(
            found.cure.commands.is_empty(),
            "it would take somebody's away"
        );
        assert_eq!(found.what, "VXLAN device vx9 has UDP port 4789");
        assert_eq!(
            found.cure.text,
            "see whose it is with \"ip -d link show vx9\", and have it use another port, or choose another port"
        );
    }

    #[test]
    fn a_subnet_around_the_underlay_is_named() {
        let found = only("subnet-around-underlay", |facts| {
            facts.obstacles = vec![Obstacle::AroundUnderlay {
                network: "lab".parse().unwrap(),
                peer: None,
                subnet: "192.168.56.0/25".parse().unwrap(),
                inside: Inside::Own([192, 168, 56, 11].into(), "eth1".parse().unwrap()),
            }];
        });
        assert_eq!(found.object, "192.168.56.0/25");
        assert!(found.what.contains("192.168.56.11"), "{found:#?}");
    }

    #[test]
    fn a_problem_names_whom_it_concerns() {
        let found = only("endpoint-not-attached", |facts| {
            facts.problems = vec![Problem::NoNamespace {
                endpoint: "web".parse().unwrap(),
                path: "/run/netns/web".into(),
            }];
        });
        assert_eq!(found.object, "web");
        let found = only("map-full", |facts| {
            facts.problems = vec![Problem::PeersLeftOut {
                network: "lab".parse().unwrap(),
                peers: 3,
                full: ("PEERS4", 2),
            }];
        });
        assert_eq!(found.object, "3 peers of network lab");
        assert!(found.what.starts_with("map PEERS4 is full"));
        let found = only("range-around-vtep", |facts| {
            facts.problems = vec![Problem::RangeAroundVtep {
                network: "lab".parse().unwrap(),
                cidr: "10.0.0.0/8".parse().unwrap(),
                vtep: "10.1.0.5".parse().unwrap(),
            }];
        });
        assert_eq!(found.object, "10.0.0.0/8");
    }

    #[test]
    fn a_node_without_nftables_is_told_how_far_its_rules_hold() {
        let found = only("guard-table-missing", |facts| {
            facts.no_guard = Some(NoGuard::Unavailable("there is no program nft".to_owned()));
        });
        assert_eq!(
            (found.severity, found.object.as_str()),
            (Severity::Warning, "nft")
        );
        let hidden = broken(|facts| facts.no_guard = Some(NoGuard::Hidden("no".to_owned())));
        assert!(hidden.is_empty(), "{hidden:#?}");
        let found = only("guard-table-taken", |facts| {
            facts.problems = vec![Problem::GuardTaken {
                table: "guard.overlay-n1".to_owned(),
                owner: None,
            }];
        });
        assert!(found.object.contains("guard.overlay-n1"), "{found:#?}");
    }

    #[test]
    fn nobody_is_told_to_delete_the_device_of_another_instance() {
        let of = |obstacle| {
            only("device-name-taken", |facts| {
                facts.obstacles = vec![obstacle];
            })
        };
        let device = "ovl1".parse().unwrap();
        let stranger = of(Obstacle::DeviceTaken { device });
        assert_eq!(stranger.cure.commands, ["ip link set dev ovl1 name x-ovl1"]);
        let instance = of(Obstacle::NetworkTaken {
            network: "lab".parse().unwrap(),
            devices: vec![device],
            owner: "b".parse().unwrap(),
        });
        assert!(instance.cure.commands.is_empty(), "{instance:#?}");
        assert!(!instance.cure.text.contains("del"), "{instance:#?}");
    }

    #[test]
    fn a_vtep_of_this_node_is_no_missing_route() {
        let found = broken(|facts| {
            let vtep = facts.vteps[0];
            facts.problems = vec![Problem::NoWay {
                peer: "n2".parse().unwrap(),
                vtep,
            }];
        });
        assert!(found.is_empty(), "{found:#?}");
    }
}
