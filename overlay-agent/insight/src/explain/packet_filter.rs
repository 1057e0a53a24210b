//! The packet filter, in what the kernel carries: where it certainly drops a packet.

use std::net::IpAddr;

use overlay_control::explain::End;
use overlay_core::{
    desired::vxlan_name,
    filter::{Connection, Hook, Packet, Ruleset},
    model::{Family, IfName},
    objects::{self, filter_table, guard_table},
};
use overlay_kernel::nft;
use tokio::task::spawn_blocking;

use super::{
    case::{Case, Local},
    headers, kernel,
    stage::{Outcome, Seen},
    underlay,
};

/// Source and destination.
type Ends = (IpAddr, IpAddr);

/// A packet at some of the hooks.
struct Visit {
    hooks: &'static [Hook],
    input: Option<IfName>,
    output: Option<IfName>,
    ends: Ends,
    /// The tunnel's, of a packet that is in one.
    udp_port: Option<u16>,
}

/// The first chain that certainly drops the packet.
pub(super) async fn drops(case: &Case, last: &Seen) -> Result<Option<String>, String> {
    let ours = [filter_table(&case.instance), guard_table(&case.instance)];
    let listed = spawn_blocking(nft::ruleset).await;
    let listed = listed.map_err(|error| error.to_string())?;
    let listed = listed.map_err(|error| error.to_string())?;
    // What our own tables do is told as what the kernel does.
    let ruleset = Ruleset::read(&listed, |_, table| ours.iter().any(|own| own == table));
    let visits = match last.hook {
        objects::Hook::FromUnderlay => arriving(case, last),
        _ => leaving(case, last).await,
    };
    for visit in &visits {
        let packet = Packet {
            input: visit.input.as_ref().map(IfName::as_str),
            output: visit.output.as_ref().map(IfName::as_str),
            source: visit.ends.0,
            destination: visit.ends.1,
            udp_port: visit.udp_port,
            connection: Connection::New,
        };
        if let Some(place) = ruleset.end(visit.hooks, &packet) {
            return Ok(Some(place.to_string()));
        }
    }
    Ok(None)
}

/// From a peer: in the tunnel, and then out of it.
fn arriving(case: &Case, last: &Seen) -> Vec<Visit> {
    let outer = ends(&last.arrived);
    let inner = match &last.outcome {
        // It is in the tunnel still.
        Outcome::Passed(_) => ends_inside(&last.frame),
        _ => ends(&last.frame),
    };
    let local = inner.and_then(|(_, destination)| local_of(case, destination));
    let tunnelled = outer.map(|ends| Visit {
        hooks: &Hook::ARRIVES,
        input: Some(last.stage.device),
        output: None,
        ends,
        udp_port: Some(local.map_or(case.port(), |local| local.port)),
    });
    let routed = inner.zip(local).map(|(ends, local)| Visit {
        hooks: if local.gateway == ends.1 {
            &Hook::TAKEN
        } else {
            &Hook::ROUTED
        },
        input: outer.and_then(|(_, vtep)| vxlan_name(local.vni, Family::of(vtep))),
        output: local.bridge.filter(|_| local.gateway != ends.1),
        ends,
        udp_port: None,
    });
    tunnelled.into_iter().chain(routed).collect()
}

/// From a container or the node: as it is, and then in the tunnel.
async fn leaving(case: &Case, last: &Seen) -> Vec<Visit> {
    let Some(inner) = ends(&last.arrived) else {
        return Vec::new();
    };
    let by_container = last.hook == objects::Hook::FromEndpoint;
    let local = local_of(case, inner.0);
    let bridge = local.and_then(|local| local.bridge);
    let routed = |hooks, output| Visit {
        hooks,
        input: bridge,
        output,
        ends: inner,
        udp_port: None,
    };
    let port = local.map_or(case.port(), |local| local.port);
    let tunnelled = |ends, device| Visit {
        hooks: &Hook::SENT,
        input: None,
        output: device,
        ends,
        udp_port: Some(port),
    };
    let mut visits = Vec::new();
    match &last.outcome {
        Outcome::Delivered(End::Underlay { device, .. }) => {
            let outer = ends(&last.frame);
            let tunnel = local.zip(outer);
            let tunnel =
                tunnel.and_then(|(local, outer)| vxlan_name(local.vni, Family::of(outer.1)));
            visits.extend(by_container.then(|| routed(&Hook::ROUTED, tunnel)));
            visits.extend(outer.map(|outer| tunnelled(outer, *device)));
        }
        Outcome::Passed(_) if by_container => {
            // Neighbours on a bridge speak to each other without the node's routes.
            let neighbour = local
                .is_some_and(|local| local.subnet.contains(&inner.1) && local.gateway != inner.1);
            let way = case.netlink.route_to(inner.1).await;
            let Some(way) = way.ok().flatten().filter(|_| !neighbour) else {
                return visits;
            };
            if way.local {
                visits.push(routed(&Hook::TAKEN, None));
                return visits;
            }
            let device = case.names.device(way.oif);
            visits.push(routed(&Hook::ROUTED, device));
            let vtep = device.and_then(|device| kernel::vtep_of(case, device, &way, inner.1));
            if let Some(vtep) = vtep {
                let mut own = case.vteps.iter().copied();
                let own = own.find(|own| Family::of(*own) == Family::of(vtep));
                let device = underlay::by_routes(case, vtep).await.ok();
                visits.extend(own.map(|own| tunnelled((own, vtep), device)));
            }
        }
        Outcome::Passed(_) | Outcome::Delivered(_) | Outcome::Dropped => {}
    }
    visits
}

/// This node's part of the network that has an address.
fn local_of(case: &Case, address: IpAddr) -> Option<&Local> {
    let mut locals = case.networks.iter();
    locals.find(|local| local.subnet.contains(&address))
}

/// Those of the packet in a tunnel.
fn ends_inside(frame: &[u8]) -> Option<Ends> {
    let headers = headers::of(frame).into_iter();
    let inside = headers.skip_while(|header| header.name != "VXLAN").skip(1);
    kernel::addresses(&inside.collect::<Vec<_>>())
}

/// Those of a frame's first IP header.
fn ends(frame: &[u8]) -> Option<Ends> {
    kernel::addresses(&headers::of(frame))
}
