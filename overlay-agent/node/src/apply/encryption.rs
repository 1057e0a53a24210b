//! Telling `WireGuard` devices whom they speak with.

use overlay_core::plan::Step;
use overlay_kernel::wireguard;

use super::steps::{Result, gone_is_fine, index};
use crate::node::Node;

pub(super) async fn run(step: &Step, node: &Node) -> Result<()> {
    match step {
        Step::SetWireguard { link, port, key } => {
            let key = match key {
                Some(public) => node.key.with_public(public)?,
                None => node.key.read_or_make()?,
            };
            let index = index(node, *link).await?;
            Ok(wireguard::set(index, key.bytes(), *port)?)
        }
        Step::SetWireguardPeer { link, key, peer } => {
            let index = index(node, *link).await?;
            Ok(wireguard::set_peer(index, *key, peer)?)
        }
        Step::SetWireguardKeepalive { link, key, seconds } => {
            let index = index(node, *link).await?;
            Ok(wireguard::set_keepalive(index, *key, *seconds)?)
        }
        Step::DeleteWireguardPeer { link, key } => {
            let index = index(node, *link).await?;
            Ok(gone_is_fine(wireguard::delete_peer(index, *key))?)
        }
        // `run` of the steps sends no other.
        _ => Ok(()),
    }
}
