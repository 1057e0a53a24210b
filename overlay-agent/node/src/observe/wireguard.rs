//! `WireGuard` devices of ours, and what it takes to have them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use overlay_core::{
    model::{IfName, Model, PublicKey},
    objects::Objects,
    surroundings::{NoWireguard, PeerTraffic, Surroundings},
};
use overlay_kernel::{self as kernel, netlink::LinkInfo, wireguard};

use crate::{
    key::{KeyError, KeyFile, PrivateKey},
    node::Node,
};

/// What was agreed on counts for 180 s (`REJECT_AFTER_TIME`); whoever sends agrees anew after 120.
const AGREED: Duration = Duration::from_secs(170);
/// Long behind what `WireGuard` sends by itself: after 10 s it answers what came last (`KEEPALIVE_TIMEOUT`).
const SILENT: Duration = Duration::from_secs(15);

/// How much has come by each device, and since when nothing more.
pub(super) type Heard = BTreeMap<IfName, (u64, Instant)>;

pub(super) fn observe(
    node: &Node,
    model: Option<&Model>,
    ours: &[&LinkInfo],
    heard: &mut Heard,
    objects: &mut Objects,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let mut networks = model.into_iter().flat_map(|model| &model.networks);
    if networks.any(|network| network.wireguard.is_some()) {
        if let Err(error) = wireguard::must_be_there() {
            let cure = error.cure().unwrap_or("see the kernel's log: dmesg");
            around.no_wireguard = Some(NoWireguard {
                cause: error.what(),
                cure: format!("{cure}; else set encryption = \"off\" on all nodes"),
            });
        }
        let keys = public(&node.key).and_then(|key| Ok((key, public(&node.key.next())?)));
        match keys {
            Ok(keys) => (around.public_key, around.next_public_key) = keys,
            Err(error) => {
                around.no_wireguard = Some(NoWireguard {
                    cause: error.what(),
                    cure: error.cure().to_owned(),
                });
            }
        }
    }
    for link in ours {
        if link.kind.as_deref() != Some("wireguard") {
            continue;
        }
        let info = match wireguard::read(link.index) {
            Ok(info) => info,
            // It has gone since devices were listed.
            Err(error) if error.not_there() => continue,
            Err(error) => return Err(error),
        };
        let has_agreed = |traffic: &PeerTraffic| {
            let age = traffic.handshake.and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age < AGREED)
        };
        let agreed = info.traffic.iter().filter(|(_, of)| has_agreed(of));
        let agreed = agreed.map(|(key, _)| *key).collect();
        around.agreed.insert(link.name, agreed);
        let received = info.traffic.values().map(|of| of.received).sum();
        if is_silent(heard, link.name, received) {
            around.silent.insert(link.name);
        }
        objects.wireguard.insert(link.name, info.settings);
        around.encrypted.insert(link.name, info.traffic);
    }
    heard.retain(|name, _| objects.wireguard.contains_key(name));
    Ok(())
}

fn public(file: &KeyFile) -> Result<Option<PublicKey>, KeyError> {
    Ok(file.read()?.as_ref().map(PrivateKey::public))
}

/// Whether no more has come than long ago.
fn is_silent(heard: &mut Heard, device: IfName, received: u64) -> bool {
    let now = Instant::now();
    let (before, since) = heard.entry(device).or_insert((received, now));
    if *before != received {
        (*before, *since) = (received, now);
    }
    now.duration_since(*since) >= SILENT
}
