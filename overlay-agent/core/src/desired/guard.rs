//! Packets that the guard of the tunnels' ports lets in, whichever path they came by.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{Derived, Desired, Node, Problem, endpoints::Identity, filter::may_meet};
use crate::{
    model::{Endpoint, IfName, Network, Peer, Verdict, Vni},
    objects::{Guard, GuardRules, GuardSenders, GuardedEndpoint, Leaving, Senders, guard_table},
    surroundings::{NoGuard, Policy},
};

/// The guard of a node; none without networks, or where there can be none. That a machine has no
/// nftables is no problem of ours: `status` and doctor say how far the rules hold there.
pub(super) fn build(
    node: &Node<'_>,
    networks: &[Derived<'_>],
    senders: &Arc<GuardSenders>,
    desired: &mut Desired,
) {
    let Some(mut rules) = rules(networks, senders) else {
        return;
    };
    rules.leaving = leaving(node, networks);
    rules.apart = apart(networks);
    rules.endpoints = endpoints(node, networks);
    let problem = match &node.around.no_guard {
        None => {
            let rules = Arc::new(rules);
            desired.facts.guard = Some(Arc::clone(&rules));
            desired.objects.guard = Some(Guard::Rules(rules));
            return;
        }
        Some(NoGuard::Unavailable(_) | NoGuard::Hidden(_)) => return,
        Some(NoGuard::Failed(cause)) => Problem::NoGuard {
            cause: cause.clone(),
        },
        Some(NoGuard::Taken(owner)) => Problem::GuardTaken {
            table: guard_table(node.instance),
            owner: owner.clone(),
        },
    };
    desired.problems.push(problem);
}

/// The rules of a node; `None` without networks.
fn rules(networks: &[Derived<'_>], senders: &Arc<GuardSenders>) -> Option<GuardRules> {
    let mut rules = GuardRules {
        senders: Arc::clone(senders),
        ..GuardRules::default()
    };
    for derived in networks {
        rules.ports.insert(derived.network.port);
        rules.inside.extend(derived.devices());
        let security = derived.network.security;
        rules.networks.insert(derived.network.vni, security);
        let devices: BTreeSet<IfName> = derived.encrypting().collect();
        if !devices.is_empty() {
            let (vni, port) = (derived.network.vni, derived.network.port);
            rules.encrypted.insert(vni, (port, devices));
        }
        let tunnels = derived.tunnels.iter();
        rules.own.extend(tunnels.map(|tunnel| tunnel.local));
    }
    (!networks.is_empty()).then_some(rules)
}

/// The containers that speak for themselves alone.
fn endpoints(node: &Node<'_>, networks: &[Derived<'_>]) -> BTreeSet<GuardedEndpoint> {
    let guarded = node.inputs.model.endpoints.iter().filter_map(|endpoint| {
        let mut networks = networks.iter().map(|derived| derived.network);
        let network = networks.find(|network| network.name == endpoint.network)?;
        guarded(node, network, endpoint)
    });
    guarded.collect()
}

/// One of them, by its device as it is there: one that is still to be made has no number yet.
pub(super) fn guarded(
    node: &Node<'_>,
    network: &Network,
    endpoint: &Endpoint,
) -> Option<GuardedEndpoint> {
    let who = Identity::of(node, network, endpoint)?;
    let link = node.around.links.get(&who.host)?;
    let drops = network.security.endpoint_source == Verdict::Drop;
    let behind = endpoint.allowed_sources.iter().map(IpNet::trunc);
    (link.ours && drops).then(|| GuardedEndpoint {
        index: link.index,
        mac: who.mac,
        addresses: who.addresses.iter().map(|(_, address)| *address).collect(),
        behind: behind.filter(|_| endpoint.forwarding).collect(),
    })
}

/// Which ranges of other networks nobody gets at by the devices of one.
fn apart(networks: &[Derived<'_>]) -> BTreeMap<BTreeSet<IfName>, BTreeSet<IpNet>> {
    let mut apart = BTreeMap::new();
    for network in networks {
        let others = networks.iter().filter(|other| !may_meet(network, other));
        let ranges = others.flat_map(|other| &other.network.ranges);
        let ranges: BTreeSet<IpNet> = ranges.map(|range| range.cidr).collect();
        if !ranges.is_empty() {
            let devices: BTreeSet<IfName> = network.devices().collect();
            apart.insert(devices, ranges);
        }
    }
    apart
}

/// What is not to leave the node with an inner source: by a default route. Where other routes
/// lead, the operator has sent it.
fn leaving(node: &Node<'_>, networks: &[Derived<'_>]) -> Leaving {
    let inside: BTreeSet<IfName> = networks.iter().flat_map(Derived::devices).collect();
    let mut leaving = Leaving {
        answers: !node.around.translated,
        encrypts: node.around.policies.iter().any(Policy::encrypts),
        ..Leaving::default()
    };
    for network in networks.iter().map(|derived| derived.network) {
        for range in &network.ranges {
            leaving.ranges.insert(range.cidr);
            if network.security.in_the_clear == Verdict::Drop {
                let translated = network.masquerade.then_some(range.subnet);
                leaving.sources.insert(range.cidr, translated);
            }
        }
    }
    if !leaving.sources.is_empty() {
        let exits = node.around.exits.iter();
        let exits = exits.filter(|((device, _), _)| !inside.contains(device));
        leaving.exits = exits.map(|(key, nets)| (*key, nets.clone())).collect();
    }
    leaving
}

/// The peers of all networks, each with what is behind it. A peer answers containers from its
/// own address, too.
pub(super) fn senders(networks: &[Derived<'_>]) -> GuardSenders {
    let (mut vteps, mut sources) = (BTreeSet::new(), BTreeSet::new());
    for derived in networks {
        let mut of_network = of_peers(derived.network.vni, &derived.network.peers);
        vteps.append(&mut of_network.0);
        sources.append(&mut of_network.1);
    }
    GuardSenders::new(vteps, sources)
}

/// The same of some peers of a network.
pub(super) fn of_peers(vni: Vni, peers: &[Peer]) -> Senders {
    let (mut vteps, mut sources) = (BTreeSet::new(), BTreeSet::new());
    for peer in peers {
        vteps.insert((vni, peer.vtep));
        let nets = peer.subnets.iter().flat_map(halves_of_all);
        let nets = nets.chain([peer.vtep.into()]);
        sources.extend(nets.map(|net| (vni, peer.vtep, net)));
    }
    (vteps, sources)
}

/// The prefix; instead of one that is everything, its halves: comparing no bit at all is no
/// comparison to the packet filter.
fn halves_of_all(net: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let nets = net.trunc().subnets(net.prefix_len().max(1));
    nets.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::halves_of_all;

    #[test]
    fn only_everything_is_cut() {
        for (net, expected) in [
            ("10.244.2.128/25", &["10.244.2.128/25"][..]),
            ("10.244.2.7/24", &["10.244.2.0/24"]),
            ("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"]),
            ("::/0", &["::/1", "8000::/1"]),
        ] {
            let nets: Vec<IpNet> = halves_of_all(&net.parse().unwrap()).collect();
            let expected: Vec<IpNet> = expected.iter().map(|net| net.parse().unwrap()).collect();
            assert_eq!(nets, expected);
        }
    }
}
