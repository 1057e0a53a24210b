//! `WireGuard` devices of ours, and what it takes to have them.

use overlay_core::{
    model::Model,
    objects::Objects,
    surroundings::{NoWireguard, Surroundings},
};
use overlay_kernel::{self as kernel, netlink::LinkInfo, wireguard};

use crate::{key::PrivateKey, node::Node};

pub(super) fn observe(
    node: &Node,
    model: Option<&Model>,
    ours: &[&LinkInfo],
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
        match node.key.read() {
            Ok(key) => around.public_key = key.as_ref().map(PrivateKey::public),
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
        objects.wireguard.insert(link.name, info.settings);
        around.encrypted.insert(link.name, info.traffic);
    }
    Ok(())
}
