//! Steps of which there can be very many: they are carried out in batches.

use std::collections::BTreeMap;

use overlay_core::{
    model::IfName,
    objects::{LinkId, ROUTE_PROTOCOL, Scope, Spread},
    plan::Step,
};
use overlay_kernel::{
    self as kernel, KernelError,
    bpf::Maps,
    netlink::{Bulk, Request},
};

use super::{
    ApplyError,
    steps::{Result, gone_is_fine, route_spec},
};
use crate::node::Node;

/// Steps of one batch.
const BATCH: usize = 4096;

/// How many of the first steps go together: one, unless there can be very many of its kind.
pub(super) fn length(steps: &[Step]) -> usize {
    let Some(first) = steps.first().and_then(kind) else {
        return 1;
    };
    let together = steps.iter().take(BATCH);
    together
        .take_while(|step| kind(step) == Some(first))
        .count()
}

/// Where a step acts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Netlink,
    Maps,
}

fn kind(step: &Step) -> Option<Kind> {
    match step {
        Step::SetRoute { key, .. } | Step::DeleteRoute { key, .. } => {
            (key.scope == Scope::Node).then_some(Kind::Netlink)
        }
        Step::SetNeighbour { .. }
        | Step::DeleteNeighbour { .. }
        | Step::SetFdb { .. }
        | Step::DeleteFdb { .. } => Some(Kind::Netlink),
        Step::SetNetwork { .. }
        | Step::DeleteNetwork { .. }
        | Step::SetVtep { .. }
        | Step::DeleteVtep { .. }
        | Step::SetPeer { .. }
        | Step::DeletePeer { .. }
        | Step::ClearSlot { .. }
        | Step::SetEndpoint { .. }
        | Step::DeleteEndpoint { .. }
        | Step::SetPort { .. }
        | Step::DeletePort { .. }
        | Step::SetSource { .. }
        | Step::DeleteSource { .. }
        | Step::SetCidr { .. }
        | Step::DeleteCidr { .. }
        | Step::DeleteStray { .. } => Some(Kind::Maps),
        _ => None,
    }
}

/// Carries out steps that go together; what became of each.
pub(super) async fn run(steps: &[Step], node: &mut Node) -> Vec<Result<()>> {
    let indices = match indices(steps, node).await {
        Ok(indices) => indices,
        Err(error) => return failed(steps, &error),
    };
    match steps.first().and_then(kind) {
        Some(Kind::Netlink) => over_netlink(steps, &indices),
        Some(Kind::Maps) | None => in_maps(steps, node, &indices),
    }
}

type Indices = BTreeMap<IfName, u32>;

/// The indices of all devices that the steps name, as far as they are there.
async fn indices(steps: &[Step], node: &Node) -> kernel::Result<Indices> {
    let mut indices = Indices::new();
    let mut looked_for = None;
    for name in steps.iter().flat_map(devices) {
        if looked_for == Some(name) || indices.contains_key(&name) {
            continue;
        }
        looked_for = Some(name);
        let link = node.netlink.link_by_name(name.as_str()).await?;
        indices.extend(link.map(|link| (name, link.index)));
    }
    Ok(indices)
}

/// None was carried out.
fn failed(steps: &[Step], error: &KernelError) -> Vec<Result<()>> {
    steps.iter().map(|_| Err(error.clone().into())).collect()
}

fn device(step: &Step) -> Option<IfName> {
    match step {
        Step::DeleteRoute { dev, .. } => Some(*dev),
        Step::DeleteNeighbour { link, .. } | Step::DeleteFdb { link, .. } => Some(*link),
        step => step.device().map(|LinkId { name, .. }| name),
    }
}

/// All devices that a step names.
fn devices(step: &Step) -> impl Iterator<Item = IfName> {
    let spread = match step {
        Step::SetPeer { peer, .. } => peer.spread.as_deref(),
        _ => None,
    };
    let more = spread.into_iter().flat_map(Spread::links);
    let via = match step {
        Step::SetFdb { via, .. } => *via,
        _ => None,
    };
    device(step).into_iter().chain(more).chain(via)
}

fn over_netlink(steps: &[Step], indices: &Indices) -> Vec<Result<()>> {
    let mut bulk = match Bulk::open() {
        Ok(bulk) => bulk,
        Err(error) => return failed(steps, &error),
    };
    let asked = steps.iter().enumerate();
    let asked = asked.filter_map(|(at, step)| Some((at, request(step, indices)?)));
    let (places, requests): (Vec<usize>, Vec<Request>) = asked.unzip();
    let step = |number: usize| places.get(number).and_then(|at| steps.get(*at));
    let answers = bulk.change(requests, |number| {
        step(number).map_or_else(String::new, ToString::to_string)
    });
    let mut outcomes: Vec<Result<()>> = steps.iter().map(|step| Err(gone(step))).collect();
    for (at, answer) in places.iter().zip(answers) {
        if let (Some(step), Some(outcome)) = (steps.get(*at), outcomes.get_mut(*at)) {
            *outcome = match step {
                Step::SetRoute { .. } | Step::SetNeighbour { .. } | Step::SetFdb { .. } => answer,
                _ => gone_is_fine(answer),
            }
            .map_err(ApplyError::from);
        }
    }
    outcomes
}

fn gone(step: &Step) -> ApplyError {
    let device = device(step).map(|name| name.to_string());
    ApplyError::Gone(device.unwrap_or_default())
}

/// `None` when the step's device is gone.
fn request(step: &Step, indices: &Indices) -> Option<Request> {
    let index = *indices.get(&device(step)?)?;
    match step {
        Step::SetRoute { key, route } => {
            Some(Request::replace_route(&route_spec(key, route, index)))
        }
        Step::DeleteRoute { key, .. } => Some(Request::delete_route(
            key.destination,
            key.metric,
            Some(index),
            ROUTE_PROTOCOL,
        )),
        Step::SetNeighbour { address, mac, .. } => {
            Some(Request::replace_neighbour(index, *address, *mac))
        }
        Step::DeleteNeighbour { address, .. } => Some(Request::delete_neighbour(index, *address)),
        Step::SetFdb { mac, vtep, via, .. } => {
            // Without it, packets would leave in the clear.
            let via = match via {
                Some(name) => Some(*indices.get(name)?),
                None => None,
            };
            Some(Request::replace_fdb(index, *mac, *vtep, via))
        }
        Step::DeleteFdb { mac, .. } => Some(Request::delete_fdb(index, *mac)),
        _ => None,
    }
}

fn in_maps(steps: &[Step], node: &mut Node, indices: &Indices) -> Vec<Result<()>> {
    let change = |maps: &mut Maps| {
        let outcomes = steps.iter().map(|step| change_map(step, maps, indices));
        Ok(outcomes.collect::<Vec<_>>())
    };
    match node.with_maps_mut(change) {
        Ok(Some(outcomes)) => {
            let outcomes = outcomes.into_iter();
            outcomes
                .map(|outcome| outcome.map_err(ApplyError::from))
                .collect()
        }
        Ok(None) => steps.iter().map(|_| Err(ApplyError::NoMaps)).collect(),
        Err(error) => failed(steps, &error),
    }
}

fn change_map(step: &Step, maps: &mut Maps, indices: &Indices) -> kernel::Result<()> {
    let index_of = |name: IfName| indices.get(&name).copied();
    match step {
        Step::SetNetwork { vni, network } => maps.set_network(*vni, network),
        Step::DeleteNetwork { vni } => gone_is_fine(maps.delete_network(*vni)),
        Step::SetVtep {
            vni,
            vtep,
            slot,
            fresh,
        } => {
            if *fresh {
                maps.counters_mut().clear_peer(*slot)?;
            }
            maps.set_vtep((*vni, *vtep), *slot)
        }
        Step::DeleteVtep { vni, vtep, .. } => gone_is_fine(maps.delete_vtep((*vni, *vtep))),
        Step::SetPeer { vni, prefix, peer } => maps.set_peer((*vni, *prefix), peer, index_of),
        Step::DeletePeer { vni, prefix } => gone_is_fine(maps.delete_peer((*vni, *prefix))),
        Step::ClearSlot { slot, .. } => maps.counters_mut().clear_endpoint(*slot),
        Step::SetEndpoint {
            vni,
            address,
            endpoint,
        } => maps.set_endpoint((*vni, *address), endpoint, index_of),
        Step::DeleteEndpoint { vni, address } => {
            gone_is_fine(maps.delete_endpoint((*vni, *address)))
        }
        Step::SetPort { link, port } => maps.set_port(*link, port, index_of),
        Step::DeletePort { link } => gone_is_fine(maps.delete_port(*link, index_of)),
        Step::SetSource { link, prefix } => maps.set_source((*link, *prefix), index_of),
        Step::DeleteSource { link, prefix } => {
            gone_is_fine(maps.delete_source((*link, *prefix), index_of))
        }
        Step::SetCidr { cidr, vni } => maps.set_cidr(*cidr, *vni),
        Step::DeleteCidr { cidr } => gone_is_fine(maps.delete_cidr(*cidr)),
        Step::DeleteStray { stray } => gone_is_fine(maps.delete_stray(stray)),
        // `run` of the steps handles every other one.
        _ => Ok(()),
    }
}
