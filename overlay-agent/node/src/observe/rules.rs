//! The packet filter of others, as far as it follows connections, or the programs would pass it by.

mod others;
mod pace;
mod pending;

use std::time::Duration;

use overlay_core::{
    desired::{bridge_name, underlay_devices, vxlan_name},
    filter::{Between, Following, Places, Ruleset},
    model::{Family, IfName, Model, Network, Rx},
    state::Content,
    surroundings::{ForeignHook, Side, Surroundings},
};
use overlay_kernel::{bpf, effort, ipvs, netlink::LinkInfo, nft};

use self::pace::List;
use super::{Known, meant};

pub(super) use self::others::Others;

/// Finds the networks whose connections rules follow, and what rules are about.
pub(super) fn observe(
    model: &Model,
    store: &Content,
    ours: &[&LinkInfo],
    known: &mut Known,
    around: &mut Surroundings,
) {
    let before = effort();
    let lists = follow(model, store, ours, known, around);
    if !lists.is_empty() {
        let all = effort().saturating_sub(before);
        known.others.spend(lists, all);
    }
}

/// What was listed for it.
fn follow(
    model: &Model,
    store: &Content,
    ours: &[&LinkInfo],
    known: &mut Known,
    around: &mut Surroundings,
) -> Vec<(List, Duration)> {
    let tunnels = meant::tunnels(model, ours, around);
    let mut before = known.meant.take();
    let others = &mut known.others;
    if before.as_ref().is_some_and(|(known, _)| *known != tunnels)
        && others.has_spared(|net| meant::concerns(&tunnels, net))
    {
        others.forget();
    }
    let lists = others.update(store.instance());
    if !lists.is_empty() {
        known.hooked = None;
        before = None;
    }
    around.translated = others.translates() || nft::legacy_translates() || ipvs::has_services();
    let Some(ruleset) = &others.ruleset else {
        return lists;
    };
    let networks = model.networks.iter();
    around.followed = networks
        .filter_map(|network| {
            let following = why(ruleset, network)?;
            let following = if is_received_by_kernel(model.node.rx, network) {
                following.of_one_direction()
            } else {
                following
            };
            Some((network.name.clone(), following))
        })
        .collect();
    let before = before.filter(|before| before.0 == tunnels);
    let (_, meant) = known.meant.insert(before.unwrap_or_else(|| {
        let meant = meant::find(ruleset, &tunnels);
        (tunnels, meant)
    }));
    let meant = meant.clone();
    // A container more is no news where no chain is at devices.
    let ours = if ruleset.is_at_devices() { ours } else { &[] };
    let places = places(model, ours, around);
    let (_, hooked) = match known.hooked.take() {
        Some(before) if before.0 == places => known.hooked.insert(before),
        _ => {
            let hooked = ruleset.hooked(&places);
            known.hooked.insert((places, hooked))
        }
    };
    around.named.clone_from(&hooked.named);
    meant.note(around);
    for ((device, is_egress), what) in &hooked.devices {
        let side = if *is_egress {
            Side::Egress
        } else {
            Side::Ingress
        };
        let Ok(device) = device.parse() else {
            continue;
        };
        around.hooks.entry(device).or_default().push(ForeignHook {
            side,
            what: what.clone(),
            spares_redirected: true,
        });
    }
    lists
}

fn places(model: &Model, ours: &[&LinkInfo], around: &Surroundings) -> Places {
    let names = |links: &mut dyn Iterator<Item = &&LinkInfo>| -> Vec<String> {
        links.map(|link| link.name.to_string()).collect()
    };
    let is_bridge = |link: &&&LinkInfo| link.kind.as_deref() == Some("bridge");
    let ranges = || model.networks.iter().flat_map(|network| &network.ranges);
    let underlay = underlay_devices(&model.node.underlay, &around.links);
    Places {
        inside: names(&mut ours.iter()),
        bridges: names(&mut ours.iter().filter(is_bridge)),
        underlay: underlay.iter().map(IfName::to_string).collect(),
        cidrs: ranges().map(|range| range.cidr).collect(),
        subnets: ranges().map(|range| range.subnet).collect(),
        ports: model.networks.iter().map(|network| network.port).collect(),
    }
}

/// Whether the programs send packets of a network that only the kernel can receive: those of the other
/// family than the tunnel, on kernels whose programs cannot strip such tunnels in TC.
fn is_received_by_kernel(rx: Rx, network: &Network) -> bool {
    let tunnels = network.peers.vtep_families();
    let is_mixed = network.ranges.iter().any(|range| {
        let inner = Family::of(range.cidr.addr());
        tunnels.iter().any(|outer| *outer != inner)
    });
    is_mixed && rx == Rx::Tc && !bpf::strips_other_family()
}

fn why(ruleset: &Ruleset, network: &Network) -> Option<Following> {
    let bridge = bridge_name(network.vni)?;
    // Rules need not know of a tunnel that no peer is behind.
    let in_use = network.peers.vtep_families();
    let tunnels: Vec<IfName> = Family::ALL
        .into_iter()
        .filter(|family| in_use.is_empty() || in_use.contains(family))
        .filter_map(|family| vxlan_name(network.vni, family))
        .collect();
    let tunnels: Vec<&str> = tunnels.iter().map(IfName::as_str).collect();
    let ranges: Vec<_> = network
        .ranges
        .iter()
        .map(|range| (range.cidr, range.subnet))
        .collect();
    ruleset.follows(&Between {
        bridge: bridge.as_str(),
        tunnels: &tunnels,
        ranges: &ranges,
    })
}
