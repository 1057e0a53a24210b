//! Endpoints.

use std::io::{self, Write};

use overlay_control::{EndpointStatus, stats::EndpointCounts};
use overlay_core::model::Attachment;

use super::{list, print_table};
use crate::cli::Format;

/// All of them.
pub(in crate::cli) fn endpoints(
    out: &mut dyn Write,
    endpoints: &[EndpointStatus],
    format: Format,
) -> io::Result<()> {
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(endpoints)?)?,
        Format::Text => table(out, endpoints)?,
    }
    Ok(())
}

/// An endpoint with what was counted for it.
pub(in crate::cli) fn endpoint(
    out: &mut dyn Write,
    endpoint: &EndpointStatus,
    counts: Option<&EndpointCounts>,
) -> io::Result<()> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "not attached".to_owned());
    writeln!(
        out,
        "endpoint {}  network {}",
        endpoint.name, endpoint.network
    )?;
    writeln!(out, "  addresses  {}", list(&endpoint.addresses, ", "))?;
    writeln!(
        out,
        "  inside     {}  mac {}  netns {}",
        endpoint.interface,
        known(endpoint.mac.map(|mac| mac.to_string())),
        endpoint.netns.display()
    )?;
    let device = endpoint.device.zip(endpoint.ifindex);
    let device = device.map(|(device, index)| format!("{device}  ifindex {index}"));
    writeln!(out, "  on node    {}", known(device))?;
    let origin = match &endpoint.attachment {
        Some(Attachment {
            source, container, ..
        }) => format!("{source}, for its container {container}"),
        None if endpoint.configured => "the configuration".to_owned(),
        None => "overlay-agent endpoint add".to_owned(),
    };
    writeln!(out, "  from       {origin}")?;
    for hook in &endpoint.hooks {
        writeln!(
            out,
            "  carried    by the kernel because of {} at {}",
            hook.what, hook.device
        )?;
    }
    if endpoint.forwarding {
        let sources = list(&endpoint.allowed_sources, ", ");
        writeln!(out, "  forwards   for {sources}")?;
    }
    if let Some(counts) = counts {
        writeln!(
            out,
            "  fast path  sent {}, received {}; within the node sent {}, received {} packets",
            counts.tx.packets, counts.rx.packets, counts.tx_local.packets, counts.rx_local.packets
        )?;
        writeln!(
            out,
            "  besides    left to the kernel {}, dropped {} packets",
            counts.passed.packets, counts.dropped.packets
        )?;
    }
    Ok(())
}

/// A row for each, and why some of them are not on the fast path: what JSON has as their `hooks`.
pub(super) fn table(out: &mut dyn Write, endpoints: &[EndpointStatus]) -> io::Result<()> {
    let row = |endpoint: &EndpointStatus| {
        [
            endpoint.name.to_string(),
            endpoint.network.to_string(),
            list(&endpoint.addresses, ","),
            endpoint.interface.to_string(),
            endpoint
                .device
                .map_or_else(|| "not attached".to_owned(), |device| device.to_string()),
            endpoint.netns.display().to_string(),
        ]
    };
    print_table(
        out,
        [
            "ENDPOINT",
            "NETWORK",
            "ADDRESSES",
            "INTERFACE",
            "DEVICE",
            "NETNS",
        ],
        endpoints.iter().map(row).collect(),
    )?;
    for endpoint in endpoints {
        for hook in &endpoint.hooks {
            writeln!(
                out,
                "endpoint {} carried by the kernel because of {} at {}",
                endpoint.name, hook.what, hook.device
            )?;
        }
    }
    Ok(())
}
