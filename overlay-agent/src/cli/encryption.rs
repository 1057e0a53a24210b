//! Output about encrypted tunnels, and the node's key.

use std::{
    io::{self, Write},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use overlay_control::{NetworkStatus, PeerEncryption, PeerStatus, SCHEMA, Status};
use overlay_core::{
    config,
    dirs::Dirs,
    model::{Name, PublicKey},
    text_file,
};
use overlay_insight::stats::ago;
use overlay_node::key::KeyFile;
use serde_json::json;

use super::{CommandResult, Failure, Format, client, output};

/// Nobody sends by the old key once nothing has come by it for 15 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whose key to print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file, for the node's name before its first start
    #[arg(long, env = "OVERLAY_CONFIG")]
    config: Option<PathBuf>,
    /// Make the key that is to take this one's place, and print it; peers are given it as `next_public_key`
    #[arg(long)]
    rotate: bool,
    /// Have the next key take this one's place, once all peers are sent to with it
    #[arg(long, conflicts_with = "rotate")]
    finish: bool,
}

/// Prints the public half of this node's key, which is made where there is none yet; or of the one that
/// is to take its place, or has.
pub(super) fn key(
    args: &Args,
    instance: Option<Name>,
    dirs: &Dirs,
    format: Format,
) -> CommandResult {
    let instance = match (instance, &args.config) {
        (Some(instance), _) => instance,
        (None, Some(path)) => {
            // Peers' keys may still be missing there.
            let text = text_file::read(path).map_err(|error| {
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
    let public = if args.rotate {
        rotate(&key, dirs, &instance)?
    } else if args.finish {
        finish(&key, dirs, &instance)?
    } else {
        key.read_or_make().map_err(Failure::problem)?.public()
    };
    output::print(|out| match format {
        Format::Text => writeln!(out, "{public}"),
        Format::Json => {
            let told = json!({ "schema": SCHEMA, "instance": instance, "public_key": public });
            writeln!(out, "{told}")
        }
    })
    .map_err(Failure::Problem)
}

/// Makes the next key. With two that change at once, one of which not all have heard of, packets would be lost.
fn rotate(key: &KeyFile, dirs: &Dirs, instance: &Name) -> Result<PublicKey, Failure> {
    if key.read().map_err(Failure::problem)?.is_none() {
        return Err(refused(
            "there is no key yet; \"overlay-agent key\" makes one",
        ));
    }
    let next = key.next();
    if let Some(next) = next.read().map_err(Failure::problem)? {
        // Begun before.
        return Ok(next.public());
    }
    let status = client::status_of(dirs, Some(instance.clone()))?;
    let mut encrypted = status
        .networks
        .iter()
        .filter_map(|network| network.encryption.as_ref());
    if encrypted.any(|encryption| encryption.second_device.is_some()) {
        return Err(refused(
            "the key of a peer is changing; wait until \"overlay-agent status\" has no second device",
        ));
    }
    Ok(next.read_or_make().map_err(Failure::problem)?.public())
}

/// Ends with the old key, which nobody may need any more.
fn finish(key: &KeyFile, dirs: &Dirs, instance: &Name) -> Result<PublicKey, Failure> {
    if !key.next().is_there() {
        return Err(refused(
            "there is no next key; \"overlay-agent key --rotate\" makes one",
        ));
    }
    let began = Instant::now();
    loop {
        let status = client::status_of(dirs, Some(instance.clone()))?;
        let waiting = with_the_old_key(&status);
        if !waiting.is_empty() {
            return Err(refused(format!(
                "these peers are still sent to with the old key: {}; have them know the next one as next_public_key \
                 of this node, or remove those that are no more",
                waiting.join(", ")
            )));
        }
        let networks = status.networks.iter();
        let mut encrypted = networks.filter_map(|network| network.encryption.as_ref());
        let Some(still) = encrypted.find(|encryption| !encryption.by_second) else {
            break;
        };
        if began.elapsed() > PATIENCE {
            return Err(refused(format!(
                "peers still send with the old key by {}; see that an agent runs on each of them, and try again",
                still.device
            )));
        }
        thread::sleep(Duration::from_millis(500));
    }
    let replaced = key.replace_by_next().map_err(Failure::problem)?;
    let replaced = replaced.ok_or_else(|| refused("the next key has just gone"))?;
    Ok(replaced.public())
}

/// The peers that are not sent to with the next one.
fn with_the_old_key(status: &Status) -> Vec<&str> {
    let mut names = Vec::new();
    for network in &status.networks {
        let Some(encryption) = &network.encryption else {
            continue;
        };
        let second = encryption.second_device;
        let uses_next = |peer: &PeerEncryption| second.is_some() && peer.device == second;
        let peers = network.peers.iter();
        let peers = peers.filter(|peer| !peer.encryption.as_ref().is_some_and(uses_next));
        names.extend(peers.map(|peer| peer.name.as_str()));
    }
    names
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::Problem(anyhow!("change this node's key: {why}"))
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
    )?;
    if let Some(next) = &encryption.next_public_key {
        writeln!(
            out,
            "next key {next}: once all peers are sent to by {}, \"overlay-agent key --finish\"",
            encryption
                .second_device
                .map_or_else(|| "another device".to_owned(), |it| it.to_string())
        )?;
    }
    Ok(())
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
            "{}  keys agreed on {handshake}  key {}{}",
            peer.name,
            encryption.public_key,
            encryption
                .device
                .map_or_else(String::new, |device| format!("  by {device}"))
        )?;
    }
    Ok(())
}
