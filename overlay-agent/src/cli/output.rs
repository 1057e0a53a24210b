//! What is printed, for people and for programs.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::Format;
use crate::{
    api::{EndpointStatus, FastPathState, NetworkStatus, PeerStatus, Status},
    daemon::Preview,
    model::Model,
};

/// Logs to standard error; `OVERLAY_LOG` chooses the level.
pub(super) fn start_log() {
    let filter = EnvFilter::try_from_env("OVERLAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // The journal has its own clock.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

pub(super) fn checked(path: &Path, model: &Model, format: Format) {
    let peers: usize = model
        .networks
        .iter()
        .map(|network| network.peers.len())
        .sum();
    let (networks, endpoints) = (model.networks.len(), model.endpoints.len());
    match format {
        Format::Json => println!(
            "{}",
            json!({ "node": model.node.name, "networks": networks, "peers": peers, "endpoints": endpoints })
        ),
        Format::Text => println!(
            "{}: good: node {}, {networks} networks, {peers} peers, {endpoints} endpoints",
            path.display(),
            model.node.name
        ),
    }
}

pub(super) fn plan(preview: &Preview, format: Format) -> serde_json::Result<()> {
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
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Format::Text => {
            if preview.plan.is_empty() {
                println!("nothing to do");
            }
            print!("{}", preview.plan);
            for problem in &preview.problems {
                println!("problem: {problem}");
            }
        }
    }
    Ok(())
}

pub(super) fn status(status: &Status, format: Format) -> serde_json::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(status)?);
        return Ok(());
    }
    let health = if status.healthy {
        "healthy"
    } else {
        "degraded"
    };
    println!(
        "node {}  instance {}  {health}",
        status.node, status.instance
    );
    let underlay: Vec<&str> = status
        .underlay
        .iter()
        .map(crate::model::IfName::as_str)
        .collect();
    let vtep = status
        .vtep
        .map_or_else(|| "none".to_owned(), |vtep| vtep.to_string());
    println!("vtep {vtep}  underlay {}", underlay.join(", "));
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
    println!(
        "fast path {state}{attach}  maps {}",
        fastpath.pins.display()
    );
    for network in &status.networks {
        print_network(network);
    }
    println!();
    print_endpoints(&status.endpoints);
    if !status.problems.is_empty() {
        println!();
    }
    for problem in &status.problems {
        println!("problem: {problem}");
    }
    Ok(())
}

fn print_network(network: &NetworkStatus) {
    let mtu = network
        .mtu
        .map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
    println!();
    println!(
        "network {}  vni {}  port {}  cidr {}  subnet {}  gateway {}  mtu {mtu}",
        network.name, network.vni, network.port, network.cidr, network.subnet, network.gateway
    );
    let rows = network.peers.iter().map(peer_row).collect();
    print_table(
        [
            "PEER", "VTEP", "SUBNETS", "VIA", "DEV", "SENT", "RECEIVED", "DROPPED",
        ],
        rows,
    );
}

fn peer_row(peer: &PeerStatus) -> [String; 8] {
    let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
    let count = |of: fn(&crate::api::Traffic) -> u64| {
        peer.traffic
            .as_ref()
            .map_or_else(|| "-".to_owned(), |traffic| of(traffic).to_string())
    };
    [
        peer.name.to_string(),
        peer.vtep.to_string(),
        subnets.join(","),
        peer.via
            .map_or_else(|| "no route".to_owned(), |via| via.to_string()),
        peer.dev
            .map_or_else(|| "-".to_owned(), |dev| dev.to_string()),
        count(|traffic| traffic.tx_packets),
        count(|traffic| traffic.rx_packets),
        count(|traffic| traffic.dropped_packets),
    ]
}

pub(super) fn endpoints(endpoints: &[EndpointStatus], format: Format) -> serde_json::Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(endpoints)?),
        Format::Text => print_endpoints(endpoints),
    }
    Ok(())
}

fn print_endpoints(endpoints: &[EndpointStatus]) {
    let row = |endpoint: &EndpointStatus| {
        [
            endpoint.name.to_string(),
            endpoint.network.to_string(),
            endpoint
                .address
                .map_or_else(|| "none".to_owned(), |address| address.to_string()),
            endpoint.interface.to_string(),
            endpoint
                .device
                .map_or_else(|| "not attached".to_owned(), |device| device.to_string()),
            endpoint.netns.display().to_string(),
        ]
    };
    print_table(
        [
            "ENDPOINT",
            "NETWORK",
            "ADDRESS",
            "INTERFACE",
            "DEVICE",
            "NETNS",
        ],
        endpoints.iter().map(row).collect(),
    );
}

/// Columns as wide as their widest cell.
fn print_table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
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
        println!("{}", cells.join("  ").trim_end());
    }
}
