//! What the guard of the tunnels' ports lets in, whichever way a packet came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::Derived;
use crate::{
    model::Vni,
    objects::{GuardRules, GuardSenders},
};

/// The rules of a node; `None` without networks.
pub(super) fn rules(networks: &[Derived<'_>], senders: &Arc<GuardSenders>) -> Option<GuardRules> {
    let mut rules = GuardRules {
        senders: Arc::clone(senders),
        ..GuardRules::default()
    };
    for derived in networks {
        rules.ports.insert(derived.network.port);
        rules.inside.extend(derived.devices());
        let security = derived.network.security;
        rules.networks.insert(derived.network.vni, security);
        let tunnels = derived.tunnels.iter();
        rules.own.extend(tunnels.map(|tunnel| tunnel.local));
    }
    (!networks.is_empty()).then_some(rules)
}

/// The peers of all networks, each with what is behind it. A peer answers containers from its
/// own address, too.
pub(super) fn senders(networks: &[Derived<'_>]) -> GuardSenders {
    let (mut vteps, mut sources) = (BTreeSet::new(), BTreeSet::new());
    let mut behind: BTreeMap<(Vni, IpAddr), Vec<IpNet>> = BTreeMap::new();
    for derived in networks {
        let vni = derived.network.vni;
        for peer in &derived.network.peers {
            vteps.insert((vni, peer.vtep));
            let nets = behind.entry((vni, peer.vtep)).or_default();
            nets.push(peer.vtep.into());
            nets.extend(&peer.subnets);
        }
    }
    for ((vni, vtep), nets) in behind {
        let nets = IpNet::aggregate(&nets).into_iter();
        sources.extend(nets.map(|net| (vni, vtep, net)));
    }
    GuardSenders::new(vteps, sources)
}
