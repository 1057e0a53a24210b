//! The last step to a peer: whether the underlay leads there, and anybody answers.

use std::net::IpAddr;

use overlay_core::{
    model::{Family, IfName},
    surroundings::Question,
};
use overlay_kernel::netlink::Answers;
use tracing::warn;

use super::case::Case;

/// The device by which the kernel sends to a VTEP, or why nothing gets there.
pub(super) async fn by_routes(case: &Case, vtep: IpAddr) -> Result<IfName, String> {
    let family = Family::of(vtep);
    let mut own = case.vteps.iter().copied();
    let question = Question {
        to: vtep,
        from: own.find(|own| Family::of(*own) == family),
        port: case.port(),
    };
    let way = case.netlink.way_of(question).await;
    let Some(way) = way.map_err(|error| error.to_string())? else {
        return Err(format!("no route leads to {vtep}: it is not sent"));
    };
    let next = way.gateway.unwrap_or(vtep);
    by_device(case, way.oif, next, vtep).await
}

/// The same where a program has chosen the device, or what is known of it.
pub(super) async fn by_program(case: &Case, device: IfName, vtep: IpAddr) -> Result<(), String> {
    let link = case.netlink.link_by_name(device.as_str()).await;
    let Some(link) = link.map_err(|error| error.to_string())? else {
        return Err(format!("{device} is gone: it is not sent"));
    };
    // Of several next hops it is not known here which one the flow's hash takes.
    let mut entries = case.peers.entries.subnets.values();
    let entry = entries.find(|entry| entry.vtep == vtep && entry.spread.is_none());
    let next = entry.map_or(vtep, |entry| entry.next_hop);
    by_device(case, link.index, next, vtep).await.map(drop)
}

async fn by_device(case: &Case, index: u32, next: IpAddr, vtep: IpAddr) -> Result<IfName, String> {
    let link = case.netlink.link_by_index(index).await;
    let Some(link) = link.map_err(|error| error.to_string())? else {
        return Err("its device is gone: it is not sent".to_owned());
    };
    let name = link.name;
    if !link.up {
        return Err(format!("{name} is down: it is not sent"));
    }
    if !link.running {
        return Err(format!("{name} has no carrier: it is not sent"));
    }
    let neighbours = match case.netlink.reachabilities(index).await {
        Ok(neighbours) => neighbours,
        // That it is not known says nothing against anybody.
        Err(error) => {
            warn!("{error}");
            Vec::new()
        }
    };
    let mut silent = neighbours.iter().filter(|it| it.state == Answers::No);
    if silent.any(|neighbour| neighbour.address == next) {
        let towards = if next == vtep {
            String::new()
        } else {
            format!(", the way to {vtep}")
        };
        return Err(format!(
            "nobody on {name} answers for {next}{towards}: it has no MAC to be sent to"
        ));
    }
    Ok(name)
}
