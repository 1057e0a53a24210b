//! Network devices: reading, changing, removing.

use std::{net::IpAddr, time::Duration};

use nix::errno::Errno;
use overlay_common::wire::OUTER_TTL;
use overlay_core::{
    model::{IfName, Mac},
    surroundings::LinkLayer,
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{
        self, InfoData, InfoPortData, InfoVrf, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkLayerType, LinkMessage, Prop,
    },
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{Netlink, blocking, bridge, sizes};
use crate::{KernelError, Result};

/// The greatest MTU of a veth (`ETH_MAX_MTU`).
const VETH_MAX_MTU: u32 = 65_535;
/// How often it is looked whether a device that is being removed is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a link has, each by itself"
)]
pub struct LinkInfo {
    /// `ifindex`.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its alternative names (`IFLA_ALT_IFNAME`).
    pub alternatives: Vec<String>,
    /// Hardware address, where that is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// Its link layer.
    pub layer: LinkLayer,
    /// In bytes.
    pub mtu: u32,
    /// Administrative state (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// `ifindex` of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: for a veth its other side, in the namespace `link_netnsid`.
    pub peer_index: Option<u32>,
    /// This namespace's number for the one that `peer_index` is in; `None`: this one.
    pub link_netnsid: Option<i32>,
    /// `IFLA_IFALIAS`.
    pub alias: Option<String>,
    /// `bridge`, `vxlan`, `veth` …; `None` for most hardware.
    pub kind: Option<String>,
    /// Settings of a VXLAN device.
    pub vxlan: Option<VxlanInfo>,
    /// The table of routes of a VRF.
    pub vrf_table: Option<u32>,
    /// Whether a bridge, or a port of one, has settings other than those it is made with.
    pub altered: bool,
    /// Whether packets longer than 65536 bytes may be merged on it, or be sent in one piece.
    pub oversized: bool,
    /// Whether its other side, if it is a veth, has an XDP program in its driver: only then the kernel
    /// gives it another greatest MTU than 65535 (`veth_xdp_set`).
    pub faces_xdp: bool,
}

/// Settings of a VXLAN device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VxlanInfo {
    /// VXLAN network identifier; 0 where it comes with each packet.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// Whether it learns MACs from traffic.
    pub learning: bool,
    /// Whether the outer header carries the inner DSCP (`tos inherit`).
    pub copies_dscp: bool,
    /// UDP source ports, lowest and highest; 0 and 0: the system's range.
    pub source_ports: (u16, u16),
    /// Whether it has other settings than [`Netlink::create`] gives it.
    pub altered: bool,
}

impl Netlink {
    /// Every device, but those whose names the configuration cannot express either.
    pub async fn links(&self) -> Result<Vec<LinkInfo>> {
        let message = RouteNetlinkMessage::GetLink(question());
        self.dump("list devices", message, |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => LinkInfo::from_message(link),
            _ => None,
        })
        .await
    }

    /// A device by its name or an alternative name.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<LinkInfo>> {
        let mut message = question();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.link(message, name).await
    }

    /// A device by its index.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<LinkInfo>> {
        self.link(numbered(index), &format!("with ifindex {index}"))
            .await
    }

    async fn link(&self, message: LinkMessage, device: &str) -> Result<Option<LinkInfo>> {
        let found = self.link_message(message, device).await?;
        Ok(found.and_then(LinkInfo::from_message))
    }

    pub(super) async fn link_message(
        &self,
        message: LinkMessage,
        device: &str,
    ) -> Result<Option<LinkMessage>> {
        match self.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
            Err(refusal) if refusal.errno != Errno::ENODEV => {
                Err(refusal.during(format!("look at device {device}")))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Removes a device; a veth goes together with its other side.
    pub async fn delete_link(&self, index: u32) -> Result<()> {
        let message = RouteNetlinkMessage::DelLink(of(index));
        self.change(message, 0, index, |device| {
            format!("delete device {device}")
        })
        .await
    }

    /// Removes a device of the calling thread's namespace, and does not wait for what the kernel does
    /// when nobody can see it any more: until all have let go of it, and for a grace period of RCU with
    /// whatever waits for one (`rcu_barrier()` in `netdev_run_todo()`). Several go at once then.
    pub async fn delete_link_behind(&self, index: u32) -> Result<()> {
        let message = RouteNetlinkMessage::DelLink(of(index));
        let mut removal = spawn_blocking(move || blocking::change(message, 0));
        loop {
            let error = match timeout(LOOK_AGAIN, &mut removal).await {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(refusal))) => refusal.during(self.deletion(index).await),
                Ok(Err(panicked)) => {
                    KernelError::new(self.deletion(index).await, panicked.to_string())
                }
                Err(_) if self.link_by_index(index).await?.is_none() => return Ok(()),
                Err(_) => continue,
            };
            return Err(error);
        }
    }

    async fn deletion(&self, index: u32) -> String {
        format!("delete device {}", self.device(index).await)
    }

    /// Sets the administrative state.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let mut message = of(index);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let state = if up { "up" } else { "down" };
        self.set(message, |device| format!("set device {device} {state}"))
            .await
    }

    /// Sets the MTU, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let message = with(index, LinkAttribute::Mtu(mtu));
        self.set(message, |device| format!("set device {device} mtu {mtu}"))
            .await
    }

    /// Sets the hardware address.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let message = with(index, LinkAttribute::Address(mac.octets().to_vec()));
        self.set(message, |device| {
            format!("set device {device} address {mac}")
        })
        .await
    }

    /// Makes a device a port of the bridge with index `master`, or of none.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        let message = with(index, LinkAttribute::Controller(master.unwrap_or(0)));
        let bridge = match master {
            Some(master) => self.device(master).await,
            None => "none".to_owned(),
        };
        self.set(message, |device| {
            format!("set device {device} master {bridge}")
        })
        .await
    }

    /// Sets `IFLA_IFALIAS`, up to 255 bytes.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        let message = with(index, LinkAttribute::IfAlias(alias.to_owned()));
        self.set(message, |device| {
            format!("set device {device} alias {alias:?}")
        })
        .await
    }

    /// Gives a bridge, or a port of one, the settings that it was made with.
    pub async fn reset(&self, index: u32) -> Result<()> {
        let info = self.link_by_index(index).await?;
        // Flags live as long as the device is a port.
        if let Some(master) = info.and_then(|info| info.master) {
            self.set_master(index, None).await?;
            return self.set_master(index, Some(master)).await;
        }
        // With STP on there is no delay of 0.
        for settings in [bridge::without_stp(), bridge::made_with()] {
            let message = with(index, LinkAttribute::LinkInfo(settings));
            let message = RouteNetlinkMessage::NewLink(message);
            let operation = |device: &str| format!("set device {device} type bridge");
            self.change(message, 0, index, operation).await?;
        }
        Ok(())
    }

    pub(super) async fn set(
        &self,
        message: LinkMessage,
        operation: impl FnOnce(&str) -> String,
    ) -> Result<()> {
        let index = message.header.index;
        self.change(RouteNetlinkMessage::SetLink(message), 0, index, operation)
            .await
    }
}

impl LinkInfo {
    fn from_message(message: LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut name = None;
        let mut info = Self {
            index: message.header.index,
            name: "?".parse().ok()?,
            alternatives: Vec::new(),
            mac: None,
            layer: match message.header.link_layer_type {
                LinkLayerType::Ether => LinkLayer::Ethernet,
                LinkLayerType::Loopback => LinkLayer::Loopback,
                LinkLayerType::None
                | LinkLayerType::Ppp
                | LinkLayerType::Rawip
                | LinkLayerType::Tunnel
                | LinkLayerType::Tunnel6
                | LinkLayerType::Sit
                | LinkLayerType::Ipgre => LinkLayer::Ip,
                _ => LinkLayer::Other,
            },
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            master: None,
            peer_index: None,
            link_netnsid: None,
            alias: None,
            kind: None,
            vxlan: None,
            vrf_table: None,
            altered: false,
            oversized: sizes::are_too_big(&message.attributes),
            faces_xdp: false,
        };
        let mut most = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::PropList(props) => {
                    let names = props.into_iter().filter_map(|prop| match prop {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    });
                    info.alternatives.extend(names);
                }
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::Address(bytes) => info.mac = bytes.try_into().ok(),
                LinkAttribute::Mtu(mtu) => info.mtu = mtu,
                LinkAttribute::MaxMtu(mtu) => most = Some(mtu),
                LinkAttribute::Controller(index) => info.master = Some(index),
                LinkAttribute::Link(index) => info.peer_index = Some(index),
                LinkAttribute::LinkNetNsId(id) => info.link_netnsid = Some(id),
                LinkAttribute::IfAlias(alias) => info.alias = Some(alias),
                LinkAttribute::LinkInfo(kind) => info.set_kind(kind),
                _ => {}
            }
        }
        info.name = name?;
        let is_veth = info.kind.as_deref() == Some("veth");
        info.faces_xdp = is_veth && most.is_some_and(|mtu| mtu != VETH_MAX_MTU);
        Some(info)
    }

    fn set_kind(&mut self, attributes: Vec<link::LinkInfo>) {
        for attribute in attributes {
            match attribute {
                link::LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                link::LinkInfo::Data(InfoData::Vxlan(settings)) => {
                    self.vxlan = Some(VxlanInfo::from_attributes(&settings));
                }
                link::LinkInfo::Data(InfoData::Vrf(settings)) => {
                    self.vrf_table = settings.iter().find_map(|setting| match setting {
                        InfoVrf::TableId(table) => Some(*table),
                        _ => None,
                    });
                }
                link::LinkInfo::Data(InfoData::Bridge(settings)) => {
                    self.altered |= bridge::is_altered(&settings);
                }
                link::LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                    self.altered |= bridge::is_port_altered(&settings);
                }
                _ => {}
            }
        }
    }
}

/// The TOS that stands for that of the inner header, as `ip link` writes it.
pub(super) const TOS_INHERIT: u8 = 1;

impl VxlanInfo {
    fn from_attributes(settings: &[InfoVxlan]) -> Self {
        let mut info = Self::default();
        for setting in settings {
            match *setting {
                InfoVxlan::Id(vni) => info.vni = vni,
                InfoVxlan::Port(port) => info.port = port,
                InfoVxlan::Local(address) => info.local = Some(address.into()),
                InfoVxlan::Local6(address) => info.local = Some(address.into()),
                InfoVxlan::Learning(learning) => info.learning = learning,
                InfoVxlan::Tos(tos) => info.copies_dscp = tos == TOS_INHERIT,
                InfoVxlan::PortRange(ports) => info.source_ports = ports,
                InfoVxlan::Ttl(ttl) => info.altered |= ttl != OUTER_TTL,
                InfoVxlan::Group(_)
                | InfoVxlan::Group6(_)
                | InfoVxlan::Link(_)
                | InfoVxlan::Gbp
                | InfoVxlan::Gpe => info.altered = true,
                InfoVxlan::CollectMetadata(on)
                | InfoVxlan::Proxy(on)
                | InfoVxlan::Rsc(on)
                | InfoVxlan::L2Miss(on)
                | InfoVxlan::L3Miss(on)
                | InfoVxlan::RemCsumTX(on)
                | InfoVxlan::RemCsumRX(on) => info.altered |= on,
                InfoVxlan::TtlInherit(on) => info.altered |= on != 0,
                InfoVxlan::Label(label) => info.altered |= label != 0,
                _ => {}
            }
        }
        info
    }
}

/// A question for devices; their counters, half of each answer, are left out.
fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    message
}

pub(super) fn numbered(index: u32) -> LinkMessage {
    let mut message = question();
    message.header.index = index;
    message
}

pub(super) fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn with(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = of(index);
    message.attributes = vec![attribute];
    message
}
