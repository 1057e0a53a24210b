//! Hooks of others on the kernel's path, which the programs would bypass.
//!
//! With `fastpath = "auto"` the packets that it concerns are left to the kernel; with
//! `"required"` it is told.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::maps::MAX_PREFIX_LENGTHS;

use super::{Derived, Desired, Node, Problem, Tunnel};
use crate::{
    model::{Endpoint, Family, FastPath, IfName, Network},
    surroundings::{ForeignHook, Side},
};

/// Something of somebody else's that the programs would pass by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedBy {
    /// Where it is.
    pub device: IfName,
    /// Its kind, by the name that its tools use.
    pub what: String,
}

impl fmt::Display for PassedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what, self.device)
    }
}

/// Hooks that concern all of a network.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// On the way to peers and from them.
    pub(super) tunnel: Vec<PassedBy>,
    /// Between its containers and everybody else.
    bridge: Vec<PassedBy>,
    /// Prefixes of peers' subnets that a route of somebody else refuses: the programs have no way
    /// there, whatever the network says of the fast path. Each with the subnet that it is in.
    pub(super) refused: BTreeMap<IpNet, IpNet>,
    /// The same, to be told.
    routes: Vec<PassedBy>,
    /// Parts of this node's subnet that rules of routing are about.
    parts: BTreeMap<IpNet, PassedBy>,
    /// Peers that rules of the packet filter are meant for: what goes to them and comes from them.
    pub(super) closed: BTreeSet<IpAddr>,
}

impl Hooks {
    pub(super) fn of(
        node: &Node<'_>,
        network: &Network,
        bridge: IfName,
        tunnels: &[Tunnel],
    ) -> Self {
        let mut tunnel: Vec<PassedBy> = tunnels
            .iter()
            .flat_map(|tunnel| at(node, tunnel.device, |_| true))
            .collect();
        let passed_by = |hook: &ForeignHook| hook.side == Side::Ingress || hook.spares_redirected;
        tunnel.extend(
            node.underlay
                .iter()
                .flat_map(|&name| at(node, name, passed_by)),
        );
        tunnel.extend(policies(node, network, tunnels));
        tunnel.extend(rules::about_ports(node, network, tunnels));
        let mut hooks = Self {
            tunnel,
            bridge: at(node, bridge, |_| true).collect(),
            ..Self::default()
        };
        hooks.refuse(node, network, bridge);
        hooks.take_meant(node, network, bridge, tunnels);
        hooks
    }

    /// Takes in rules of the packet filter that are meant for all of the network, or for peers.
    fn take_meant(
        &mut self,
        node: &Node<'_>,
        network: &Network,
        bridge: IfName,
        tunnels: &[Tunnel],
    ) {
        let Some(tunnel) = tunnels.first() else {
            return;
        };
        let around = &node.around;
        // What is tracked as a whole is left to the kernel for that.
        let tracked = around.followed.get(&network.name);
        if tracked.is_none_or(|following| !following.whole) {
            let passed_by = |device, chain: &String| PassedBy {
                device,
                what: format!("{chain}, about the network"),
            };
            let chains = || around.meant.get(&network.name).into_iter().flatten();
            self.tunnel
                .extend(chains().map(|chain| passed_by(tunnel.device, chain)));
            let here = around.meant_here.get(&network.name).into_iter().flatten();
            self.bridge
                .extend(here.map(|chain| passed_by(bridge, chain)));
        }
        let mut by_chain: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for ((name, vtep), chain) in &around.meant_peers {
            if *name == network.name {
                by_chain.entry(chain).or_default().push(*vtep);
            }
        }
        let vteps = || network.peers.iter().map(|peer| peer.vtep);
        for (chain, about) in by_chain {
            let whom = match about.as_slice() {
                [one] => one.to_string(),
                several => format!("{} peers", several.len()),
            };
            let hook = PassedBy {
                device: tunnel.device,
                what: format!("{chain}, about the tunnel to {whom}"),
            };
            let about: BTreeSet<IpAddr> = about.into_iter().collect();
            let is_all = vteps().all(|vtep| about.contains(&vtep));
            if is_all || network.fastpath == FastPath::Required {
                self.tunnel.push(hook);
            } else {
                self.routes.push(hook);
                self.closed.extend(about);
            }
        }
    }

    /// Takes in routes that refuse a part of the network.
    fn refuse(&mut self, node: &Node<'_>, network: &Network, bridge: IfName) {
        let in_cidr = |net: &IpNet| network.ranges.iter().any(|range| range.cidr.contains(net));
        let refused = node.around.refused.iter();
        for (net, how) in refused.filter(|(net, _)| in_cidr(net)) {
            let of_peers = network.peers.iter().flat_map(|peer| &peer.subnets);
            // Of a route that is less specific than the peer's own nothing becomes.
            let around = of_peers.filter(|subnet| subnet.contains(net));
            let Some(subnet) = around.max_by_key(|subnet| subnet.prefix_len()) else {
                continue;
            };
            self.routes.push(PassedBy {
                device: bridge,
                what: format!("{how} route {net}"),
            });
            self.refused.insert(*net, *subnet);
        }
        self.refuse_named(node, network, bridge);
        self.refuse_by_rules(node, network, bridge);
        // The programs look up prefixes of so many lengths and no more.
        if Family::ALL
            .into_iter()
            .any(|family| self.lengths(network, family).len() > MAX_PREFIX_LENGTHS)
        {
            self.refused.clear();
            self.tunnel.extend(mem::take(&mut self.routes));
        }
    }

    /// Takes in parts of peers' subnets that rules of the packet filter name.
    fn refuse_named(&mut self, node: &Node<'_>, network: &Network, bridge: IfName) {
        for (net, chain) in &node.around.named {
            let of_peers = || network.peers.iter().flat_map(|peer| &peer.subnets);
            let around = of_peers().find(|subnet| *subnet != net && subnet.contains(net));
            let rows: Vec<(IpNet, IpNet)> = match around {
                Some(subnet) => vec![(*net, *subnet)],
                // All that some peers have.
                None => of_peers()
                    .filter(|subnet| net.contains(*subnet))
                    .map(|subnet| (*subnet, *subnet))
                    .collect(),
            };
            if rows.is_empty() {
                continue;
            }
            let hook = PassedBy {
                device: bridge,
                what: format!("{chain}, about {net}"),
            };
            if network.fastpath == FastPath::Required {
                // It is told, and not heeded.
                self.tunnel.push(hook);
            } else {
                self.routes.push(hook);
                self.refused.extend(rows);
            }
        }
    }

    /// The lengths of the prefixes of a family that the programs have to look up.
    pub(super) fn lengths(&self, network: &Network, family: Family) -> BTreeSet<u8> {
        let of_family = |net: &&IpNet| Family::of(net.addr()) == family;
        let refused = self.refused.keys().filter(of_family);
        let refused = refused.map(IpNet::prefix_len);
        let peers = network.peers.prefix_lengths(family).iter().copied();
        peers.chain(refused).collect()
    }
}

fn at(
    node: &Node<'_>,
    device: IfName,
    is_meant: impl Fn(&ForeignHook) -> bool,
) -> impl Iterator<Item = PassedBy> {
    let hooks = node.around.hooks.get(&device).into_iter().flatten();
    let hooks = hooks.filter(move |hook| is_meant(hook));
    hooks.map(move |hook| PassedBy {
        device,
        what: hook.what.clone(),
    })
}

/// Policies of `IPsec` about the tunnels.
fn policies(node: &Node<'_>, network: &Network, tunnels: &[Tunnel]) -> Vec<PassedBy> {
    let concerned = node.around.policies.iter().filter_map(|policy| {
        let tunnel = tunnels.iter().find(|tunnel| {
            let mut peers = network.peers.iter();
            peers.any(|peer| policy.is_about(tunnel.local, peer.vtep, network.port))
        })?;
        let does = if policy.blocks { "that blocks" } else { "for" };
        Some(PassedBy {
            device: tunnel.device,
            what: format!(
                "IPsec policy {does} {} to {}",
                policy.source, policy.destination
            ),
        })
    });
    concerned.collect()
}

/// Takes in what is hooked in for a network; whether its tunnels are to be left to the kernel.
pub(super) fn note(derived: &Derived<'_>, desired: &mut Desired) {
    let network = derived.network;
    if !derived.fast {
        return;
    }
    if !derived.hooks.routes.is_empty() {
        let heeded = desired.facts.hooks.entry(network.name.clone());
        heeded
            .or_default()
            .extend(derived.hooks.routes.iter().cloned());
    }
    let all = || derived.hooks.tunnel.iter().chain(&derived.hooks.bridge);
    if all().next().is_none() {
        return;
    }
    if network.fastpath == FastPath::Required {
        desired.problems.extend(all().map(|hook| Problem::PassedBy {
            network: network.name.clone(),
            endpoint: None,
            hook: hook.clone(),
        }));
        return;
    }
    let heeded = desired.facts.hooks.entry(network.name.clone());
    heeded.or_default().extend(all().cloned());
}

/// Whether the tunnels of a network are to be left to the kernel.
pub(super) fn leaves_tunnels(derived: &Derived<'_>) -> bool {
    derived.network.fastpath == FastPath::Auto && !derived.hooks.tunnel.is_empty()
}

/// Takes in what is hooked in for an endpoint with this device on the node; whether what it sends
/// and gets is to be left to the kernel. It is both or none: connection tracking is to see all of
/// a connection or nothing of it.
pub(super) fn of_endpoint(
    node: &Node<'_>,
    derived: &Derived<'_>,
    endpoint: &Endpoint,
    host: IfName,
    addresses: &(impl Iterator<Item = IpAddr> + Clone),
    desired: &mut Desired,
) -> bool {
    let mut own: Vec<PassedBy> = at(node, host, |_| true).collect();
    let is_local = |net: &IpNet| {
        let mut ranges = derived.network.ranges.iter();
        ranges.any(|range| range.subnet != *net && range.subnet.contains(net))
    };
    for address in addresses.clone() {
        let nets = node.around.refused.iter();
        let nets = nets.filter(|(net, _)| net.contains(&address) && is_local(net));
        for (net, how) in nets {
            own.push(PassedBy {
                device: derived.bridge,
                what: format!("{how} route {net}"),
            });
        }
        let named = node.around.named.iter();
        let named = named.filter(|(net, _)| net.contains(&address) && is_local(net));
        own.extend(named.map(|(net, chain)| PassedBy {
            device: derived.bridge,
            what: format!("{chain}, about {net}"),
        }));
    }
    let parts = derived.hooks.parts.iter();
    let parts = parts.filter(|(net, _)| addresses.clone().any(|address| net.contains(&address)));
    own.extend(parts.map(|(_, hook)| hook.clone()));
    if derived.network.fastpath == FastPath::Required {
        desired
            .problems
            .extend(own.into_iter().map(|hook| Problem::PassedBy {
                network: derived.network.name.clone(),
                endpoint: Some(endpoint.name.clone()),
                hook,
            }));
        return false;
    }
    let is_hooked = !own.is_empty() || !derived.hooks.bridge.is_empty();
    if !own.is_empty() {
        let heeded = &mut desired.facts.endpoint_hooks;
        heeded.insert(endpoint.name.clone(), own);
    }
    is_hooked
}
