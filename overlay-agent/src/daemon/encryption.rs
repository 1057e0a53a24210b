//! The current state of encrypted tunnels for `status`; and when keys are to be looked at.

use std::collections::BTreeMap;

use overlay_control::{EncryptionStatus, PeerEncryption, PeerStatus};
use overlay_core::{
    desired::{second_wireguard_name, vxlan_name, wireguard_name},
    model::{Family, IfName, Network, Peer, PublicKey},
    surroundings::{PeerTraffic, Surroundings},
};
use overlay_kernel::wireguard;
use tracing::warn;

use super::Reconciler;

type Traffic = BTreeMap<PublicKey, PeerTraffic>;

/// Traffic between this node and its peers, by device.
pub(super) type ByDevice = BTreeMap<IfName, Traffic>;

impl Reconciler {
    /// Whether a key of this node or of a peer of its is about to change, or just has.
    pub(super) fn changes_keys(&self) -> bool {
        let mut networks = self.model.networks.iter();
        let devices = &self.observed.objects.wireguard;
        networks.any(|network| {
            let second = second_wireguard_name(network.vni);
            second.is_some_and(|second| devices.contains_key(&second))
        })
    }

    /// Whether a next key has come or gone since the last look.
    pub(super) fn has_other_keys(&self) -> bool {
        let mut networks = self.model.networks.iter();
        networks.any(|network| network.wireguard.is_some())
            && self.node.key.next().is_there() != self.observed.around.next_public_key.is_some()
    }

    /// How a network is encrypted, and what has passed.
    pub(super) fn encryption(&self, network: &Network) -> (Option<EncryptionStatus>, ByDevice) {
        let around = &self.observed.around;
        let Some((device, encryption)) = wireguard_name(network.vni).zip(network.wireguard) else {
            return (None, ByDevice::new());
        };
        let mut traffic = ByDevice::new();
        let devices = [Some(device), second_wireguard_name(network.vni)];
        for device in devices.into_iter().flatten() {
            traffic.extend(passed(device, around).map(|passed| (device, passed)));
        }
        let second = traffic.keys().copied().find(|other| *other != device);
        let mut peers = network.peers.iter();
        let by_second = second.is_some()
            && around.silent.contains(&device)
            && peers.all(|peer| self.sends_by(network, peer) == second);
        let status = EncryptionStatus {
            device,
            port: encryption.port,
            public_key: around.public_key,
            in_force: traffic.contains_key(&device),
            next_public_key: around.next_public_key,
            second_device: second,
            by_second,
        };
        (Some(status), traffic)
    }

    /// The device that encrypts what is for a peer; `None` before anything is sent.
    fn sends_by(&self, network: &Network, peer: &Peer) -> Option<IfName> {
        let tunnel = vxlan_name(network.vni, Family::of(peer.vtep))?;
        let rows = &self.observed.objects.peers.fdb;
        rows.get(&(tunnel, peer.mac))?.via
    }

    /// A peer's status with how its tunnel is encrypted: by that device, whatever the way outside.
    pub(super) fn with_encryption(
        &self,
        status: PeerStatus,
        network: &Network,
        peer: &Peer,
        passed: &ByDevice,
    ) -> PeerStatus {
        let (Some(first), Some(key)) = (
            wireguard_name(network.vni).filter(|_| network.wireguard.is_some()),
            peer.public_key.as_deref(),
        ) else {
            return status;
        };
        let device = self.sends_by(network, peer);
        let key = match device {
            Some(device) if device != first => peer.next_public_key.as_deref().unwrap_or(key),
            _ => key,
        };
        let traffic = passed.get(&device.unwrap_or(first));
        let traffic = traffic.and_then(|traffic| traffic.get(key).copied());
        let traffic = traffic.unwrap_or_default();
        let age = traffic.handshake.and_then(|at| at.elapsed().ok());
        PeerStatus {
            encryption: Some(PeerEncryption {
                public_key: *key,
                device,
                handshake_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                tx_bytes: traffic.sent,
                rx_bytes: traffic.received,
            }),
            ..status
        }
    }
}

/// Traffic of a device; `None` where it is not there.
fn passed(device: IfName, around: &Surroundings) -> Option<Traffic> {
    let link = around.links.get(&device).filter(|link| link.ours)?;
    match wireguard::read(link.index) {
        Ok(info) => Some(info.traffic),
        Err(error) => {
            warn!("{error}");
            Some(Traffic::new())
        }
    }
}
