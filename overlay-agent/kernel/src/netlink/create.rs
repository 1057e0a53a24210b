//! Making devices: bridge, VXLAN, `WireGuard` and veth, each complete or not at all.

use std::{fs::File, net::IpAddr, os::fd::AsRawFd, path::Path};

use nix::errno::Errno;
use overlay_common::wire::OUTER_TTL;
use overlay_core::{
    model::{IfName, Mac},
    objects::{Link, LinkKind, Vxlan},
};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
            LinkMessage,
        },
    },
};

use super::{Netlink, bridge, links::TOS_INHERIT, refusal::Refusal};
use crate::{KernelError, Result};

/// The container's side of a veth pair, which is born in its namespace, down.
#[derive(Clone, Copy, Debug)]
pub struct VethPeerSpec<'a> {
    /// Its name there.
    pub name: IfName,
    /// Its hardware address; `None`: any.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// The file that stands for its namespace.
    pub netns: &'a Path,
}

impl Netlink {
    /// Makes a device with everything that `link` says; `peer` is the other side of a veth.
    ///
    /// Two requests, because the kernel takes an alias only for a device that exists;
    /// if anything fails after the first, the device is removed again. Returns its index, by
    /// which it is known even if somebody changes its mark at once.
    pub async fn create(
        &self,
        name: &IfName,
        link: &Link,
        peer: Option<VethPeerSpec<'_>>,
    ) -> Result<u32> {
        let operation = format!("create device {name}");
        let master = match &link.master {
            Some(master) => Some(self.index_of(master, &operation).await?),
            None => None,
        };
        // Keeps the namespace's descriptor open until the kernel has used it.
        let netns = match &peer {
            Some(peer) => Some(File::open(peer.netns).map_err(|error| {
                KernelError::io(&*operation, &error).because(peer.netns.display())
            })?),
            None => None,
        };
        let kind = match (&link.kind, peer.zip(netns.as_ref())) {
            (LinkKind::Bridge, None) => bridge::made_with(),
            (LinkKind::Vxlan(settings), None) => vxlan(settings),
            (LinkKind::Wireguard, None) => vec![LinkInfo::Kind(InfoKind::Wireguard)],
            (LinkKind::Veth { .. }, Some((peer, netns))) => veth(&peer, netns),
            (kind, _) => {
                let cause = format!("no such device can be made by itself: {kind:?}");
                return Err(KernelError::new(operation, cause));
            }
        };

        let create = RouteNetlinkMessage::NewLink(first(name, link, kind));
        self.request(create, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .await
            .map_err(|refusal| explain(refusal, &operation, link))?;
        let index = match self.index_of(name, &operation).await {
            Ok(index) => index,
            Err(error) => return Err(self.undone(named(name), error).await),
        };
        let finish = RouteNetlinkMessage::SetLink(second(index, link, master));
        match self.request(finish, NLM_F_ACK).await {
            Ok(_) => Ok(index),
            Err(refusal) => {
                let error = explain(refusal, &operation, link);
                Err(self.undone(numbered(index), error).await)
            }
        }
    }

    /// Removes a device that could not be completed; the error tells if that fails, too.
    async fn undone(&self, device: LinkMessage, error: KernelError) -> KernelError {
        let undo = RouteNetlinkMessage::DelLink(device);
        match self.request(undo, NLM_F_ACK).await {
            Ok(_) => error,
            Err(refusal) => error.because(refusal.during("remove it again")),
        }
    }

    async fn index_of(&self, name: &IfName, operation: &str) -> Result<u32> {
        match self.link_by_name(name.as_str()).await? {
            Some(link) => Ok(link.index),
            None => Err(KernelError::os(operation, Errno::ENODEV).because(name)),
        }
    }
}

fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_string())];
    message
}

fn numbered(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The attributes that cannot be changed later, and those that a device had better be born with.
fn first(name: &IfName, link: &Link, kind: Vec<LinkInfo>) -> LinkMessage {
    let mut message = named(name);
    message.attributes.extend(mac(link.mac));
    // A bridge that is born with an MTU goes back to that of its ports, or to 1500
    // without any; one that is set later stays.
    if link.kind != LinkKind::Bridge {
        message.attributes.push(LinkAttribute::Mtu(link.mtu));
    }
    message.attributes.push(LinkAttribute::LinkInfo(kind));
    message
}

/// The rest, in one request.
fn second(index: u32, link: &Link, master: Option<u32>) -> LinkMessage {
    let mut message = numbered(index);
    if link.kind == LinkKind::Bridge {
        message.attributes.push(LinkAttribute::Mtu(link.mtu));
    }
    message
        .attributes
        .extend(link.alias.clone().map(LinkAttribute::IfAlias));
    message
        .attributes
        .extend(master.map(LinkAttribute::Controller));
    if link.up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message
}

fn mac(mac: Option<Mac>) -> Option<LinkAttribute> {
    mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec()))
}

fn vxlan(vxlan: &Vxlan) -> Vec<LinkInfo> {
    let mut settings = match vxlan.local {
        IpAddr::V4(address) => vec![InfoVxlan::Local(address), InfoVxlan::UDPCsum(false)],
        IpAddr::V6(address) => vec![
            InfoVxlan::Local6(address),
            InfoVxlan::UDPZeroCsumTX(false),
            InfoVxlan::UDPZeroCsumRX(true),
        ],
    };
    settings.extend([
        InfoVxlan::Id(vxlan.vni.get()),
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::PortRange(vxlan.source_ports),
        InfoVxlan::Learning(vxlan.learning),
        InfoVxlan::Ttl(OUTER_TTL),
        InfoVxlan::Tos(if vxlan.copies_dscp { TOS_INHERIT } else { 0 }),
    ]);
    vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(settings)),
    ]
}

fn veth(peer: &VethPeerSpec<'_>, netns: &File) -> Vec<LinkInfo> {
    let mut message = named(&peer.name);
    message.attributes.extend(mac(peer.mac));
    message.attributes.push(LinkAttribute::Mtu(peer.mtu));
    message
        .attributes
        .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let settings = InfoData::Veth(InfoVeth::Peer(message));
    vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(settings)]
}

fn explain(refusal: Refusal, operation: &str, link: &Link) -> KernelError {
    let errno = refusal.errno;
    let error = refusal.during(operation);
    match (errno, &link.kind) {
        (Errno::EOPNOTSUPP, LinkKind::Bridge) => error.with_cure("modprobe bridge"),
        (Errno::EOPNOTSUPP, LinkKind::Vxlan(_)) => error.with_cure("modprobe vxlan"),
        (Errno::EOPNOTSUPP, LinkKind::Wireguard) => error.with_cure("modprobe wireguard"),
        (Errno::EOPNOTSUPP, LinkKind::Veth { .. }) => error.with_cure("modprobe veth"),
        (Errno::EXFULL, _) => error.with_cure(
            "detach a container, or use another node: a bridge of Linux has at most 1,023 ports",
        ),
        (Errno::EADDRINUSE, LinkKind::Vxlan(vxlan)) => error.with_cure(format!(
            "another program has UDP port {}: ss -lunp",
            vxlan.port
        )),
        (Errno::EEXIST, LinkKind::Vxlan(vxlan)) => error.with_cure(format!(
            "look for another device of VNI {} and port {}: ip -d link show type vxlan",
            vxlan.vni, vxlan.port
        )),
        _ => error,
    }
}
