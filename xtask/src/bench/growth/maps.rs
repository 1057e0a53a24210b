//! Peers in the maps of a node whose agent has ended, and what they cost its programs.

use std::{net::Ipv4Addr, ops::Range};

use anyhow::{Context as _, Error, Result, ensure};
use overlay_common::{
    maps::{
        self, AddressKey4, Endpoint, Network, PEERS4, PORTS, Peer, Port, PrefixKey4, VTEPS4, Vtep,
        mapped,
    },
    programs, wire,
};
use overlay_tests::{
    bpf::{Map, Program},
    counters, raw, run_time, topology,
    topology::VNI,
};

use super::{
    floor::Floor,
    frames::{self, Ends},
    peers,
};
use crate::bench::{
    labs::Way,
    load::{datagrams::Random, on},
    stats,
};

/// `TC_ACT_REDIRECT` of `linux/pkt_cls.h`: sent on, or delivered.
const REDIRECT: u32 = 7;

/// Packets of each flow, one after another.
const TRAIN: usize = 8;

/// Nanoseconds of a program's run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// For the first packet of a flow to or from a random peer.
    pub(super) first: f64,
    /// For those that follow it.
    pub(super) next: f64,
}

impl Cost {
    fn less(self, overhead: Self) -> Self {
        Self {
            first: self.first - overhead.first,
            next: self.next - overhead.next,
        }
    }
}

/// What both directions take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    pub(super) encapsulate: Cost,
    pub(super) decapsulate: Cost,
}

/// What overlay's programs take, and what none can do without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) overlay: Costs,
    pub(super) floor: Costs,
}

/// A node's programs and maps.
pub(super) struct Node {
    namespace: String,
    peers: Map<PrefixKey4, Peer>,
    vteps: Map<AddressKey4, Vtep>,
    from_endpoint: Program,
    from_underlay: Program,
    floor: Floor,
    /// The container that sends and receives: its device, and what the programs know of it.
    device: u32,
    port: Port,
    /// The real peer, which the others are made after.
    model: Peer,
    /// What arrives on the underlay must be addressed to it.
    underlay_mac: [u8; 6],
}

impl Node {
    pub(super) fn open(way: &Way, peer: &topology::Node) -> Result<Self> {
        let instance = &way.client_node;
        let peers: Map<PrefixKey4, Peer> = Map::open(&counters::pin(instance, PEERS4)?)?;
        let ports: Map<u32, Port> = Map::open(&counters::pin(instance, PORTS)?)?;
        let networks: Map<u32, Network> = Map::open(&counters::pin(instance, maps::NETWORKS)?)?;

        let mut found = None;
        for device in ports.keys()? {
            let mut port = ports.get(&device)?.context("a port has gone")?;
            with_length(&mut port.network);
            ports.set(&device, &port)?;
            networks.set(&VNI, &port.network)?;
            if port.address != [0; 4] {
                found.get_or_insert((device, port));
            }
        }
        let (device, port) = found.context("the node has no container")?;
        let endpoints: Map<AddressKey4, Endpoint> =
            Map::open(&counters::pin(instance, maps::ENDPOINTS4)?)?;
        for key in endpoints.keys()? {
            let mut endpoint = endpoints.get(&key)?.context("a container has gone")?;
            endpoint.network = port.network;
            endpoints.set(&key, &endpoint)?;
        }
        let real = prefix_key(peer.subnet.base.octets(), peer.subnet.length);
        let model = peers.get(&real)?.context("the other node is not a peer")?;
        let program = |name| Ok::<_, Error>(Program::by_id(run_time::find(instance, name)?)?);
        Ok(Self {
            namespace: instance.clone(),
            peers,
            vteps: Map::open(&counters::pin(instance, VTEPS4)?)?,
            from_endpoint: program(programs::FROM_ENDPOINT)?,
            from_underlay: program(programs::FROM_UNDERLAY)?,
            floor: Floor::load(instance)?,
            device,
            port,
            model,
            underlay_mac: raw::mac_of(instance, Way::UNDERLAY)?,
        })
    }

    /// Adds peers, with a slot of the counters each.
    pub(super) fn add(&self, new: Range<u32>) -> Result<()> {
        for number in new {
            let vtep = peers::vtep(number).octets();
            let index = self.model.index + 1 + number;
            let peer = Peer {
                vtep: mapped(vtep),
                index,
                mac: wire::vtep_mac(vtep),
                ..self.model
            };
            let prefix = peers::subnet(number).octets();
            self.peers.set(&prefix_key(prefix, peers::LENGTH), &peer)?;
            let key = AddressKey4 {
                vni: VNI,
                address: vtep,
            };
            self.vteps.set(&key, &Vtep { index })?;
        }
        Ok(())
    }

    /// Takes peers away again.
    pub(super) fn remove(&self, old: Range<u32>) -> Result<()> {
        for number in old {
            let prefix = peers::subnet(number).octets();
            self.peers.remove(&prefix_key(prefix, peers::LENGTH))?;
            self.vteps.remove(&AddressKey4 {
                vni: VNI,
                address: peers::vtep(number).octets(),
            })?;
        }
        Ok(())
    }

    /// What the programs take for packets to and from random ones of the peers.
    pub(super) fn cost(&self, core: usize, peers: u32, runs: usize) -> Result<Measured> {
        let underlay = self.model.underlay_ifindex;
        // What a packet's hash takes is the sending socket's cost, not the program's.
        let (hash, nothing) = (Program::hash()?, Program::nothing()?);
        let encapsulates = [&hash, &self.floor.encapsulate, &self.from_endpoint];
        let decapsulates = [&nothing, &self.floor.decapsulate, &self.from_underlay];
        on(&self.namespace, core, || {
            let [floor_out, out] =
                costs(encapsulates, self.device, runs, peers, |peer| self.to(peer))?;
            let [floor_in, into] =
                costs(decapsulates, underlay, runs, peers, |peer| self.from(peer))?;
            Ok(Measured {
                floor: Costs {
                    encapsulate: floor_out,
                    decapsulate: floor_in,
                },
                overlay: Costs {
                    encapsulate: out,
                    decapsulate: into,
                },
            })
        })
    }

    fn to(&self, peer: u32) -> Vec<u8> {
        let ends = Ends {
            source_mac: self.port.mac,
            destination_mac: self.port.network.gateway_mac,
            source: self.port.address.into(),
            destination: peers::container(peer),
        };
        frames::datagram(ends, 40_000)
    }

    fn from(&self, peer: u32) -> Vec<u8> {
        let (network, vtep) = (&self.port.network, peers::vtep(peer));
        let inner = Ends {
            source_mac: wire::vtep_mac(vtep.octets()),
            destination_mac: network.vtep_mac,
            source: peers::container(peer),
            destination: self.port.address.into(),
        };
        let outer = Ends {
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: self.underlay_mac,
            source: vtep,
            destination: Ipv4Addr::from(network.vtep),
        };
        frames::tunnelled(
            outer,
            wire::source_port(peer.wrapping_mul(0x9e37_79b9)),
            network.vni,
            &frames::datagram(inner, 40_000),
        )
    }
}

/// Adds the length of the new peers' prefixes to those that the programs look for; they
/// are longer than the lab's own.
fn with_length(network: &mut Network) {
    if network.peer_lengths4[0] != peers::LENGTH {
        network.peer_lengths4.rotate_right(1);
        network.peer_lengths4[0] = peers::LENGTH;
    }
}

fn prefix_key(prefix: [u8; 4], length: u8) -> PrefixKey4 {
    PrefixKey4 {
        vni: VNI,
        length: length.into(),
        prefix,
    }
}

/// What two programs take beyond one that does nothing. They take turns, and each meets peers of
/// its own, so that none is measured in better times than the others, or finds caches that
/// another one has filled.
fn costs(
    programs: [&Program; 3],
    device: u32,
    runs: usize,
    peers: u32,
    frame: impl Fn(u32) -> Vec<u8>,
) -> Result<[Cost; 2]> {
    let mut random = Random::new();
    let mut times = [(); 3].map(|()| Times::default());
    for _ in 0..runs {
        for (number, program) in programs.into_iter().enumerate() {
            let action = if number == 0 { 0 } else { REDIRECT };
            times[number].take(program, &frame(random.below(peers)), device, action)?;
        }
    }
    let [nothing, one, other] = times;
    let nothing = nothing.cost()?;
    Ok([one.cost()?.less(nothing), other.cost()?.less(nothing)])
}

/// Nanoseconds of each run.
#[derive(Default)]
struct Times {
    first: Vec<u32>,
    next: Vec<u32>,
}

impl Times {
    /// Runs a train of packets. Their frame was made just before, in the same memory as the last
    /// one: a heap of frames would push the maps out of the caches.
    fn take(&mut self, program: &Program, frame: &[u8], device: u32, action: u32) -> Result<()> {
        for place in 0..TRAIN {
            let run = program.run(frame, device)?;
            ensure!(
                run.action == action,
                "a program returned {} for a packet of growth, not {action}: the maps are not \
                 as the programs expect them",
                run.action
            );
            let samples = if place == 0 {
                &mut self.first
            } else {
                &mut self.next
            };
            samples.push(run.nanoseconds);
        }
        Ok(())
    }

    fn cost(self) -> Result<Cost> {
        let mean = |mut samples: Vec<u32>| {
            stats::mean_without_interrupts(&mut samples).context("no packets")
        };
        Ok(Cost {
            first: mean(self.first)?,
            next: mean(self.next)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;

    #[test]
    fn lengths_stay_sorted() {
        let mut network = Network::zeroed();
        network.peer_lengths4[0] = 24;
        with_length(&mut network);
        with_length(&mut network);
        assert_eq!(network.peer_lengths4[..3], [peers::LENGTH, 24, 0]);
    }
}
