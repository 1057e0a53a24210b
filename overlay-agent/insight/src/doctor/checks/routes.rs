//! Routes and rules of others that lead the network's packets elsewhere.

use overlay_control::Cure;
use overlay_core::desired::{Obstacle, Problem};

use super::{Check, Fault, Looked, advice, command, list};
use crate::doctor::{
    commands::remove_route,
    facts::{Diversion, Diverted, Facts},
};

const ROUTE: Fault = Fault::problem(
    "route-hides-network",
    "What the kernel routes there does not go to the peer: packets of the node itself, and all that \
     the programs leave to it.",
);
const RULE: Fault = Fault::problem(
    "rule-diverts-network",
    "The rule's table is asked before the main one, in which the routes to the peers are.",
);

pub(super) const CHECKS: [Check; 2] = [
    ROUTE.if_seen(|facts| look(facts, &ROUTE, |by| !matches!(by, Diversion::Rule { .. }))),
    RULE.if_seen(|facts| look(facts, &RULE, |by| matches!(by, Diversion::Rule { .. }))),
];

fn look(facts: &Facts, fault: &Fault, concerns: impl Fn(&Diversion) -> bool) -> Looked {
    let diverted = facts.diverted.as_ref().map_err(Clone::clone)?;
    let mut seen: Vec<&Diversion> = Vec::new();
    let mut found = Vec::new();
    for astray in diverted.iter().filter(|astray| concerns(&astray.by)) {
        if is_told(facts, &astray.by) {
            continue;
        }
        if astray.by != Diversion::Unknown && seen.contains(&&astray.by) {
            continue;
        }
        seen.push(&astray.by);
        let what = format!(
            "{} of network {} leaves by {}, not by {}",
            astray.address,
            astray.network,
            astray.device,
            list(&astray.expected)
        );
        found.push(fault.at(object(astray), what, cure(facts, astray)));
    }
    Ok(found)
}

/// A route in the very place of ours stands in the agent's way, and is told as that; one that came
/// with an address goes with it.
fn is_told(facts: &Facts, by: &Diversion) -> bool {
    let Diversion::Route(route) = by else {
        return false;
    };
    let mut obstacles = facts.obstacles.iter();
    let mut problems = facts.problems.iter();
    obstacles.any(|obstacle| {
        matches!(obstacle, Obstacle::RouteTaken { destination, .. } if destination == route)
    }) || problems.any(
        |problem| matches!(problem, Problem::AddressTaken { net, .. } if net.trunc() == *route),
    )
}

fn object(astray: &Diverted) -> String {
    match &astray.by {
        Diversion::Route(destination) => destination.to_string(),
        Diversion::Rule { priority, table } => format!("rule {priority} to table {table}"),
        Diversion::Unknown => astray.address.to_string(),
    }
}

fn cure(facts: &Facts, astray: &Diverted) -> Cure {
    let ip = if astray.address.is_ipv4() {
        "ip"
    } else {
        "ip -6"
    };
    match &astray.by {
        Diversion::Route(destination) => command(
            "remove it, or give the network another range of addresses",
            facts.commands.on_node(remove_route(*destination)),
        ),
        Diversion::Rule { priority, .. } => before(facts, astray, ip, *priority),
        Diversion::Unknown => advice(format!(
            "\"{ip} route get {}\" and \"{ip} rule\" show what leads there",
            astray.address
        )),
    }
}

/// Leads the network's range to the main table before a rule that somebody needs for other traffic.
fn before(facts: &Facts, astray: &Diverted, ip: &str, priority: u32) -> Cure {
    let text =
        "lead the network's range to table main by a rule before it, and where rules are written";
    let mut networks = facts.networks.iter();
    let network = networks.find(|network| network.name == astray.network);
    let cidrs = network.into_iter().flat_map(|network| &network.cidrs);
    let cidrs = cidrs.filter(|cidr| cidr.addr().is_ipv4() == astray.address.is_ipv4());
    let earlier = priority.checked_sub(1).filter(|earlier| *earlier > 0);
    let commands = earlier.into_iter().flat_map(|earlier| {
        cidrs.clone().map(move |cidr| {
            let add = format!("{ip} rule add to {cidr} lookup main priority {earlier}");
            facts.commands.on_node(add)
        })
    });
    Cure {
        text: text.to_owned(),
        commands: commands.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::healthy::{broken, only};
    use crate::doctor::facts::{Diversion, Diverted, Facts};

    fn astray(by: Diversion) -> impl FnOnce(&mut Facts) {
        move |facts| {
            facts.diverted = Ok(vec![Diverted {
                network: "lab".parse().unwrap(),
                address: "10.244.2.1".parse().unwrap(),
                expected: vec!["ovl1".parse().unwrap()],
                device: "eth1".to_owned(),
                by,
            }]);
        }
    }

    #[test]
    fn routes_and_rules_are_removed_by_different_commands() {
        let route = Diversion::Route("10.244.2.0/25".parse().unwrap());
        let found = only("route-hides-network", astray(route.clone()));
        assert_eq!(found.object, "10.244.2.0/25");
        assert_eq!(found.cure.commands, ["ip route del 10.244.2.0/25"]);
        let rule = Diversion::Rule {
            priority: 100,
            table: 7,
        };
        let found = only("rule-diverts-network", astray(rule));
        assert_eq!(
            found.cure.commands,
            ["ip rule add to 10.244.0.0/16 lookup main priority 99"]
        );
        let found = only("route-hides-network", astray(Diversion::Unknown));
        assert!(found.cure.commands.is_empty());
        let twice = broken(|facts| {
            astray(route)(facts);
            if let Ok(diverted) = &mut facts.diverted {
                diverted.push(diverted[0].clone());
            }
        });
        assert_eq!(twice.len(), 1, "one route is one fault: {twice:#?}");
    }
}
