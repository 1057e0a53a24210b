//! `WireGuard` devices, by generic netlink: keys, ports and peers.
//!
//! Requests with a private key in them go straight to a socket: nothing on the way logs messages.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer as Peer,
    WireguardPeerAttribute, WireguardPeerFlags,
};
use nix::errno::Errno;
use overlay_core::{
    model::PublicKey,
    objects::{Wireguard, WireguardPeer},
    surroundings::PeerTraffic,
};
use rtnetlink::{
    packet_core::{
        Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
        ParseableParametrized,
    },
    sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_GENERIC},
};

use crate::{KernelError, Result};

/// A device as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardInfo {
    /// Its key, port and peers.
    pub settings: Wireguard,
    /// Traffic between it and each peer.
    pub traffic: BTreeMap<PublicKey, PeerTraffic>,
}

/// Whether this kernel has `WireGuard`; it loads its module if it can.
pub fn must_be_there() -> Result<()> {
    family().map(drop).map_err(|error| {
        let operation = "look for WireGuard in the kernel";
        match error.raw_os_error() {
            Some(number) if number == Errno::ENOENT as i32 => {
                KernelError::new(operation, "it is not there, nor a module of it").with_cure(
                    "load it with \"modprobe wireguard\", or use a kernel with CONFIG_WIREGUARD",
                )
            }
            _ => KernelError::io(operation, &error),
        }
    })
}

/// A device of the calling thread's namespace.
pub fn read(index: u32) -> Result<WireguardInfo> {
    let attributes = vec![WireguardAttribute::IfIndex(index)];
    let answers = request(WireguardCmd::GetDevice, attributes, NLM_F_DUMP)
        .map_err(|error| KernelError::io(format!("look at WireGuard device {index}"), &error))?;
    let mut info = WireguardInfo::default();
    // Of many peers, a part a message.
    for attribute in answers.into_iter().flatten() {
        match attribute {
            WireguardAttribute::PublicKey(key) => {
                info.settings.public_key = Some(PublicKey::new(key));
            }
            WireguardAttribute::ListenPort(port) => info.settings.port = port,
            WireguardAttribute::Peers(peers) => {
                for peer in peers {
                    info.add(peer);
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Gives a device its key and its port. It has no peers then: what it agreed on with them by another key would
/// count as if it held still (`wg_noise_expire_current_peer_keypairs` leaves the time of the handshake).
pub fn set(index: u32, private_key: [u8; PublicKey::LENGTH], port: u16) -> Result<()> {
    let attributes = vec![
        WireguardAttribute::IfIndex(index),
        WireguardAttribute::PrivateKey(private_key),
        WireguardAttribute::ListenPort(port),
        WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
    ];
    let set = request(WireguardCmd::SetDevice, attributes, NLM_F_ACK);
    set.map(drop).map_err(|error| {
        let operation = format!("have WireGuard listen at UDP port {port}");
        let error = KernelError::io(operation, &error);
        if error.errno() == Some(Errno::EADDRINUSE as i32) {
            return error.with_cure(format!(
                "find who has the port with \"ss -lunp sport = {port}\", or choose another wireguard_port on all nodes"
            ));
        }
        error
    })
}

/// Has a device speak with a peer, in the place of what it knew of it.
pub fn set_peer(index: u32, key: PublicKey, peer: &WireguardPeer) -> Result<()> {
    let allowed = peer.allowed.iter().map(|net| {
        let family = match net {
            IpNet::V4(_) => WireguardAddressFamily::Ipv4,
            IpNet::V6(_) => WireguardAddressFamily::Ipv6,
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(net.addr()),
            WireguardAllowedIpAttr::Cidr(net.prefix_len()),
        ])
    });
    let mut attributes = vec![
        WireguardPeerAttribute::PublicKey(key.bytes()),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
    ];
    attributes.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
    attributes.push(WireguardPeerAttribute::AllowedIps(allowed.collect()));
    attributes.push(WireguardPeerAttribute::PersistentKeepalive(peer.keepalive));
    change_peer(index, key, attributes)
}

/// Has a device tell a peer that it is there when it has sent nothing for so many seconds, at once too; with 0
/// never more.
pub fn set_keepalive(index: u32, key: PublicKey, seconds: u16) -> Result<()> {
    let attributes = vec![
        WireguardPeerAttribute::PublicKey(key.bytes()),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
        WireguardPeerAttribute::PersistentKeepalive(seconds),
    ];
    change_peer(index, key, attributes)
}

/// Has it speak no more with one.
pub fn delete_peer(index: u32, key: PublicKey) -> Result<()> {
    let flags = WireguardPeerFlags::RemoveMe | WireguardPeerFlags::UpdateOnly;
    let attributes = vec![
        WireguardPeerAttribute::PublicKey(key.bytes()),
        WireguardPeerAttribute::Flags(flags),
    ];
    change_peer(index, key, attributes)
}

fn change_peer(index: u32, key: PublicKey, peer: Vec<WireguardPeerAttribute>) -> Result<()> {
    let attributes = vec![
        WireguardAttribute::IfIndex(index),
        WireguardAttribute::Peers(vec![Peer(peer)]),
    ];
    let changed = request(WireguardCmd::SetDevice, attributes, NLM_F_ACK);
    changed
        .map(drop)
        .map_err(|error| KernelError::io(format!("change peer {key} of WireGuard"), &error))
}

impl WireguardInfo {
    fn add(&mut self, peer: Peer) {
        let mut key = None;
        let mut found = WireguardPeer::default();
        let mut traffic = PeerTraffic::default();
        for attribute in peer.0 {
            match attribute {
                WireguardPeerAttribute::PublicKey(bytes) => key = Some(PublicKey::new(bytes)),
                WireguardPeerAttribute::Endpoint(endpoint) => found.endpoint = Some(endpoint),
                WireguardPeerAttribute::PersistentKeepalive(seconds) => found.keepalive = seconds,
                WireguardPeerAttribute::AllowedIps(nets) => {
                    found.allowed.extend(nets.iter().filter_map(net));
                }
                WireguardPeerAttribute::LastHandshake(time) => {
                    traffic.handshake = since_epoch(time.seconds, time.nano_seconds);
                }
                WireguardPeerAttribute::RxBytes(bytes) => traffic.received = bytes,
                WireguardPeerAttribute::TxBytes(bytes) => traffic.sent = bytes,
                _ => {}
            }
        }
        let Some(key) = key else { return };
        // What does not fit into one message goes on in the next, under the same key.
        let known = self.settings.peers.entry(key).or_default();
        known.allowed.extend(found.allowed);
        known.keepalive = known.keepalive.max(found.keepalive);
        if found.endpoint.is_some() {
            known.endpoint = found.endpoint;
            self.traffic.insert(key, traffic);
        } else {
            self.traffic.entry(key).or_insert(traffic);
        }
    }
}

fn net(attributes: &WireguardAllowedIp) -> Option<IpNet> {
    let (mut address, mut length) = (None, None);
    for attribute in &attributes.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(found) => address = Some(*found),
            WireguardAllowedIpAttr::Cidr(found) => length = Some(*found),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}

/// `None` for 0, which means never.
fn since_epoch(seconds: i64, nanoseconds: i64) -> Option<SystemTime> {
    let (seconds, nanoseconds) = (seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
    let age = Duration::new(seconds, nanoseconds);
    (!age.is_zero()).then(|| SystemTime::UNIX_EPOCH + age)
}

fn request(
    cmd: WireguardCmd,
    attributes: Vec<WireguardAttribute>,
    flags: u16,
) -> io::Result<Vec<Vec<WireguardAttribute>>> {
    let message = WireguardMessage { cmd, attributes };
    let answers = ask(message, family()?, flags)?;
    Ok(answers.into_iter().map(|it| it.attributes).collect())
}

/// The number that the kernel has given to the family.
fn family() -> io::Result<u16> {
    let name = WireguardMessage::family_name().to_owned();
    let question = GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name)],
    };
    let number = question.family_id();
    let answers = ask(question, number, NLM_F_ACK)?;
    let attributes = answers.into_iter().flat_map(|answer| answer.nlas);
    let mut ids = attributes.filter_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(id),
        _ => None,
    });
    ids.next().ok_or_else(|| Errno::ENOENT.into())
}

/// The kernel's answers to one request.
fn ask<F>(payload: F, family: u16, flags: u16) -> io::Result<Vec<F>>
where
    F: GenlFamily
        + Emitable
        + ParseableParametrized<[u8], GenlHeader>
        + Clone
        + std::fmt::Debug
        + Eq,
{
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family);
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_GENERIC)?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        if rest.is_empty() {
            return Err(Errno::ECONNRESET.into());
        }
        while !rest.is_empty() {
            let message = NetlinkMessage::<GenlMessage<F>>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are aligned to 4 bytes (`NLMSG_ALIGN`).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            let code = match message.payload {
                NetlinkPayload::InnerMessage(answer) => {
                    answers.push(answer.payload);
                    continue;
                }
                NetlinkPayload::Error(error) => error.raw_code(),
                NetlinkPayload::Done(done) => done.code,
                _ => continue,
            };
            return match code {
                0.. => Ok(answers),
                _ => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;

    fn peer(attributes: Vec<WireguardPeerAttribute>) -> Peer {
        let mut all = vec![WireguardPeerAttribute::PublicKey([7; PublicKey::LENGTH])];
        all.extend(attributes);
        Peer(all)
    }

    fn allowed(last: u8) -> WireguardPeerAttribute {
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
        WireguardPeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
            WireguardAllowedIpAttr::IpAddr(address),
            WireguardAllowedIpAttr::Cidr(32),
        ])])
    }

    #[test]
    fn a_peer_that_takes_two_messages_is_one() {
        let endpoint = SocketAddr::from(([192, 0, 2, 1], 51_820));
        let mut info = WireguardInfo::default();
        info.add(peer(vec![
            WireguardPeerAttribute::Endpoint(endpoint),
            WireguardPeerAttribute::RxBytes(9),
            WireguardPeerAttribute::PersistentKeepalive(3),
            allowed(1),
        ]));
        info.add(peer(vec![allowed(2)]));
        let key = PublicKey::new([7; PublicKey::LENGTH]);
        let found = &info.settings.peers[&key];
        assert_eq!(found.endpoint, Some(endpoint));
        assert_eq!((found.allowed.len(), found.keepalive), (2, 3));
        assert_eq!(info.traffic[&key].received, 9);
        assert_eq!(info.traffic[&key].handshake, None);
    }

    #[test]
    fn no_time_is_no_handshake() {
        assert_eq!(since_epoch(0, 0), None);
        assert!(since_epoch(1, 0).is_some());
        assert_eq!(since_epoch(-1, 0), None);
    }
}
