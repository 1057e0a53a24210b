//! The observations of an examination. Nothing is judged here.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use overlay_common::reasons::{DropReason, PassReason};
use overlay_core::{
    desired::{Obstacle, Problem},
    filter::Ruleset,
    model::{FastPath, IfName, Mac, Name, PublicKey, Vni},
    objects::Hook,
    surroundings::NoGuard,
    trouble::Trouble,
};

use super::{commands::Commands, leftovers::Leftover};

/// Something that was looked at, or why it was not.
pub(super) type Seen<T> = Result<T, String>;

/// All of it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) commands: Commands,
    pub(super) machine: Machine,
    pub(super) agent: AgentFacts,
    /// Obstacles for the agent, and objects that it has to leave out.
    pub(super) obstacles: Vec<Obstacle>,
    pub(super) problems: Vec<Problem>,
    /// Why nothing guards the tunnels' ports on the kernel's path.
    pub(super) no_guard: Option<NoGuard>,
    /// Kernel settings by path below `/proc/sys`.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) networks: Vec<NetworkFacts>,
    /// This node's outer addresses.
    pub(super) vteps: Vec<IpAddr>,
    pub(super) underlay: Vec<Device>,
    /// Every address of the node, with its device, and whether it may be used.
    pub(super) addresses: Vec<NodeAddress>,
    pub(super) ruleset: Seen<Ruleset>,
    /// Rules of chained plugins for addresses that nobody has.
    pub(super) leftovers: Seen<BTreeMap<IpAddr, Leftover>>,
    /// Tables of `iptables-legacy`, which nftables does not show.
    pub(super) legacy_tables: Vec<String>,
    /// Where programs of ours should run and do not.
    pub(super) detached: Vec<(IfName, Hook)>,
    pub(super) ahead: Seen<Vec<Ahead>>,
    pub(super) foreign_xdp: Seen<Vec<ForeignXdp>>,
    pub(super) peers: Vec<PeerFacts>,
    pub(super) diverted: Seen<Vec<Diverted>>,
    pub(super) maps: Seen<Vec<MapUse>>,
    pub(super) growth: Seen<Growth>,
    pub(super) wrong_checksums: Seen<Vec<WrongChecksums>>,
    pub(super) containers: Vec<Container>,
}

/// Facts about the machine, not the network.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// As `uname -r` prints it.
    pub(super) release: String,
    /// Where pins go, and why they cannot.
    pub(super) bpffs: PathBuf,
    pub(super) no_bpffs: Option<String>,
    /// Why privileges do not suffice.
    pub(super) unprivileged: Option<String>,
}

/// Facts about the instance's agent.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that does not depend on the others"
)]
pub(super) struct AgentFacts {
    /// Whether it runs.
    pub(super) running: bool,
    /// All that it knows is not as it should be.
    pub(super) troubles: Vec<Trouble>,
    /// Whether its program is another one on the disk by now.
    pub(super) replaced: bool,
    /// Whether an operator has switched the fast path off.
    pub(super) fastpath_off: bool,
    /// Whether the instance has made anything here.
    pub(super) established: bool,
}

impl AgentFacts {
    /// Whether the agent knows of a fault.
    pub(super) fn says(&self, id: &str) -> bool {
        self.troubles.iter().any(|trouble| trouble.id == id)
    }
}

/// A network of this node.
#[derive(Clone, Debug)]
pub(super) struct NetworkFacts {
    pub(super) name: Name,
    pub(super) port: u16,
    pub(super) fastpath: FastPath,
    pub(super) mtu: Option<u16>,
    pub(super) bridge: IfName,
    /// Its VXLAN devices that are there.
    pub(super) tunnels: Vec<IfName>,
    pub(super) cidrs: Vec<IpNet>,
    pub(super) subnets: Vec<IpNet>,
}

/// A device of the underlay.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: IfName,
    pub(super) up: bool,
    /// Whether it has a carrier.
    pub(super) running: bool,
    /// `IFLA_INFO_KIND`; empty for hardware.
    pub(super) kind: String,
    /// Features that it has and does not use, by their names in `ethtool -k`.
    pub(super) unused_features: Seen<Vec<String>>,
    /// Whether all of a peer's tunnel packets come to one of its receive queues; `None` when it has one,
    /// or does not tell.
    pub(super) one_queue: Seen<Option<bool>>,
    /// Packets that it has received while it was watched.
    pub(super) received: u64,
}

/// An address of a device of the node.
#[derive(Clone, Debug)]
pub(super) struct NodeAddress {
    pub(super) device: IfName,
    pub(super) net: IpNet,
    pub(super) usable: bool,
}

/// Programs of others that have their turn before ours.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    pub(super) device: IfName,
    pub(super) hook: Hook,
    pub(super) programs: Vec<OtherProgram>,
}

/// A program of somebody else.
#[derive(Clone, Debug)]
pub(super) struct OtherProgram {
    pub(super) id: u32,
    pub(super) name: String,
    /// The command that takes it off, as far as there is one.
    pub(super) removal: Option<String>,
}

/// An XDP program of somebody else on the underlay.
#[derive(Clone, Debug)]
pub(super) struct ForeignXdp {
    pub(super) device: IfName,
    pub(super) program: OtherProgram,
}

/// A peer, and what came of speaking to it.
#[derive(Clone, Debug)]
pub(super) struct PeerFacts {
    pub(super) name: Name,
    pub(super) network: Name,
    pub(super) vni: Vni,
    pub(super) port: u16,
    pub(super) vtep: IpAddr,
    /// An address behind it that answers, if it is there: its gateway, or what stands for its
    /// VXLAN device.
    pub(super) inner: Option<IpAddr>,
    /// The device that leads there; without one there is no way.
    pub(super) device: Option<IfName>,
    /// MTU of the path, as far as the kernel has learned or was told that it is less than the
    /// device's.
    pub(super) path_mtu: Option<u32>,
    pub(super) neighbour: Option<Neighbour>,
    /// What its outer address answers, and what its inner one.
    pub(super) underlay: Reach,
    pub(super) tunnel: Reach,
    /// The outcome of a datagram to the port of its tunnel.
    pub(super) port_answer: Answer,
    /// Packets by the fast path that came from it while it was watched.
    pub(super) received: u64,
    /// Those that were dropped because their inner source is not behind it.
    pub(super) misplaced: u64,
    /// Likewise those that were left to the kernel, by reason.
    pub(super) passed: Vec<(PassReason, u64)>,
    /// What probes in the tunnel tell, where there are any.
    pub(super) health: Option<Health>,
    /// How its tunnel is encrypted, if it is.
    pub(super) encrypted: Option<Encrypted>,
}

/// The keys of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encrypted {
    /// This node's.
    pub(super) own: PublicKey,
    /// The peer's, as it is configured here.
    pub(super) peer: PublicKey,
    /// How long ago both have agreed on keys; `None`: never.
    pub(super) handshake: Option<Duration>,
}

/// The outcomes of datagrams of two sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Bytes of the larger one, with its IP header.
    pub(super) size: u16,
    pub(super) large: Answer,
    /// It is sent only when the other one is not answered.
    pub(super) small: Answer,
}

impl Reach {
    pub(super) fn is_answered(self) -> bool {
        self.large == Answer::Answered || self.small == Answer::Answered
    }

    /// Small ones arrive, and of large ones nothing is heard.
    pub(super) fn vanishes(self) -> bool {
        self.large == Answer::Silent && self.small == Answer::Answered
    }
}

/// The outcome of a datagram to a closed port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// None was sent.
    #[default]
    Unasked,
    /// Its receiver, or a filter before it, has refused it: it was there.
    Answered,
    /// A router has told that it is too big.
    TooBig,
    /// Nothing came back.
    Silent,
}

/// The underlay neighbour that leads to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) device: IfName,
    pub(super) address: IpAddr,
    pub(super) mac: Option<Mac>,
    pub(super) state: NeighbourState,
}

/// The kernel's state of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeighbourState {
    /// It has answered, or is believed to be there.
    Known,
    /// Somebody has set it, and nobody asks.
    Set,
    /// It was asked and has not answered.
    Unanswered,
}

/// What probes in the tunnel tell of a peer; `None` where they do not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How long ago anything came from it.
    pub last_heard: Option<Duration>,
    /// How long ago it last answered.
    pub last_answered: Option<Duration>,
    /// Round-trip time of that answer.
    pub rtt: Option<Duration>,
    /// Bytes of the largest packet that came through.
    pub largest: Option<u16>,
    /// `false` where it is heard and says again and again that it does not hear us.
    pub heard_by_peer: Option<bool>,
    /// Its agent's version,
    pub version: Option<String>,
    /// and the layout of its maps.
    pub abi: Option<u32>,
}

/// An address in a network whose packets the node sends elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Diverted {
    pub(super) network: Name,
    pub(super) address: IpAddr,
    /// Where they should go, and where they do.
    pub(super) expected: Vec<IfName>,
    pub(super) device: String,
    /// What leads them there.
    pub(super) by: Diversion,
}

/// What leads packets astray.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Diversion {
    /// A route of the main table.
    Route(IpNet),
    /// A rule to another table.
    Rule {
        priority: u32,
        table: u32,
    },
    Unknown,
}

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapUse {
    pub(super) name: &'static str,
    pub(super) used: usize,
    pub(super) capacity: usize,
}

/// What has been counted while counters were watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    pub(super) time: Duration,
    pub(super) drops: Vec<(DropReason, u64)>,
    pub(super) passes: Vec<(PassReason, u64)>,
}

impl Growth {
    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        let mut drops = self.drops.iter();
        drops
            .find(|(of, _)| *of == reason)
            .map_or(0, |(_, count)| *count)
    }

    pub(super) fn passed(&self, reason: PassReason) -> u64 {
        let mut passes = self.passes.iter();
        passes
            .find(|(of, _)| *of == reason)
            .map_or(0, |(_, count)| *count)
    }
}

/// Packets of UDP and TCP that arrived with wrong checksums while it was watched.
#[derive(Clone, Debug)]
pub(super) struct WrongChecksums {
    /// The node, or a container's name.
    pub(super) receiver: String,
    pub(super) packets: u64,
}

/// Facts about a container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) name: Name,
    pub(super) network: Name,
    pub(super) netns: PathBuf,
    pub(super) interface: IfName,
    /// In bytes; `None` when there is no such interface.
    pub(super) mtu: Option<u32>,
    /// Addresses in the network that are not its own, with their devices.
    pub(super) more_addresses: Vec<(IpNet, String)>,
    /// Ways into the network that do not begin as they should.
    pub(super) astray: Vec<Astray>,
}

/// A way out of a container that it should not take.
#[derive(Clone, Debug)]
pub(super) struct Astray {
    /// Where it should lead.
    pub(super) destination: IpAddr,
    /// Whose route it is.
    pub(super) route: Option<IpNet>,
    pub(super) device: String,
    pub(super) via: Option<IpAddr>,
    /// The gateway that it should go through.
    pub(super) gateway: IpAddr,
    /// MTU of the route, if that is less than the network's.
    pub(super) mtu: Option<u32>,
}
