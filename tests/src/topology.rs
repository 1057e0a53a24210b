//! Names and addresses of a lab: pure arithmetic, no kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use overlay_common::wire;

use crate::{
    families::{Families, Family},
    shape::{Scenario, Shape},
};

/// MTU of the underlay: that of a veth and of an Ethernet that nobody tuned.
pub const UNDERLAY_MTU: u16 = 1500;
/// MTU of a container behind VXLAN on an IPv4 underlay.
pub const VXLAN_MTU: u16 = UNDERLAY_MTU - wire::OVERHEAD_V4;
/// MTU of a container behind VXLAN on an IPv6 underlay.
pub const VXLAN6_MTU: u16 = UNDERLAY_MTU - wire::OVERHEAD_V6;
/// Prefix length of the underlay in IPv6.
pub const UNDERLAY6_LENGTH: u8 = 64;
/// MTU of a tunnel of bare UDP: less an IPv4 header of 20 bytes and a UDP header of 8.
pub const TUN_MTU: u16 = UNDERLAY_MTU - 20 - 8;
/// The lab's interface to the underlay in each node.
pub const UNDERLAY: &str = "eth1";
/// The kernel's own port number for VXLAN, older than IANA's; flannel's too.
pub const FLANNEL_PORT: u16 = 8472;
/// The VNI of all VXLAN scenarios.
pub const VNI: u32 = 1;

/// A subnet of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// First address.
    pub base: Ipv4Addr,
    /// Prefix length.
    pub length: u8,
}

impl Subnet {
    const fn slash24(a: u8, b: u8, c: u8) -> Self {
        Self {
            base: Ipv4Addr::new(a, b, c, 0),
            length: 24,
        }
    }

    /// The address with this last byte.
    pub const fn host(self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.base.octets();
        Ipv4Addr::new(a, b, c, last)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// A subnet of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet6 {
    /// First address.
    pub base: Ipv6Addr,
    /// Prefix length.
    pub length: u8,
}

impl Subnet6 {
    /// The network of all containers, or with a node's number its share.
    const fn inside(node: u16, length: u8) -> Self {
        Self {
            base: Ipv6Addr::new(0xfd00, 0x244, 0, node, 0, 0, 0, 0),
            length,
        }
    }

    /// The address with this last byte.
    pub const fn host(self, last: u8) -> Ipv6Addr {
        let [a, b, c, d, ..] = self.base.segments();
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, last as u16)
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// A container and its addresses; the shape tells which of them it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Counted from 1 on its node.
    pub number: u8,
    /// Its network namespace, which is also its name.
    pub namespace: String,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    pub address6: Ipv6Addr,
}

impl Container {
    /// Its address of a family.
    pub const fn at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.address),
            Family::V6 => IpAddr::V6(self.address6),
        }
    }
}

/// A node, its share of the network and its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Counted from 1.
    pub number: u8,
    /// Its network namespace, which is also its name.
    pub namespace: String,
    /// Its IPv4 address on the underlay, where that has IPv4.
    pub underlay: Ipv4Addr,
    /// Its IPv6 address on the underlay, where that has IPv6.
    pub underlay6: Ipv6Addr,
    /// The IPv4 address of its card, where the one above is elsewhere.
    pub link: Ipv4Addr,
    /// The IPv6 address of its card, where the one above is elsewhere.
    pub link6: Ipv6Addr,
    /// The IPv4 addresses of its containers.
    pub subnet: Subnet,
    /// The IPv6 addresses of its containers.
    pub subnet6: Subnet6,
    /// The bridge's IPv4 address, where the scenario has a bridge.
    pub gateway: Option<Ipv4Addr>,
    /// Its containers.
    pub containers: Vec<Container>,
}

impl Node {
    /// Its address of a family on the underlay.
    pub const fn underlay_at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.underlay),
            Family::V6 => IpAddr::V6(self.underlay6),
        }
    }

    /// The address of a family that its card has where its VTEP is elsewhere.
    pub const fn link_at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.link),
            Family::V6 => IpAddr::V6(self.link6),
        }
    }

    /// The bridge's address of a family, where the scenario has a bridge.
    pub fn gateway_at(&self, family: Family) -> Option<IpAddr> {
        self.gateway.map(|gateway| match family {
            Family::V4 => gateway.into(),
            Family::V6 => self.subnet6.host(1).into(),
        })
    }

    /// The first address of its share of the network, which stands for its VTEP.
    pub const fn base_at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.subnet.base),
            Family::V6 => IpAddr::V6(self.subnet6.base),
        }
    }

    /// Its share of the network as it is written in configurations and routes.
    pub fn subnet_at(&self, family: Family) -> String {
        match family {
            Family::V4 => self.subnet.to_string(),
            Family::V6 => self.subnet6.to_string(),
        }
    }

    /// The MAC of its VXLAN device on an underlay of a family, by overlay's rule.
    pub fn vtep_mac(&self, family: Family) -> String {
        let mac = match family {
            Family::V4 => wire::vtep_mac(self.underlay.octets()),
            Family::V6 => wire::vtep6_mac(self.underlay6.octets()),
        };
        mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A shape with every name and address filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The shape it was made from.
    pub shape: Shape,
    /// The network of all containers in IPv4.
    pub network: Subnet,
    /// The network of all containers in IPv6.
    pub network6: Subnet6,
    /// Prefix length of the underlay in IPv4.
    pub underlay_length: u8,
    /// The nodes, in order of their numbers.
    pub nodes: Vec<Node>,
}

impl Topology {
    /// Numbers everything.
    pub fn new(shape: Shape) -> Self {
        // The talk that the first four scenarios come from has addresses of its own.
        let of_the_talk = match shape.scenario {
            Scenario::Single | Scenario::Bridge | Scenario::Direct | Scenario::Tun => true,
            Scenario::Container
            | Scenario::Vxlan
            | Scenario::Overlay
            | Scenario::Etcd
            | Scenario::Mixed => false,
        };
        let network = if of_the_talk {
            Subnet {
                base: Ipv4Addr::new(172, 16, 0, 0),
                length: 16,
            }
        } else {
            Subnet {
                base: Ipv4Addr::new(10, 244, 0, 0),
                length: 16,
            }
        };
        let nodes = (1..=shape.nodes)
            .map(|number| {
                let (underlay, subnet, first) = if of_the_talk {
                    let underlay = Ipv4Addr::new(10, 0, 0, 10 * number);
                    (underlay, Subnet::slash24(172, 16, number - 1), 2)
                } else {
                    let underlay = Ipv4Addr::new(192, 168, 56, 10 + number);
                    (underlay, Subnet::slash24(10, 244, number), 10)
                };
                let subnet6 = Subnet6::inside(number.into(), 64);
                let containers = (1..=shape.containers)
                    .map(|container| Container {
                        number: container,
                        namespace: shape.name.container(number, container),
                        address: subnet.host(first + container - 1),
                        address6: subnet6.host(first + container - 1),
                    })
                    .collect();
                Node {
                    number,
                    namespace: shape.name.node(number),
                    underlay,
                    underlay6: Ipv6Addr::new(0xfd00, 0x56, 0, 0, 0, 0, 0, number.into()),
                    link: Ipv4Addr::new(172, 31, 56, 10 + number),
                    link6: Ipv6Addr::new(0xfd00, 0x57, 0, 0, 0, 0, 0, number.into()),
                    subnet,
                    subnet6,
                    gateway: (shape.scenario != Scenario::Single).then(|| subnet.host(1)),
                    containers,
                }
            })
            .collect();
        Self {
            shape,
            network,
            network6: Subnet6::inside(0, 48),
            underlay_length: 24,
            nodes,
        }
    }

    /// The nodes of a lab that has two.
    ///
    /// # Panics
    /// When it has another number of them.
    pub fn two_nodes(&self) -> [&Node; 2] {
        match self.nodes.as_slice() {
            [one, other] => [one, other],
            nodes => panic!("{} nodes, and two were asked for", nodes.len()),
        }
    }

    /// The family of the tunnel between two nodes.
    ///
    /// On a dual-stack underlay neighbours by number meet over IPv4, the first and the third
    /// node over IPv6: two nodes have IPv4 alone, three have both.
    pub fn tunnel(&self, one: &Node, other: &Node) -> Family {
        match self.shape.underlay {
            Families::V4 => Family::V4,
            Families::Both if one.number.abs_diff(other.number) % 2 == 1 => Family::V4,
            Families::V6 | Families::Both => Family::V6,
        }
    }

    /// The families of a node's tunnels.
    pub fn tunnels(&self, node: &Node) -> Vec<Family> {
        let to_peers = || self.peers_of(node).map(|peer| self.tunnel(node, peer));
        [Family::V4, Family::V6]
            .into_iter()
            .filter(|&family| to_peers().any(|tunnel| tunnel == family))
            .collect()
    }

    /// The UDP port of the tunnels.
    pub fn port(&self) -> u16 {
        let usual = match self.shape.scenario {
            Scenario::Vxlan | Scenario::Etcd => FLANNEL_PORT,
            _ => wire::IANA_PORT,
        };
        self.shape.port.unwrap_or(usual)
    }

    /// The largest packet that a node's containers can send to every peer.
    pub fn vxlan_mtu(&self, node: &Node) -> u16 {
        if self.tunnels(node).contains(&Family::V6) {
            VXLAN6_MTU
        } else {
            VXLAN_MTU
        }
    }

    /// The network of all containers, in each family that it has.
    pub fn networks(&self) -> Vec<String> {
        let network = |family: &Family| match family {
            Family::V4 => self.network.to_string(),
            Family::V6 => self.network6.to_string(),
        };
        self.shape.inside.all().iter().map(network).collect()
    }

    /// The nodes that are not this one.
    pub fn peers_of(&self, node: &Node) -> impl Iterator<Item = &Node> {
        let number = node.number;
        self.nodes.iter().filter(move |peer| peer.number != number)
    }

    /// Two nodes are joined by one cable; otherwise they, or the only one, need a switch.
    pub fn switch(&self) -> Option<String> {
        (self.nodes.len() != 2).then(|| self.shape.name.switch())
    }

    /// Whether this node runs the agent.
    pub fn has_agent(&self, node: &Node) -> bool {
        match self.shape.scenario {
            Scenario::Container | Scenario::Overlay | Scenario::Etcd => true,
            Scenario::Mixed => node.number == 1,
            _ => false,
        }
    }

    /// Every namespace of the lab: switch, nodes, containers.
    pub fn namespaces(&self) -> Vec<String> {
        let of_node = |node: &Node| {
            let containers = node
                .containers
                .iter()
                .map(|container| container.namespace.clone());
            std::iter::once(node.namespace.clone())
                .chain(containers)
                .collect::<Vec<_>>()
        };
        self.switch()
            .into_iter()
            .chain(self.nodes.iter().flat_map(of_node))
            .collect()
    }

    /// Instances of the agent, one for each node that runs it.
    pub fn instances(&self) -> impl Iterator<Item = &str> {
        self.nodes
            .iter()
            .filter(|node| self.has_agent(node))
            .map(|node| node.namespace.as_str())
    }
}
