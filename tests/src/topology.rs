//! What a lab consists of: pure arithmetic, no kernel.

use std::{fmt, net::Ipv4Addr};

use overlay_common::wire;

use crate::shape::{Scenario, Shape};

/// MTU of the underlay: that of a veth and of an Ethernet that nobody tuned.
pub const UNDERLAY_MTU: u16 = 1500;
/// What a container may send through VXLAN on an IPv4 underlay.
pub const VXLAN_MTU: u16 = UNDERLAY_MTU - wire::OVERHEAD_V4;
/// What fits a tunnel of bare UDP: less an IPv4 header of 20 bytes and a UDP header of 8.
pub const TUN_MTU: u16 = UNDERLAY_MTU - 20 - 8;
/// The lab's interface to the underlay in each node.
pub const UNDERLAY: &str = "eth1";
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

/// A container and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Counted from 1 on its node.
    pub number: u8,
    /// Its network namespace, which is also its name.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A node, its share of the network and its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Counted from 1.
    pub number: u8,
    /// Its network namespace, which is also its name.
    pub namespace: String,
    /// Its address on the underlay.
    pub underlay: Ipv4Addr,
    /// The addresses of its containers.
    pub subnet: Subnet,
    /// The bridge's address, where the scenario has a bridge.
    pub gateway: Option<Ipv4Addr>,
    /// What it hosts.
    pub containers: Vec<Container>,
}

/// A shape with every name and address filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What it was made from.
    pub shape: Shape,
    /// The network of all containers.
    pub network: Subnet,
    /// Prefix length of the underlay.
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
            Scenario::Vxlan | Scenario::Overlay | Scenario::Mixed => false,
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
                let containers = (1..=shape.containers)
                    .map(|container| Container {
                        number: container,
                        namespace: shape.name.container(number, container),
                        address: subnet.host(first + container - 1),
                    })
                    .collect();
                Node {
                    number,
                    namespace: shape.name.node(number),
                    underlay,
                    subnet,
                    gateway: (shape.scenario != Scenario::Single).then(|| subnet.host(1)),
                    containers,
                }
            })
            .collect();
        Self {
            shape,
            network,
            underlay_length: 24,
            nodes,
        }
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
            Scenario::Overlay => true,
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
