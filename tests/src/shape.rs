//! The shape of a lab: its scenario and size.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    families::Families,
    names::{InvalidName, LabName},
    uplink::Uplink,
};

/// One way of connecting containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Containers made by hand, with all that keeps them apart, on nodes that run overlay's agent.
    Container,
    /// One container on one node, joined by a veth.
    Single,
    /// Several containers on one node, joined by a bridge.
    Bridge,
    /// Nodes that route to each other's containers.
    Direct,
    /// Two nodes with a UDP tunnel in user space.
    Tun,
    /// The kernel's VXLAN device, set up as flannel does.
    Vxlan,
    /// overlay's agent on every node.
    Overlay,
    /// overlay's agent on every node, and etcd, which alone tells them of each other.
    Etcd,
    /// overlay's agent on the first node, the kernel's VXLAN alone on the others.
    Mixed,
}

impl Scenario {
    /// Every scenario, in the order in which one learns from them.
    pub const ALL: [Self; 9] = [
        Self::Container,
        Self::Single,
        Self::Bridge,
        Self::Direct,
        Self::Tun,
        Self::Vxlan,
        Self::Overlay,
        Self::Etcd,
        Self::Mixed,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Single => "single",
            Self::Bridge => "bridge",
            Self::Direct => "direct",
            Self::Tun => "tun",
            Self::Vxlan => "vxlan",
            Self::Overlay => "overlay",
            Self::Etcd => "etcd",
            Self::Mixed => "mixed",
        }
    }

    /// One line for `--help`.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Container => {
                "containers from scratch: seven namespaces, cgroup, pivot_root; on the overlay"
            }
            Self::Single => "one container on one node, joined by a veth",
            Self::Bridge => "two containers on one node, joined by a bridge",
            Self::Direct => "two nodes that route to each other's containers",
            Self::Tun => "two nodes with a UDP tunnel in user space, by socat",
            Self::Vxlan => "the kernel's VXLAN device, set up as flannel does",
            Self::Overlay => "overlay's agent on every node",
            Self::Etcd => "overlay's agent on every node, whose peers come from etcd",
            Self::Mixed => "overlay's agent on node 1, the kernel's VXLAN alone on the others",
        }
    }

    /// Whether nodes of this scenario run the agent.
    pub const fn needs_agent(self) -> bool {
        matches!(
            self,
            Self::Container | Self::Overlay | Self::Etcd | Self::Mixed
        )
    }

    /// Whether it comes with IPv6.
    pub const fn has_ipv6(self) -> bool {
        matches!(
            self,
            Self::Container | Self::Vxlan | Self::Overlay | Self::Mixed
        )
    }

    /// Nodes: fewest, default, most.
    const fn nodes(self) -> Range {
        match self {
            Self::Single | Self::Bridge => Range::exactly(1),
            Self::Tun => Range::exactly(2),
            // 10.0.0.10, .20 … .250
            Self::Direct => Range {
                least: 1,
                default: 2,
                most: 25,
            },
            Self::Etcd => Range {
                least: 1,
                default: 3,
                most: 100,
            },
            Self::Mixed => Range {
                least: 2,
                default: 2,
                most: 100,
            },
            Self::Container | Self::Vxlan | Self::Overlay => Range {
                least: 1,
                default: 2,
                most: 100,
            },
        }
    }

    /// Containers per node: fewest, default, most.
    const fn containers(self) -> Range {
        match self {
            Self::Single => Range::exactly(1),
            _ => Range {
                least: 1,
                default: 2,
                most: 100,
            },
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text)
            .ok_or_else(|| ShapeError::UnknownScenario(text.to_owned()))
    }
}

#[derive(Clone, Copy)]
struct Range {
    least: u8,
    default: u8,
    most: u8,
}

impl Range {
    const fn exactly(count: u8) -> Self {
        Self {
            least: count,
            default: count,
            most: count,
        }
    }

    fn pick(
        self,
        asked: Option<u8>,
        scenario: Scenario,
        what: &'static str,
    ) -> Result<u8, ShapeError> {
        let count = asked.unwrap_or(self.default);
        if (self.least..=self.most).contains(&count) {
            return Ok(count);
        }
        Err(ShapeError::Count {
            scenario,
            what,
            count,
            least: self.least,
            most: self.most,
        })
    }
}

/// A lab that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// No name for a lab.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// No scenario of this name.
    #[error(
        "there is no scenario {0:?}: choose container, single, bridge, direct, tun, vxlan, overlay, etcd or mixed"
    )]
    UnknownScenario(String),
    /// The scenario does not come in this size.
    #[error("scenario {scenario} with {count} {what}: it takes {least} to {most}")]
    Count {
        /// The scenario asked for.
        scenario: Scenario,
        /// The counted objects.
        what: &'static str,
        /// How many were asked for.
        count: u8,
        /// Fewest possible.
        least: u8,
        /// Most possible.
        most: u8,
    },
    /// The scenario is older than IPv6.
    #[error("scenario {0} has IPv4 alone here: choose vxlan, overlay or mixed for IPv6")]
    OnlyIpv4(Scenario),
    /// The scenario has its tunnels on cards alone.
    #[error(
        "scenario {scenario} has no underlay {uplink} here: choose overlay or container for it"
    )]
    OnlyCard {
        /// The scenario asked for.
        scenario: Scenario,
        /// What its tunnels were to run on.
        uplink: Uplink,
    },
    /// A TUN device has one other end.
    #[error("underlay tun joins two nodes, not {0}")]
    OnlyTwoNodes(u8),
}

/// The parameters of a lab: the same shape always gives the same lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Prefix of all names.
    pub name: LabName,
    /// How the containers are connected.
    pub scenario: Scenario,
    /// Number of nodes.
    pub nodes: u8,
    /// Number of containers on each node.
    pub containers: u8,
    /// Address families of the underlay.
    #[serde(default)]
    pub underlay: Families,
    /// What the nodes' tunnels run on.
    #[serde(default)]
    pub uplink: Uplink,
    /// Address families of the containers.
    #[serde(default)]
    pub inside: Families,
    /// The UDP port of the tunnels, when it is not the scenario's usual one.
    #[serde(default)]
    pub port: Option<u16>,
}

impl Shape {
    /// A lab of the asked size, or of the scenario's usual one.
    pub fn new(
        name: LabName,
        scenario: Scenario,
        nodes: Option<u8>,
        containers: Option<u8>,
    ) -> Result<Self, ShapeError> {
        let nodes = scenario.nodes().pick(nodes, scenario, "nodes")?;
        let containers = scenario
            .containers()
            .pick(containers, scenario, "containers a node")?;
        Ok(Self {
            name,
            scenario,
            nodes,
            containers,
            underlay: Families::V4,
            uplink: Uplink::Card,
            inside: Families::V4,
            port: None,
        })
    }

    /// A lab of this size.
    pub fn of(
        name: &str,
        scenario: Scenario,
        nodes: u8,
        containers: u8,
    ) -> Result<Self, ShapeError> {
        Self::new(name.parse()?, scenario, Some(nodes), Some(containers))
    }

    /// The same lab with its tunnels on another UDP port.
    #[must_use]
    pub fn on_port(self, port: u16) -> Self {
        Self {
            port: Some(port),
            ..self
        }
    }

    /// The same lab in these protocols.
    pub fn speaking(self, underlay: Families, inside: Families) -> Result<Self, ShapeError> {
        if (underlay, inside) != (Families::V4, Families::V4) && !self.scenario.has_ipv6() {
            return Err(ShapeError::OnlyIpv4(self.scenario));
        }
        Ok(Self {
            underlay,
            inside,
            ..self
        })
    }

    /// The same lab with its tunnels on something else than cards.
    pub fn on_uplink(self, uplink: Uplink) -> Result<Self, ShapeError> {
        let scenario = self.scenario;
        let is_chosen = matches!(scenario, Scenario::Overlay | Scenario::Container);
        if uplink != Uplink::Card && !is_chosen {
            return Err(ShapeError::OnlyCard { scenario, uplink });
        }
        if uplink == Uplink::Tun && self.nodes != 2 {
            return Err(ShapeError::OnlyTwoNodes(self.nodes));
        }
        Ok(Self { uplink, ..self })
    }

    /// The scenario's usual size.
    pub fn usual(name: &str, scenario: Scenario) -> Result<Self, ShapeError> {
        Self::new(name.parse()?, scenario, None, None)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        write!(
            f,
            "lab \"{}\" ({}, {} node{}, {} container{} on each",
            self.name,
            self.scenario,
            self.nodes,
            plural(self.nodes),
            self.containers,
            plural(self.containers)
        )?;
        if (self.underlay, self.inside) != (Families::V4, Families::V4) {
            write!(f, ", {} over {}", self.inside.text(), self.underlay.text())?;
        }
        if self.uplink != Uplink::Card {
            write!(f, ", tunnels on {}", self.uplink)?;
        }
        f.write_str(")")
    }
}
