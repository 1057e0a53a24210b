//! What containers do to themselves.

use overlay_control::{Cure, Finding};
use overlay_core::trouble::inside;

use super::{Check, Fault, Looked, advice, command, list};
use crate::doctor::{
    commands::{remove_address, remove_route},
    facts::{Astray, Container, Facts},
};

const ADDRESSES: Fault = Fault::warning(
    "endpoint-more-addresses",
    "What it sends from there is dropped as spoofed, and nobody else finds it there.",
);
const ROUTE: Fault = Fault::problem(
    "container-route",
    "Its packets for the network do not go to its gateway, which alone knows the way.",
);
const MTU: Fault = Fault::warning(
    "container-mtu",
    "Either it sends more than the network carries, or it cuts up what would fit.",
);

const LEFT: Fault = Fault::warning(
    "runtime-rules-left",
    "Whoever gets the address next gets what they say: ports of the host that it did not ask for, \
     and a way past the packet filter.",
);

pub(super) const CHECKS: [Check; 4] = [
    ADDRESSES.always(addresses),
    ROUTE.always(route),
    MTU.always(mtu),
    LEFT.if_seen(left),
];

fn left(facts: &Facts) -> Looked {
    let leftovers = facts.leftovers.as_ref().map_err(Clone::clone)?;
    let found = leftovers.iter().map(|(address, leftover)| {
        let what = format!(
            "no container has {address}, and plugins of a container runtime have left rules for it \
             in {}",
            list(&leftover.chains)
        );
        let commands = leftover.removal.iter();
        let cure = Cure {
            text: "remove them; a runtime that detaches, as ctr does, has nobody send DEL"
                .to_owned(),
            commands: commands.map(|it| facts.commands.on_node(it)).collect(),
        };
        LEFT.at(address, what, cure)
    });
    Ok(found.collect())
}

fn addresses(facts: &Facts) -> Vec<Finding> {
    let more = facts.containers.iter().flat_map(|container| {
        let more = container.more_addresses.iter();
        more.map(move |address| (container, address))
    });
    more.map(|(container, (net, device))| {
        let what = format!(
            "it has {net} on {device}, which is in network {} and not its own",
            container.network
        );
        let remove = remove_address(*net, device);
        // It is the container's own, which somebody may have added for a reason.
        let cure = advice(format!(
            "if nobody needs it, remove it with \"{}\"",
            inside(&container.netns, remove)
        ));
        ADDRESSES.at(&container.name, what, cure)
    })
    .collect()
}

fn astray(facts: &Facts) -> impl Iterator<Item = (&Container, &Astray)> {
    facts.containers.iter().flat_map(|container| {
        let astray = container.astray.iter();
        astray.map(move |astray| (container, astray))
    })
}

/// Leads to the right gateway, only not with the right size.
fn is_narrow(container: &Container, astray: &Astray) -> bool {
    astray.device == container.interface.as_str() && astray.via == Some(astray.gateway)
}

fn route(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (container, astray) in astray(facts).filter(|(container, way)| !is_narrow(container, way)) {
        let by = match astray.via {
            None => format!("on-link via {}", astray.device),
            Some(via) => format!("via {via} on {}", astray.device),
        };
        let what = format!(
            "{} is routed {by} instead of via the gateway {} on {}",
            astray.destination, astray.gateway, container.interface
        );
        push_once(
            &mut found,
            ROUTE.at(&container.name, what, remove(container, astray)),
        );
    }
    found
}

fn mtu(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for container in &facts.containers {
        let mut networks = facts.networks.iter();
        let network = networks.find(|network| network.name == container.network);
        let wanted = network.and_then(|network| network.mtu).map(u32::from);
        if let Some((mtu, wanted)) = container
            .mtu
            .zip(wanted)
            .filter(|(mtu, wanted)| mtu != wanted)
        {
            let what = format!(
                "{} has an MTU of {mtu}, and the network {wanted}",
                container.interface
            );
            let set = format!("ip link set {} mtu {wanted}", container.interface);
            let cure = command("set it", inside(&container.netns, set));
            push_once(&mut found, MTU.at(&container.name, what, cure));
        }
    }
    for (container, astray) in astray(facts).filter(|(container, way)| is_narrow(container, way)) {
        let Some(mtu) = astray.mtu else { continue };
        let what = format!(
            "its route to {} allows packets of {mtu} bytes alone",
            astray.destination
        );
        push_once(
            &mut found,
            MTU.at(&container.name, what, remove(container, astray)),
        );
    }
    found
}

fn remove(container: &Container, astray: &Astray) -> Cure {
    match astray.route {
        Some(route) => {
            let remove = format!("{} dev {}", remove_route(route), astray.device);
            command(
                format!(
                    "remove that route, or lead the network's range through {}",
                    astray.gateway
                ),
                inside(&container.netns, remove),
            )
        }
        None => advice(format!(
            "give it a route through {}: \"ip route get {}\" shows the one that it takes",
            astray.gateway, astray.destination
        )),
    }
}

/// One route leads to many peers, and is one fault.
fn push_once(found: &mut Vec<Finding>, finding: Finding) {
    let same = |known: &Finding| known.object == finding.object && known.cure == finding.cure;
    if !found.iter().any(same) {
        found.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::super::healthy::{broken, only};
    use crate::doctor::facts::{Astray, Facts};

    fn astray(via: &str, mtu: Option<u32>) -> Astray {
        Astray {
            destination: "10.244.2.1".parse().unwrap(),
            route: "10.244.2.0/24".parse().ok(),
            device: "eth0".to_owned(),
            via: via.parse().ok(),
            gateway: "10.244.1.1".parse().unwrap(),
            mtu,
        }
    }

    fn goes(astray: Astray) -> impl FnOnce(&mut Facts) {
        move |facts| facts.containers[0].astray = vec![astray.clone(), astray]
    }

    #[test]
    fn an_address_too_many_is_told_with_its_device() {
        let found = only("endpoint-more-addresses", |facts| {
            let more = ("10.244.1.77/32".parse().unwrap(), "lo".to_owned());
            facts.containers[0].more_addresses = vec![more];
        });
        assert_eq!(found.object, "web");
        assert!(found.cure.commands.is_empty(), "somebody may need it");
        let remove = "\"nsenter --net=/run/netns/web ip address del 10.244.1.77/32 dev lo\"";
        assert!(found.cure.text.contains(remove), "{found:?}");
    }

    #[test]
    fn a_wrong_way_and_a_narrow_one_are_told_apart() {
        let found = only("container-route", goes(astray("10.244.1.66", None)));
        assert!(
            found.what.contains("via 10.244.1.66 on eth0 instead of"),
            "{found:?}"
        );
        let found = only("container-mtu", goes(astray("10.244.1.1", Some(600))));
        assert_eq!(
            found.cure.commands,
            ["nsenter --net=/run/netns/web ip route del 10.244.2.0/24 dev eth0"]
        );
    }

    #[test]
    fn the_interface_has_the_network_s_mtu() {
        let found = only("container-mtu", |facts| {
            facts.containers[0].mtu = Some(9000);
        });
        assert_eq!(found.what, "eth0 has an MTU of 9000, and the network 1450");
        let detached = broken(|facts| facts.containers[0].mtu = None);
        assert!(detached.is_empty(), "{detached:#?}");
    }
}
