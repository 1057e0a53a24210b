//! What is printed, for people and for programs.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use anyhow::Context as _;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::{Format, health, journal, progress, watching};
use crate::{
    api::{
        EndpointStatus, FastPathState, FastPathStatus, NetworkStatus, PeerStatus, RangeStatus,
        Status,
    },
    config::{Loaded, PEERS_FOLDER},
    daemon::Preview,
    model::{Dscp, Guard, Rx},
};

/// Logs to standard error; `OVERLAY_LOG` chooses the level.
pub(super) fn start_log() {
    let filter = EnvFilter::try_from_env("OVERLAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::Lines)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_target(false);
    if journal::is_there() {
        log.event_format(journal::Lines).init();
    } else {
        log.init();
    }
}

/// Prints to standard output; that its reader has seen enough is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

pub(super) fn checked(
    out: &mut dyn Write,
    path: &Path,
    loaded: &Loaded,
    format: Format,
) -> io::Result<()> {
    let (model, fragments) = (&loaded.model, loaded.fragments);
    let peers = model.peer_count();
    let (networks, endpoints) = (model.networks.len(), model.endpoints.len());
    match format {
        Format::Json => writeln!(
            out,
            "{}",
            json!({ "node": model.node.name, "networks": networks, "peers": peers, "endpoints": endpoints, "fragments": fragments })
        ),
        Format::Text => writeln!(
            out,
            "{}: good: node {}, {networks} networks, {peers} peers, {endpoints} endpoints{}",
            path.display(),
            model.node.name,
            match fragments {
                0 => String::new(),
                some => format!("; with {some} files of {PEERS_FOLDER}"),
            }
        ),
    }
}

pub(super) fn plan(out: &mut dyn Write, preview: &Preview, format: Format) -> io::Result<()> {
    match format {
        Format::Json => {
            let texts: Vec<String> = preview
                .plan
                .steps()
                .iter()
                .map(ToString::to_string)
                .collect();
            let value =
                json!({ "steps": preview.plan, "texts": texts, "problems": preview.problems });
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        }
        Format::Text => {
            if preview.plan.is_empty() {
                writeln!(out, "nothing to do")?;
            }
            write!(out, "{}", preview.plan)?;
            for problem in &preview.problems {
                writeln!(out, "problem: {problem}")?;
            }
        }
    }
    Ok(())
}

pub(super) fn status(out: &mut dyn Write, status: &Status, format: Format) -> io::Result<()> {
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(status)?)?;
        return Ok(());
    }
    let health = if status.healthy {
        "healthy"
    } else {
        "degraded"
    };
    writeln!(
        out,
        "node {}  instance {}  {health}",
        status.node, status.instance
    )?;
    let (vteps, underlay) = (list(&status.vteps, ", "), list(&status.underlay, ", "));
    writeln!(out, "vtep {vteps}  underlay {underlay}")?;
    let fastpath = &status.fastpath;
    let state = match fastpath.state {
        FastPathState::On => "on",
        FastPathState::Off => "off",
        FastPathState::Unavailable => "unavailable",
    };
    let attach = fastpath
        .attach
        .as_deref()
        .map(|attach| format!(" ({attach})"))
        .unwrap_or_default();
    writeln!(
        out,
        "fast path {state}{attach}  maps {}",
        fastpath.pins.display()
    )?;
    print_guard(out, fastpath)?;
    watching::print(out, status)?;
    for network in &status.networks {
        print_network(out, network)?;
        health::mesh(out, status, &network.peers)?;
    }
    writeln!(out)?;
    print_endpoints(out, &status.endpoints)?;
    if !status.problems.is_empty() {
        writeln!(out)?;
    }
    for problem in &status.problems {
        writeln!(out, "problem: {problem}")?;
    }
    Ok(())
}

fn print_guard(out: &mut dyn Write, fastpath: &FastPathStatus) -> io::Result<()> {
    let mode = match fastpath.guard {
        Guard::Off => return Ok(()),
        Guard::Native => "native",
        Guard::Generic => "generic",
    };
    let stripping = match fastpath.rx {
        Rx::Tc => "",
        Rx::Xdp => "  strips headers",
    };
    let devices = list(&fastpath.guarded, ", ");
    writeln!(out, "guard {mode}  on {devices}{stripping}")
}

/// What there is, or that there is none.
fn list(things: &[impl ToString], separator: &str) -> String {
    let texts: Vec<String> = things.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => "none".to_owned(),
        texts => texts.join(separator),
    }
}

fn print_network(out: &mut dyn Write, network: &NetworkStatus) -> io::Result<()> {
    let mtu = network
        .mtu
        .map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
    writeln!(out)?;
    write!(
        out,
        "network {}  vni {}  port {}  mtu {mtu}",
        network.name, network.vni, network.port
    )?;
    let more = [
        (network.isolated, "isolated"),
        (network.masquerade, "masquerade"),
        (network.dscp == Dscp::Copy, "dscp copied"),
    ];
    for (_, text) in more.iter().filter(|(is, _)| *is) {
        write!(out, "  {text}")?;
    }
    writeln!(out)?;
    for RangeStatus {
        cidr,
        subnet,
        gateway,
    } in &network.ranges
    {
        writeln!(out, "cidr {cidr}  subnet {subnet}  gateway {gateway}")?;
    }
    let rows = network.peers.iter().map(peer_row).collect();
    print_table(
        out,
        [
            "PEER", "VTEP", "SUBNETS", "VIA", "DEV", "SENT", "RECEIVED", "DROPPED",
        ],
        rows,
    )
}

fn peer_row(peer: &PeerStatus) -> [String; 8] {
    let count = |of: fn(&crate::api::Traffic) -> u64| {
        peer.traffic
            .as_ref()
            .map_or_else(|| "-".to_owned(), |traffic| of(traffic).to_string())
    };
    [
        peer.name.to_string(),
        peer.vtep.to_string(),
        list(&peer.subnets, ","),
        peer.via
            .map_or_else(|| "no route".to_owned(), |via| via.to_string()),
        peer.dev
            .map_or_else(|| "-".to_owned(), |dev| dev.to_string()),
        count(|traffic| traffic.tx_packets),
        count(|traffic| traffic.rx_packets),
        count(|traffic| traffic.dropped_packets),
    ]
}

pub(super) fn endpoints(
    out: &mut dyn Write,
    endpoints: &[EndpointStatus],
    format: Format,
) -> io::Result<()> {
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(endpoints)?)?,
        Format::Text => print_endpoints(out, endpoints)?,
    }
    Ok(())
}

fn print_endpoints(out: &mut dyn Write, endpoints: &[EndpointStatus]) -> io::Result<()> {
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
    )
}

/// Columns as wide as their widest cell.
fn print_table<const N: usize>(
    out: &mut dyn Write,
    head: [&str; N],
    rows: Vec<[String; N]>,
) -> io::Result<()> {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
