//! What stands in the agent's way, and what it has to leave out.
//!
//! The agent tells the same in `status`; here each has a name, and a command where one helps.

use super::{Check, Fault, Look, advice, command, devices, room};
use crate::{
    api::{Cure, Finding},
    desired::{Obstacle, Problem},
    doctor::{
        commands::{remove_address, remove_link, remove_route},
        facts::Facts,
    },
};

const STOPPED: &str =
    "Nothing of the node is changed any more, not even repaired, as long as it is so.";

const UNDERLAY: Fault = Fault::problem("underlay-missing", STOPPED);
const MTU: Fault = Fault::problem("mtu-does-not-fit", STOPPED);
const FILTER: Fault = Fault::problem("packet-filter-missing", STOPPED);
const NAME: Fault = Fault::problem("device-name-taken", STOPPED);
const VXLAN: Fault = Fault::problem("foreign-vxlan", STOPPED);
const PORT: Fault = Fault::problem("port-taken", STOPPED);
const ADDRESS: Fault = Fault::problem("gateway-taken", STOPPED);
const ROUTE: Fault = Fault::problem(
    "route-taken",
    "Packets of the node, and what the programs leave to the kernel, go where that route leads.",
);
const NO_ROUTE: Fault = Fault::problem(
    "peer-no-route",
    "Nothing can be sent to the peer's containers.",
);
const RANGE: Fault = Fault::warning(
    "range-around-vtep",
    "What is for an address of the range that no peer has leaves this node unencapsulated, by its \
     default route.",
);
const FULL: Fault = Fault::problem("map-full", room::LEFT_OUT);
const ATTACHED: Fault = Fault::problem(
    "endpoint-not-attached",
    "The container is not in its network.",
);
const DEFAULT_ROUTE: Fault = Fault::warning(
    "container-default-route",
    "The container reaches the network only if it has routes of its own there.",
);

pub(super) const CHECKS: [Check; 13] = [
    Check {
        fault: UNDERLAY,
        look: Look::Always(|facts| found(facts, &UNDERLAY)),
    },
    Check {
        fault: MTU,
        look: Look::Always(|facts| found(facts, &MTU)),
    },
    Check {
        fault: FILTER,
        look: Look::Always(|facts| found(facts, &FILTER)),
    },
    Check {
        fault: NAME,
        look: Look::Always(|facts| found(facts, &NAME)),
    },
    Check {
        fault: VXLAN,
        look: Look::Always(|facts| found(facts, &VXLAN)),
    },
    Check {
        fault: PORT,
        look: Look::Always(|facts| found(facts, &PORT)),
    },
    Check {
        fault: ADDRESS,
        look: Look::Always(|facts| found(facts, &ADDRESS)),
    },
    Check {
        fault: ROUTE,
        look: Look::Always(|facts| found(facts, &ROUTE)),
    },
    Check {
        fault: NO_ROUTE,
        look: Look::Always(|facts| found(facts, &NO_ROUTE)),
    },
    Check {
        fault: RANGE,
        look: Look::Always(|facts| found(facts, &RANGE)),
    },
    Check {
        fault: FULL,
        look: Look::Always(|facts| found(facts, &FULL)),
    },
    Check {
        fault: ATTACHED,
        look: Look::Always(|facts| found(facts, &ATTACHED)),
    },
    Check {
        fault: DEFAULT_ROUTE,
        look: Look::Always(|facts| found(facts, &DEFAULT_ROUTE)),
    },
];

/// Those of one name.
fn found(facts: &Facts, fault: &Fault) -> Vec<Finding> {
    let obstacles = facts
        .obstacles
        .iter()
        .filter_map(|obstacle| of_obstacle(facts, obstacle, fault));
    let problems = facts
        .problems
        .iter()
        .filter_map(|problem| of_problem(facts, problem, fault));
    obstacles.chain(problems).collect()
}

fn of_obstacle(facts: &Facts, obstacle: &Obstacle, wanted: &Fault) -> Option<Finding> {
    if is_duplicate(facts, obstacle) {
        return None;
    }
    let (fault, object, removal) = match obstacle {
        Obstacle::NoSuchUnderlay { name, .. } => (&UNDERLAY, name.to_string(), None),
        Obstacle::NoSuchAddress { address } => (&UNDERLAY, address.to_string(), None),
        Obstacle::NoVtep { .. } => (&UNDERLAY, "underlay".to_owned(), None),
        Obstacle::MtuTooBig { network, .. } | Obstacle::MtuForIpv6 { network, .. } => {
            (&MTU, network.to_string(), None)
        }
        Obstacle::NoFilter { .. } => (&FILTER, "nft".to_owned(), None),
        // What another instance made is in use.
        Obstacle::DeviceTaken { device, owner } => {
            let removal = owner.is_none().then(|| remove_link(device));
            (&NAME, device.to_string(), removal)
        }
        Obstacle::PortTaken { device, owner, .. } => {
            let removal = owner.is_none().then(|| remove_link(device));
            (&VXLAN, device.to_string(), removal)
        }
        Obstacle::PortBusy { port, .. } => (&PORT, format!("UDP port {port}"), None),
        Obstacle::AddressTaken {
            address,
            device,
            owner,
            ..
        } => {
            let mut there = facts.addresses.iter();
            let net = there.find(|of| of.device == *device && of.net.addr() == *address);
            let removal = net.filter(|_| owner.is_none());
            let removal = removal.map(|of| remove_address(of.net, device));
            (&ADDRESS, address.to_string(), removal)
        }
        Obstacle::RouteTaken { destination, .. } => {
            let removal = remove_route(*destination);
            (&ROUTE, destination.to_string(), Some(removal))
        }
        // The check for duplicates tells it, with the device.
        Obstacle::OwnVtep { .. } => return None,
    };
    (fault.name == wanted.name).then(|| {
        let text = obstacle.to_string();
        let (what, cure) = split(&text);
        fault.at(object, what, cured(facts, cure, removal))
    })
}

fn of_problem(facts: &Facts, problem: &Problem, wanted: &Fault) -> Option<Finding> {
    let (fault, object, removal) = match problem {
        Problem::NoWay { peer, .. } | Problem::NoTunnel { peer, .. } => {
            (&NO_ROUTE, peer.to_string(), None)
        }
        Problem::RangeAroundVtep { cidr, .. } => (&RANGE, cidr.to_string(), None),
        Problem::NoWayToMore { network, .. } => (&NO_ROUTE, network.to_string(), None),
        Problem::PeersLeftOut { network, .. }
        | Problem::NetworkLeftOut { network, .. }
        | Problem::RangeLeftOut { network, .. }
        | Problem::TunnelLeftOut { network, .. }
        | Problem::AddressesLeftOut { network, .. } => (&FULL, network.to_string(), None),
        Problem::RouteTaken { destination, .. } => {
            let removal = remove_route(*destination);
            (&ROUTE, destination.to_string(), Some(removal))
        }
        Problem::NoAddress { endpoint, .. }
        | Problem::NoNamespace { endpoint, .. }
        | Problem::NodeNamespace { endpoint, .. }
        | Problem::InterfaceTaken { endpoint, .. }
        | Problem::EndpointLeftOut { endpoint, .. }
        | Problem::SameDeviceName { endpoint, .. } => (&ATTACHED, endpoint.to_string(), None),
        Problem::DeviceTaken {
            endpoint,
            device,
            owner,
        } => {
            let removal = owner.is_none().then(|| remove_link(device));
            (&ATTACHED, endpoint.to_string(), removal)
        }
        Problem::OtherDefaultRoute { endpoint, .. } => (&DEFAULT_ROUTE, endpoint.to_string(), None),
    };
    let same = fault.name == wanted.name && !is_elsewhere(facts, problem);
    same.then(|| {
        let text = problem.to_string();
        let (what, cure) = split(&text);
        fault.at(object, what, cured(facts, cure, removal))
    })
}

/// Whether the node lacks an outer address that it has, but that another node has, too.
fn is_duplicate(facts: &Facts, obstacle: &Obstacle) -> bool {
    let mut addresses = facts.addresses.iter();
    match obstacle {
        Obstacle::NoVtep { .. } => addresses.any(|address| devices::is_of_another(facts, address)),
        Obstacle::NoSuchAddress { address } => {
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

fn cured(facts: &Facts, text: &str, removal: Option<String>) -> Cure {
    match removal {
        Some(removal) => command(text, facts.commands.on_node(removal)),
        None => advice(text),
    }
}

/// What an error of ours says, and its cure, which comes last.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.rsplit_once("; ")
        .unwrap_or((text, "see the agent's log"))
}

#[cfg(test)]
mod tests {
    use super::super::healthy::{broken, only};
    use crate::desired::{Obstacle, Problem};

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
        assert_eq!(found.cure.commands, ["ip link del vx9"]);
        assert_eq!(
            found.what,
            "open UDP port 4789 for network lab: VXLAN device vx9 has it"
        );
        assert_eq!(
            found.cure.text,
            "remove that device, or choose another port"
        );
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
        assert!(found.what.starts_with("map 3 peers of network lab"));
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
