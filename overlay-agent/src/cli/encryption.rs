//! What is said of encrypted tunnels, and the node's key.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::anyhow;
use overlay_control::{NetworkStatus, PeerStatus, SCHEMA};
use overlay_core::{config, dirs::Dirs, model::Name, text_file};
use overlay_insight::stats::ago;
use overlay_node::key::KeyFile;
use serde_json::json;

use super::{CommandResult, Failure, Format, client, output};

/// Whose key to print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file, for the node's name before its first start
    #[arg(long, env = "OVERLAY_CONFIG")]
    config: Option<PathBuf>,
}

/// Prints the public half of this node's key, which is made where there is none yet.
pub(super) fn key(
    args: Args,
    instance: Option<Name>,
    dirs: &Dirs,
    format: Format,
) -> CommandResult {
    let instance = match (instance, args.config) {
        (Some(instance), _) => instance,
        (None, Some(path)) => {
            // Peers' keys may still be missing there.
            let text = text_file::read(&path).map_err(|error| {
                Failure::BadInput(anyhow!(
                    "read configuration {}: {error}; give the path of an existing file with --config",
                    path.display()
                ))
            })?;
            config::node_name(&text).ok_or_else(|| {
                Failure::BadInput(anyhow!(
                    "look for node.name in {}: there is none; see \"overlay-agent check --config {}\"",
                    path.display(),
                    path.display()
                ))
            })?
        }
        (None, None) => client::the_instance(dirs, None, |_, _| true)?,
    };
    let key = KeyFile::at(dirs.private_key(&instance));
    let public = key.read_or_make().map_err(Failure::problem)?.public();
    output::print(|out| match format {
        Format::Text => writeln!(out, "{public}"),
        Format::Json => {
            let told = json!({ "schema": SCHEMA, "instance": instance, "public_key": public });
            writeln!(out, "{told}")
        }
    })
    .map_err(Failure::Problem)
}

/// A line for a network that is encrypted.
pub(super) fn network(out: &mut dyn Write, network: &NetworkStatus) -> io::Result<()> {
    let Some(encryption) = &network.encryption else {
        return Ok(());
    };
    if !encryption.in_force {
        return writeln!(
            out,
            "NOT ENCRYPTED: there is no {}; what went in the clear before goes on so (the problems say why)",
            encryption.device
        );
    }
    let key = encryption.public_key;
    let key = key.map_or_else(|| "none yet".to_owned(), |key| key.to_string());
    writeln!(
        out,
        "encrypted by {}  port {}  this node's key {key}",
        encryption.device, encryption.port
    )
}

/// A line for each peer whose tunnel is encrypted.
pub(super) fn peers(out: &mut dyn Write, peers: &[PeerStatus]) -> io::Result<()> {
    let encrypted = peers
        .iter()
        .filter_map(|peer| Some((peer, peer.encryption.as_ref()?)));
    for (peer, encryption) in encrypted {
        let handshake = encryption.handshake_age_ms;
        let handshake = handshake.map_or_else(|| "never".to_owned(), ago);
        writeln!(
            out,
            "{}  keys agreed on {handshake}  key {}",
            peer.name, encryption.public_key
        )?;
    }
    Ok(())
}
