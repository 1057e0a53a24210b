//! What `status` says of encrypted tunnels, as of now.

use std::collections::BTreeMap;

use overlay_control::{EncryptionStatus, PeerEncryption, PeerStatus};
use overlay_core::{
    desired::wireguard_name,
    model::{Network, Peer, PublicKey},
    surroundings::{PeerTraffic, Surroundings},
};
use overlay_kernel::wireguard;
use tracing::warn;

type Traffic = BTreeMap<PublicKey, PeerTraffic>;

/// How a network is encrypted, and what has passed between this node and its peers.
pub(super) fn of(network: &Network, around: &Surroundings) -> (Option<EncryptionStatus>, Traffic) {
    let Some((device, encryption)) = wireguard_name(network.vni).zip(network.wireguard) else {
        return (None, Traffic::new());
    };
    let link = around.links.get(&device).filter(|link| link.ours);
    let info = link.map(|link| wireguard::read(link.index)).transpose();
    let info = info.unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    let status = EncryptionStatus {
        device,
        port: encryption.port,
        public_key: around.public_key,
        in_force: link.is_some(),
    };
    (
        Some(status),
        info.map(|info| info.traffic).unwrap_or_default(),
    )
}

/// A peer's status with how its tunnel is encrypted: by that device, whatever the way outside.
pub(super) fn add(
    status: PeerStatus,
    network: &Network,
    peer: &Peer,
    encrypted: &Traffic,
) -> PeerStatus {
    let Some(key) = peer
        .public_key
        .as_deref()
        .filter(|_| network.wireguard.is_some())
    else {
        return status;
    };
    let traffic = encrypted.get(key).copied().unwrap_or_default();
    let age = traffic.handshake.and_then(|at| at.elapsed().ok());
    PeerStatus {
        encryption: Some(PeerEncryption {
            public_key: *key,
            handshake_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            tx_bytes: traffic.sent,
            rx_bytes: traffic.received,
        }),
        ..status
    }
}
