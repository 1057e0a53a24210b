//! Output for people and for programs.

mod attached;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;
use overlay_control::{
    Carried, FastPathState, FastPathStatus, GuardTableStatus, NetworkStatus, PeerStatus,
    RangeStatus, SCHEMA, Status,
};
use overlay_core::{
    config::{Loaded, PEERS_FOLDER},
    model::{Dscp, Guard, Rx},
    plural::count_of,
};
use overlay_node::preview::Preview;
use serde_json::json;

pub(super) use attached::{endpoint, endpoints};

use super::{Format, called, cluster, encryption, health, watching};

/// Prints to standard output; that its reader has seen enough is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    if called::by_its_name() {
        return print_as_it_is(write);
    }
    print_as_it_is(|out| {
        let mut text = Vec::new();
        write(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        out.write_all(called::pasteable(&text).as_bytes())
    })
}

/// The same of what has commands for another machine, where this program is at a path that nobody
/// here knows.
pub(super) fn print_as_it_is(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
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
            json!({
                "schema": SCHEMA, "node": model.node.name, "networks": networks, "peers": peers,
                "endpoints": endpoints, "fragments": fragments,
            })
        ),
        Format::Text => writeln!(
            out,
            "{}: OK: node {}, {}, {}, {}{}{}",
            path.display(),
            model.node.name,
            count_of(networks, "network"),
            count_of(peers, "peer"),
            count_of(endpoints, "endpoint"),
            match fragments {
                0 => String::new(),
                some => format!("; with {} of {PEERS_FOLDER}", count_of(some, "file")),
            },
            match &model.cluster {
                Some(cluster) if model.network(&cluster.network).is_none() => format!(
                    "; network {} with its peers comes from etcd, and its endpoints count then",
                    cluster.network
                ),
                _ => String::new(),
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
            let value = json!({ "schema": SCHEMA, "steps": preview.plan, "texts": texts, "problems": preview.problems });
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
    print_guard_table(out, &status.guard_table, fastpath.state)?;
    watching::print(out, status)?;
    if let Some(cluster) = &status.cluster {
        cluster::print_line(out, cluster)?;
    }
    for network in &status.networks {
        print_network(out, network)?;
        health::mesh(out, status, &network.peers)?;
    }
    writeln!(out)?;
    attached::table(out, &status.endpoints)?;
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

/// Where it holds, there is nothing to say.
fn print_guard_table(
    out: &mut dyn Write,
    table: &GuardTableStatus,
    fastpath: FastPathState,
) -> io::Result<()> {
    let Some(reason) = &table.reason else {
        return Ok(());
    };
    let extent = match fastpath {
        FastPathState::On => "hold for what the programs take, not on the kernel's path",
        FastPathState::Off | FastPathState::Unavailable => "do not hold for what tunnels bring",
    };
    writeln!(out, "rules {extent}: {reason}")
}

/// A list as text, or "none".
pub(super) fn list(things: &[impl ToString], separator: &str) -> String {
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
    encryption::network(out, network)?;
    if let Some(rule) = &network.followed {
        writeln!(out, "{rule}")?;
    }
    for hook in &network.hooks {
        writeln!(
            out,
            "carried by the kernel because of {} at {}",
            hook.what, hook.device
        )?;
    }
    let rows = network.peers.iter().map(peer_row).collect();
    print_table(
        out,
        [
            "PEER",
            "VTEP",
            "SUBNETS",
            "VIA",
            "DEV",
            "FAST SENT",
            "FAST RECEIVED",
            "BY KERNEL",
            "DROPPED",
        ],
        rows,
    )?;
    encryption::peers(out, &network.peers)?;
    let Carried { fastpath, kernel } = network.carried;
    // The programs' counters outlive a VXLAN device, which counts for the kernel.
    let traffic = network
        .peers
        .iter()
        .filter_map(|peer| peer.traffic.as_ref());
    let left: u64 = traffic.map(|traffic| traffic.passed_packets).sum();
    let since = if left > kernel.rx.packets {
        " (the kernel's since its VXLAN device was made)"
    } else {
        ""
    };
    writeln!(
        out,
        "sent {} by the fast path, {} by the kernel; received {} and {}{since}",
        fastpath.tx.packets, kernel.tx.packets, fastpath.rx.packets, kernel.rx.packets
    )
}

fn peer_row(peer: &PeerStatus) -> [String; 9] {
    let count = |of: fn(&overlay_control::Traffic) -> u64| {
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
        count(|traffic| traffic.passed_packets),
        count(|traffic| traffic.dropped_packets),
    ]
}

/// Columns as wide as their widest cell.
pub(super) fn print_table<const N: usize>(
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
