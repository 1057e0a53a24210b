//! Rules of routing that refuse what the programs would carry, or lead to tables that do.

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_common::wire::{SOURCE_PORT_MAX, SOURCE_PORT_MIN};

use super::{Hooks, PassedBy};
use crate::{
    desired::{Node, Tunnel},
    model::{Family, IfName, Network},
    surroundings::Rule,
};

impl Hooks {
    /// Takes in what rules refuse of the network.
    pub(super) fn refuse_by_rules(&mut self, node: &Node<'_>, network: &Network, bridge: IfName) {
        let routing = &node.around.routing;
        // Rules about one address after another are told once.
        let mut routes = BTreeSet::new();
        let mut whole = BTreeSet::new();
        for range in &network.ranges {
            let own = range.subnet;
            let of_peers = || {
                let subnets = network.peers.iter().flat_map(|peer| &peer.subnets);
                subnets.copied()
            };
            let is_own_part = |net: &IpNet| *net != own && own.contains(net);
            for refused in routing.refused(range.cidr, || of_peers().chain([own]).collect()) {
                let hook = PassedBy {
                    device: bridge,
                    what: refused.by,
                };
                let to = refused.destination;
                if let Some(part) = [refused.source, Some(to)]
                    .into_iter()
                    .flatten()
                    .find(is_own_part)
                {
                    self.parts.insert(part, hook);
                } else if refused.source.is_some() || to.contains(&own) {
                    whole.insert(hook);
                } else {
                    let around = of_peers().find(|subnet| subnet.contains(&to));
                    let rows: Vec<(IpNet, IpNet)> = match around {
                        Some(subnet) => vec![(to, subnet)],
                        None => of_peers()
                            .filter(|subnet| to.contains(subnet))
                            .map(|subnet| (subnet, subnet))
                            .collect(),
                    };
                    if !rows.is_empty() {
                        routes.insert(hook);
                        self.refused.extend(rows);
                    }
                }
            }
        }
        self.routes.extend(routes);
        self.bridge.extend(whole.iter().cloned());
        self.tunnel.extend(whole);
    }
}

/// Rules about the ports that tunnels' packets are sent from.
pub(super) fn about_ports(node: &Node<'_>, network: &Network, tunnels: &[Tunnel]) -> Vec<PassedBy> {
    let mut hooks = Vec::new();
    for tunnel in tunnels {
        let about = (node.around.routing)
            .by_source_port(Family::of(tunnel.local), (SOURCE_PORT_MIN, SOURCE_PORT_MAX));
        let is_about = |rule: &&Rule| {
            let [from, to] = [rule.source, rule.destination];
            from.is_none_or(|from| from.contains(&tunnel.local))
                && to.is_none_or(|to| network.peers.iter().any(|peer| to.contains(&peer.vtep)))
        };
        hooks.extend(about.filter(is_about).map(|rule| PassedBy {
            device: tunnel.device,
            what: format!("rule {} about source ports", rule.priority),
        }));
    }
    hooks
}
