//! What stands in the way of a packet besides the programs: a device that is down, and, of what
//! the kernel carries, the packet filter.

use std::net::IpAddr;

use overlay_common::reasons::PassReason;
use overlay_control::explain::{Attached, End};
use overlay_core::{
    desired::vxlan_name,
    filter::{self, Connection, Packet, Ruleset},
    model::{Family, IfName},
    objects::{Hook, filter_table},
};
use overlay_kernel::nft;
use tokio::task::spawn_blocking;

use super::{
    case::{Case, Local},
    headers, kernel, ours,
    stage::{Outcome, Seen},
};

/// Where the packet ends, and what the kernel does with it before.
pub(super) type Told = (Vec<String>, End);

/// What becomes of a packet after the last program that it was given to.
pub(super) async fn after(case: &Case, last: &Seen) -> Told {
    let (sentences, end) = match &last.outcome {
        _ if last.stage.attached == Attached::Nothing => without_program(case, last).await,
        Outcome::Dropped => (Vec::new(), End::Dropped),
        Outcome::Delivered(end) => (Vec::new(), end.clone()),
        Outcome::Passed(reason) => {
            let left = kernel::Left {
                hook: last.hook,
                reason: *reason,
                frame: &last.frame,
            };
            let (mut sentences, delivers) = kernel::takes_over(case, &left).await;
            if *reason == Some(PassReason::Hooked) {
                sentences.extend(case.hooks.iter().cloned());
            }
            let delivers = delivers && !is_filtered(case, last, &mut sentences).await;
            (sentences, End::Kernel { delivers })
        }
    };
    leaves(case, sentences, end).await
}

/// The program was run, but is not attached: the kernel has the packet as it came, and no rule of
/// the program's is asked. What the program makes of it, encapsulated or not, the kernel makes too.
async fn without_program(case: &Case, last: &Seen) -> Told {
    let device = last.stage.device;
    let mut sentences = vec![format!(
        "no program is attached to {device}: the kernel's VXLAN device carries the packet"
    )];
    if let Some(dropped) = ours::drops_too(case, last) {
        sentences.push(dropped);
        return (sentences, End::Kernel { delivers: false });
    }
    let left = kernel::Left {
        hook: last.hook,
        reason: None,
        frame: &last.arrived,
    };
    let (more, delivers) = kernel::takes_over(case, &left).await;
    sentences.extend(more);
    if !delivers {
        return (sentences, End::Kernel { delivers });
    }
    if is_filtered(case, last, &mut sentences).await {
        return (sentences, End::Kernel { delivers: false });
    }
    let end = match &last.outcome {
        Outcome::Delivered(end) => end.clone(),
        Outcome::Dropped | Outcome::Passed(_) => End::Kernel { delivers },
    };
    (sentences, end)
}

/// Whether the packet filter drops it where the kernel carries it; it is told.
async fn is_filtered(case: &Case, last: &Seen, sentences: &mut Vec<String>) -> bool {
    match filtered(case, last).await {
        Ok(Some(place)) => {
            sentences.push(format!("packet filter: {place} drops it"));
            return true;
        }
        Ok(None) => {}
        Err(error) => sentences.push(format!("packet filter: not looked at: {error}")),
    }
    false
}

/// Whether the underlay takes what is sent by it.
async fn leaves(case: &Case, mut sentences: Vec<String>, end: End) -> Told {
    let End::Underlay {
        device: Some(device),
        ..
    } = &end
    else {
        return (sentences, end);
    };
    let wrong = match case.netlink.link_by_name(device.as_str()).await {
        Ok(Some(link)) if !link.up => format!("{device} is down: nothing is sent by it"),
        Ok(Some(link)) if !link.running => {
            format!("{device} has no carrier: nothing is sent by it")
        }
        Ok(Some(_)) => return (sentences, end),
        Ok(None) => format!("{device} is gone: nothing is sent by it"),
        Err(error) => error.to_string(),
    };
    sentences.push(wrong);
    (sentences, End::Kernel { delivers: false })
}

/// The first chain that certainly drops the packet where the kernel carries it.
async fn filtered(case: &Case, last: &Seen) -> Result<Option<String>, String> {
    let ours = filter_table(&case.instance);
    let listed = spawn_blocking(nft::ruleset).await;
    let listed = listed.map_err(|error| error.to_string())?;
    let listed = listed.map_err(|error| error.to_string())?;
    // What our own table does is told as what the kernel does.
    let ruleset = Ruleset::read(&listed, |family, table| family == "inet" && table == ours);
    let arrives = last.hook == Hook::FromUnderlay;
    let (outer, inner) = if arrives {
        (&last.arrived, &last.frame)
    } else {
        (&last.frame, &last.arrived)
    };
    let inner = match &last.outcome {
        // It is in the tunnel still.
        Outcome::Passed(_) if arrives => ends_inside(inner),
        _ => ends(inner),
    };
    let outer = ends(outer);
    let dropped = |hooks: &[filter::Hook], packet: Option<Packet<'_>>| {
        let packet = packet?;
        let mut fates = hooks.iter().map(|&hook| ruleset.fate(hook, &packet));
        fates.find_map(|fate| fate.dropped.map(|place| place.to_string()))
    };
    let local = inner.and_then(|(source, destination)| {
        let mut locals = case.networks.iter();
        locals.find(|local| local.subnet.contains(&source) || local.subnet.contains(&destination))
    });
    let tunnel = |local: &Local| vxlan_name(local.vni, Family::of(outer?.1));
    let (bridge, tunnel) = (local.and_then(|local| local.bridge), local.and_then(tunnel));
    let (bridge, tunnel) = (
        bridge.as_ref().map(IfName::as_str),
        tunnel.as_ref().map(IfName::as_str),
    );
    let underlay = last.stage.device;
    let port = local.map_or(case.port(), |local| local.port);
    let packet = |input, output, (source, destination), udp_port| Packet {
        input,
        output,
        source,
        destination,
        udp_port,
        connection: Connection::New,
    };
    let forwarded = [filter::Hook::Forward];
    Ok(if arrives {
        let hooks = [
            filter::Hook::Ingress,
            filter::Hook::Prerouting,
            filter::Hook::Input,
        ];
        let tunnelled = outer.map(|of| packet(Some(underlay.as_str()), None, of, Some(port)));
        dropped(&hooks, tunnelled)
            .or_else(|| dropped(&forwarded, inner.map(|of| packet(tunnel, bridge, of, None))))
    } else {
        let hooks = [
            filter::Hook::Output,
            filter::Hook::Postrouting,
            filter::Hook::Egress,
        ];
        let device = match &last.outcome {
            Outcome::Delivered(End::Underlay { device, .. }) => *device,
            _ => return Ok(None),
        };
        let device = device.as_ref().map(IfName::as_str);
        let by_container = inner.filter(|_| last.hook == Hook::FromEndpoint);
        let routed = by_container.map(|of| packet(bridge, tunnel, of, None));
        dropped(&forwarded, routed)
            .or_else(|| dropped(&hooks, outer.map(|of| packet(None, device, of, Some(port)))))
    })
}

/// Those of the packet in a tunnel.
fn ends_inside(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let headers = headers::of(frame).into_iter();
    let inside = headers.skip_while(|header| header.name != "VXLAN").skip(1);
    kernel::addresses(&inside.collect::<Vec<_>>())
}

/// Source and destination of a frame's first IP header.
fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    kernel::addresses(&headers::of(frame))
}
