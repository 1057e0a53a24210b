//! Observes programs, filter tables and settings.

use std::collections::{BTreeMap, BTreeSet};

use overlay_core::{
    desired::{needs_filter, observed_settings},
    model::{Family, IfName, Model},
    objects::{FilterTable, Objects, TableOwner, filter_table},
    state::Content,
    surroundings::{NoGuard, Surroundings},
};
use overlay_kernel::{
    self as kernel, bpf,
    netlink::{LinkInfo, VxlanInfo},
    nft, sysctl, udp,
};

use super::Known;
use crate::node::Node;

/// The settings that may have to be changed, or be put back.
pub(super) fn settings(
    model: Option<&Model>,
    store: &Content,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let mut keys: BTreeSet<String> = store.sysctls.keys().cloned().collect();
    if let Some(model) = model {
        keys.extend(observed_settings(model, &around.links));
    }
    for key in keys {
        if let Some(value) = sysctl::read(&key)? {
            objects.sysctls.insert(key, value);
        }
    }
    around.sysctls.clone_from(&objects.sysctls);
    Ok(())
}

/// Ports of ours that no VXLAN device has and that cannot be bound all the same.
pub(super) fn busy_ports(
    model: &Model,
    ours: &[&LinkInfo],
) -> kernel::Result<BTreeSet<(Family, u16)>> {
    let mut busy = BTreeSet::new();
    for port in model.networks.iter().map(|network| network.port) {
        for family in Family::ALL {
            let is_ours = |vxlan: &VxlanInfo| {
                vxlan.port == port && vxlan.local.map(Family::of) == Some(family)
            };
            let by_us = ours
                .iter()
                .filter_map(|link| link.vxlan.as_ref())
                .any(is_ours);
            if !by_us && udp::is_busy(family, port)? {
                busy.insert((family, port));
            }
        }
    }
    Ok(busy)
}

pub(super) fn programs(
    node: &Node,
    all: &[LinkInfo],
    names: &BTreeMap<u32, IfName>,
    known: &mut Known,
    objects: &mut Objects,
) -> kernel::Result<()> {
    let name_of = |index: u32| names.get(&index).copied();
    let entries = node.with_maps(|maps| maps.entries(name_of))?;
    objects.entries = entries.unwrap_or_default();
    objects.pins = match known.pins.take() {
        Some(pins) => pins,
        None => node.pinned_maps()?,
    };
    known.pins = Some(objects.pins.clone());
    objects.qdiscs = bpf::qdiscs(&node.pins)?;
    objects.layouts = bpf::other_layouts(&node.pins)?;
    if known.peer_strays.is_none() {
        let read = node.with_maps(|maps| maps.peer_entries(name_of))?;
        let (entries, strays) = read.unwrap_or_default();
        if let Some(tables) = &mut known.tables
            && tables.peers.entries != entries
        {
            tables.peers.entries = entries;
        }
        known.peer_strays = Some(strays);
    }
    let strays = known.peer_strays.iter().flatten().cloned();
    objects.entries.strays.extend(strays);
    let devices: BTreeMap<IfName, u32> = all.iter().map(|link| (link.name, link.index)).collect();
    objects.attachments = if let Some(states) = known.attachments.unchanged(&devices) {
        states.clone()
    } else {
        let listed: Vec<(IfName, u32)> = devices.clone().into_iter().collect();
        let states = node.attachments(&listed)?;
        known.attachments.note(states.clone(), &devices);
        states
    };
    Ok(())
}

/// Looked at only when rules are needed, or may have been made: it takes a program to ask.
pub(super) fn filter(
    model: Option<&Model>,
    store: &Content,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let needed = model.is_some_and(needs_filter);
    if !needed && !store.packet_filter {
        return Ok(());
    }
    match nft::read(&filter_table(store.instance()), store.instance()) {
        Ok(None) => {}
        Ok(Some(FilterTable { owner, filter })) => match owner {
            TableOwner::This => objects.filter = Some(filter),
            TableOwner::Earlier if store.packet_filter => objects.filter = Some(filter),
            TableOwner::Instance(other) => around.filter_of = Some(Some(other)),
            TableOwner::Earlier | TableOwner::Unknown => around.filter_of = Some(None),
        },
        // Rules of ours that cannot be removed are an error, those that cannot be made a reason.
        Err(error) if !needed => return Err(error),
        Err(error) => around.no_filter = Some(error.to_string()),
    }
    Ok(())
}

/// The table that guards the tunnels' ports, or why there can be none.
pub(super) fn guard(
    node: &Node,
    model: Option<&Model>,
    store: &Content,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    match node.guard.read(store.instance()) {
        Ok(nft::Found::Ours(guard)) => objects.guard = Some(guard),
        Ok(nft::Found::Nothing) => {}
        Ok(nft::Found::Foreign(owner)) => around.no_guard = Some(NoGuard::Taken(owner)),
        // Where none can be made, none has been.
        Ok(nft::Found::Unavailable(cause)) => around.no_guard = Some(NoGuard::Unavailable(cause)),
        // A table of ours that cannot be removed is an error.
        Err(error) if model.is_none() => return Err(error),
        Err(error) if error.is_denied() => {
            around.no_guard = Some(NoGuard::Hidden(error.to_string()));
        }
        Err(error) => around.no_guard = Some(NoGuard::Failed(error.to_string())),
    }
    Ok(())
}
