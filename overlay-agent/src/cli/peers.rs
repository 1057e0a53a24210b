//! `peer`: the other nodes, and how they are.

use std::io::{self, Write};

use anyhow::anyhow;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use overlay_control::{PeerStatus, SCHEMA};
use overlay_core::{dirs::Dirs, model::Name};
use serde::Serialize;

use super::{
    CommandResult, Failure, Format, client, completing, encryption, examples, health, output,
};

/// What to know of peers.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the peers of all networks
    #[command(visible_alias = "ls", after_help = examples::PEER_LIST)]
    List,
    /// Show all that is known of a peer; exit 5 when there is none of that name
    #[command(after_help = examples::PEER_SHOW)]
    Show {
        /// Its name
        #[arg(add = ArgValueCompleter::new(completing::peers))]
        name: String,
    },
}

/// A peer and its network.
#[derive(Serialize)]
struct Of<'a> {
    network: &'a Name,
    #[serde(flatten)]
    peer: &'a PeerStatus,
}

pub(super) fn peer(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    command: Command,
) -> CommandResult {
    let status = client::status_of(dirs, instance)?;
    let all = status.networks.iter().flat_map(|network| {
        let peers = network.peers.iter();
        peers.map(|peer| Of {
            network: &network.name,
            peer,
        })
    });
    match command {
        Command::List => {
            let all: Vec<Of<'_>> = all.collect();
            output::print(|out| match format {
                Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&all)?),
                Format::Text => list(out, &all),
            })
        }
        Command::Show { name } => {
            let found: Vec<Of<'_>> = all.filter(|of| of.peer.name.as_str() == name).collect();
            if found.is_empty() {
                return Err(Failure::NotFound(anyhow!(
                    "show peer {name}: there is none of this name; see \"overlay-agent peer list\""
                )));
            }
            output::print(|out| match format {
                Format::Json => {
                    let value = serde_json::json!({ "schema": SCHEMA, "peers": found });
                    writeln!(out, "{}", serde_json::to_string_pretty(&value)?)
                }
                Format::Text => found.iter().try_for_each(|of| show(out, of)),
            })
        }
    }
    .map_err(Failure::Problem)
}

fn list(out: &mut dyn Write, peers: &[Of<'_>]) -> io::Result<()> {
    let row = |of: &Of<'_>| {
        let peer = of.peer;
        [
            of.network.to_string(),
            peer.name.to_string(),
            peer.vtep.to_string(),
            output::list(&peer.subnets, ","),
            way(peer),
            peer.health
                .as_ref()
                .map_or_else(|| "-".to_owned(), health::figures),
        ]
    };
    output::print_table(
        out,
        ["NETWORK", "PEER", "VTEP", "SUBNETS", "VIA", "HEALTH"],
        peers.iter().map(row).collect(),
    )
}

fn way(peer: &PeerStatus) -> String {
    match (peer.via, peer.dev) {
        (Some(via), Some(dev)) => format!("{via} dev {dev}"),
        (Some(via), None) => via.to_string(),
        (None, _) => "no route".to_owned(),
    }
}

fn show(out: &mut dyn Write, of: &Of<'_>) -> io::Result<()> {
    let peer = of.peer;
    writeln!(out, "peer {}  network {}", peer.name, of.network)?;
    writeln!(out, "  vtep      {}  mac {}", peer.vtep, peer.mac)?;
    writeln!(out, "  subnets   {}", output::list(&peer.subnets, ", "))?;
    writeln!(out, "  via       {}", way(peer))?;
    if let Some(known) = &peer.health {
        writeln!(out, "  probes    {}", health::figures(known))?;
        if let Some(agent) = &known.agent {
            writeln!(
                out,
                "  agent     {} {} (maps v{})",
                agent.node, agent.version, agent.abi
            )?;
        }
    }
    encryption::peers(out, std::slice::from_ref(peer))?;
    if let Some(traffic) = &peer.traffic {
        writeln!(
            out,
            "  fast path sent {}, received {}, left {} to the kernel, dropped {} packets",
            traffic.tx_packets, traffic.rx_packets, traffic.passed_packets, traffic.dropped_packets
        )?;
    }
    Ok(())
}
