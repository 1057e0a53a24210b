//! The network that tests of the programs take place in: one node, what is on it, and
//! what its maps know of others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_common::maps::FIRST_ENDPOINT_SLOT;
use overlay_tests::kernel::strips_other_family;

use crate::frames::Mac;

pub(crate) const VNI: u32 = 0x0012_3456;
pub(crate) const PORT: u16 = 4789;
pub(crate) const MTU: u16 = 1450;

/// This node: outer addresses, and the MACs of its tunnel ends.
pub(crate) const NODE: IpAddr = v4(192, 168, 56, 11);
pub(crate) const NODE_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 11];
pub(crate) const NODE6: IpAddr = v6(0xfd00, 0x56, 0, 0, 0x11);
pub(crate) const NODE6_MAC: Mac = [0x02, 0x36, 0, 0, 0, 0x11];

/// Its share of the network: the gateway and two endpoints.
pub(crate) const GATEWAY: IpAddr = v4(10, 244, 1, 1);
pub(crate) const GATEWAY6: IpAddr = v6(0xfd00, 0x244, 0, 1, 1);
pub(crate) const GATEWAY_MAC: Mac = [0x02, 0, 0, 0, 1, 1];
pub(crate) const WEB: IpAddr = v4(10, 244, 1, 10);
pub(crate) const WEB6: IpAddr = v6(0xfd00, 0x244, 0, 1, 0x10);
pub(crate) const WEB_MAC: Mac = [0x02, 0, 0, 0, 1, 10];
pub(crate) const DATABASE: IpAddr = v4(10, 244, 1, 11);
pub(crate) const DATABASE6: IpAddr = v6(0xfd00, 0x244, 0, 1, 0x11);
pub(crate) const DATABASE_MAC: Mac = [0x02, 0, 0, 0, 1, 11];
/// An endpoint that routes for others.
pub(crate) const ROUTER: IpAddr = v4(10, 244, 1, 12);
pub(crate) const ROUTER6: IpAddr = v6(0xfd00, 0x244, 0, 1, 0x12);
pub(crate) const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 1, 12];
/// What it is allowed to send from, one address of each family's prefix.
pub(crate) const BEHIND_ROUTER: IpAddr = v4(10, 99, 0, 7);
pub(crate) const BEHIND_ROUTER6: IpAddr = v6(0xfd00, 0x99, 0, 0, 7);

/// Where they count.
pub(crate) const WEB_SLOT: u32 = FIRST_ENDPOINT_SLOT;
pub(crate) const DATABASE_SLOT: u32 = FIRST_ENDPOINT_SLOT + 1;
pub(crate) const ROUTER_SLOT: u32 = FIRST_ENDPOINT_SLOT + 2;

/// A peer over IPv4 with 10.244.2.0/24 and `fd00:244:0:2::/64`, and one with 10.244.3.64/26
/// and `fd00:244:0:3:8000::/65` inside of the first one's 10.244.3.0/24 and
/// `fd00:244:0:3::/64`.
pub(crate) const PEER: IpAddr = v4(192, 168, 56, 12);
pub(crate) const PEER_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 12];
pub(crate) const PEER_INDEX: u32 = 1;
pub(crate) const REMOTE: IpAddr = v4(10, 244, 2, 10);
pub(crate) const REMOTE6: IpAddr = v6(0xfd00, 0x244, 0, 2, 0x10);
pub(crate) const REMOTE_TOO: IpAddr = v4(10, 244, 3, 10);
pub(crate) const REMOTE6_TOO: IpAddr = v6(0xfd00, 0x244, 0, 3, 0x10);
pub(crate) const OTHER_PEER: IpAddr = v4(192, 168, 56, 13);
pub(crate) const OTHER_PEER_MAC: Mac = [0x02, 0x4f, 192, 168, 56, 13];
pub(crate) const OTHER_PEER_INDEX: u32 = 2;
pub(crate) const OTHER_REMOTE: IpAddr = v4(10, 244, 3, 70);
pub(crate) const OTHER_REMOTE6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 0, 3, 0x8000, 0, 0, 0x70));
/// A peer over IPv6, whose last four bytes are those of the peer over IPv4.
pub(crate) const PEER6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x56, 0, 0, 0, 0, 0xc0a8, 0x380c));
pub(crate) const PEER6_MAC: Mac = [0x02, 0x36, 0, 0, 0, 0x12];
pub(crate) const PEER6_INDEX: u32 = 3;
pub(crate) const FAR: IpAddr = v4(10, 244, 6, 10);
pub(crate) const FAR6: IpAddr = v6(0xfd00, 0x244, 0, 6, 0x10);

/// Addresses behind nobody: masked to the shorter length they have the key of a longer prefix.
pub(crate) const BESIDE: IpAddr = v4(10, 244, 4, 70);
pub(crate) const BESIDE6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 0, 4, 0x8000, 0, 0, 0x70));
/// Addresses behind a peer to which the underlay has no way at the moment.
pub(crate) const BEHIND_CUT_OFF: IpAddr = v4(10, 244, 5, 10);
pub(crate) const BEHIND_CUT_OFF6: IpAddr = v6(0xfd00, 0x244, 0, 5, 0x10);
pub(crate) const CUT_OFF_INDEX: u32 = 4;
/// Addresses behind a peer over IPv6 that does not take packets without a checksum.
pub(crate) const CHECKING_PEER: IpAddr = v6(0xfd00, 0x56, 0, 0, 0x17);
pub(crate) const CHECKING_PEER_MAC: Mac = [0x02, 0x36, 0, 0, 0, 0x17];
pub(crate) const CHECKING_PEER_INDEX: u32 = 5;
pub(crate) const BEHIND_CHECKING: IpAddr = v4(10, 244, 7, 10);
pub(crate) const BEHIND_CHECKING6: IpAddr = v6(0xfd00, 0x244, 0, 7, 0x10);

/// Another network of the node.
pub(crate) const OTHER_VNI: u32 = 77;
pub(crate) const IN_OTHER_NETWORK: IpAddr = v4(10, 77, 1, 10);
pub(crate) const IN_OTHER_NETWORK6: IpAddr = v6(0xfd00, 0x77, 0, 1, 0x10);

/// Everybody else.
pub(crate) const WORLD: IpAddr = v4(9, 9, 9, 9);
pub(crate) const WORLD6: IpAddr = v6(0x2620, 0xfe, 0, 0, 9);
pub(crate) const STRANGER: IpAddr = v4(192, 168, 56, 99);
pub(crate) const STRANGER6: IpAddr = v6(0xfd00, 0x56, 0, 0, 0x99);

/// All [`ROADS`] but those that an older kernel's own tunnel has to take: before 6.3 a
/// program cannot strip headers of another family than those inside.
pub(crate) fn roads() -> Vec<Road> {
    let strips = strips_other_family();
    ROADS
        .into_iter()
        .filter(|road| strips || road.here.is_ipv4() == road.tunnel.peer.is_ipv4())
        .collect()
}

/// The four ways of a packet between two nodes: inner and outer families.
pub(crate) const ROADS: [Road; 4] = [
    Road::new(WEB, REMOTE, &OVER4),
    Road::new(WEB6, REMOTE6, &OVER4),
    Road::new(WEB, FAR, &OVER6),
    Road::new(WEB6, FAR6, &OVER6),
];

/// A container here, one there, and the tunnel between them.
#[derive(Clone, Copy)]
pub(crate) struct Road {
    pub(crate) here: IpAddr,
    pub(crate) there: IpAddr,
    pub(crate) tunnel: &'static Tunnel,
}

impl Road {
    const fn new(here: IpAddr, there: IpAddr, tunnel: &'static Tunnel) -> Self {
        Self {
            here,
            there,
            tunnel,
        }
    }

    /// This node's address in the network.
    pub(crate) fn gateway(&self) -> IpAddr {
        if self.here.is_ipv4() {
            GATEWAY
        } else {
            GATEWAY6
        }
    }

    /// Other addresses of the inner family.
    pub(crate) fn places(&self) -> &'static Places {
        &PLACES[usize::from(self.here.is_ipv6())]
    }

    /// Something to tell it by.
    pub(crate) fn name(&self) -> String {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("{} over {}", family(self.here), family(self.tunnel.node))
    }
}

/// The addresses of one family: what an endpoint here may send to, or claim to be.
pub(crate) struct Places {
    pub(crate) web: IpAddr,
    pub(crate) database: IpAddr,
    pub(crate) router: IpAddr,
    pub(crate) behind_router: IpAddr,
    pub(crate) gateway: IpAddr,
    /// This node's end of the tunnels.
    pub(crate) node: IpAddr,
    /// In this node's subnet, and nobody's.
    pub(crate) absent: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) other_remote: IpAddr,
    pub(crate) beside: IpAddr,
    pub(crate) cut_off: IpAddr,
    pub(crate) checking: IpAddr,
    pub(crate) other_network: IpAddr,
    pub(crate) world: IpAddr,
    pub(crate) multicast: IpAddr,
    pub(crate) unspecified: IpAddr,
    /// Addresses that nobody sends from.
    pub(crate) martians: [IpAddr; 3],
}

pub(crate) static PLACES: [Places; 2] = [
    Places {
        web: WEB,
        database: DATABASE,
        router: ROUTER,
        behind_router: BEHIND_ROUTER,
        gateway: GATEWAY,
        node: NODE,
        absent: v4(10, 244, 1, 99),
        remote: REMOTE,
        other_remote: OTHER_REMOTE,
        beside: BESIDE,
        cut_off: BEHIND_CUT_OFF,
        checking: BEHIND_CHECKING,
        other_network: IN_OTHER_NETWORK,
        world: WORLD,
        multicast: v4(239, 1, 2, 3),
        unspecified: v4(0, 0, 0, 0),
        martians: [v4(127, 0, 0, 1), v4(224, 0, 0, 1), v4(255, 255, 255, 255)],
    },
    Places {
        web: WEB6,
        database: DATABASE6,
        router: ROUTER6,
        behind_router: BEHIND_ROUTER6,
        gateway: GATEWAY6,
        node: NODE6,
        absent: v6(0xfd00, 0x244, 0, 1, 0x99),
        remote: REMOTE6,
        other_remote: OTHER_REMOTE6,
        beside: BESIDE6,
        cut_off: BEHIND_CUT_OFF6,
        checking: BEHIND_CHECKING6,
        other_network: IN_OTHER_NETWORK6,
        world: WORLD6,
        multicast: v6(0xff05, 0, 0, 0, 0x123),
        unspecified: v6(0, 0, 0, 0, 0),
        martians: [
            v6(0, 0, 0, 0, 1),
            v6(0xff02, 0, 0, 0, 1),
            // IPv4's loopback address in IPv6's form.
            IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1)),
        ],
    },
];

/// This node's and a peer's ends of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) node: IpAddr,
    pub(crate) node_mac: Mac,
    pub(crate) peer: IpAddr,
    pub(crate) peer_mac: Mac,
    pub(crate) index: u32,
    /// Bytes before the inner IP packet.
    pub(crate) overhead: usize,
    /// Somebody on this underlay who is no peer.
    pub(crate) stranger: IpAddr,
}

pub(crate) const OVER4: Tunnel = Tunnel {
    node: NODE,
    node_mac: NODE_MAC,
    peer: PEER,
    peer_mac: PEER_MAC,
    index: PEER_INDEX,
    overhead: 50,
    stranger: STRANGER,
};
pub(crate) const OVER6: Tunnel = Tunnel {
    node: NODE6,
    node_mac: NODE6_MAC,
    peer: PEER6,
    peer_mac: PEER6_MAC,
    index: PEER6_INDEX,
    overhead: 70,
    stranger: STRANGER6,
};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, c: u16, d: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, last))
}
