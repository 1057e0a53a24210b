//! Peers in the maps of a node whose agent has ended, and what they cost its programs.

use std::{net::Ipv4Addr, ops::Range};

use anyhow::{Context as _, Result, ensure};
use overlay_common::{
    maps::{self, AddressKey4, Network, PEERS4, PORTS, Peer, Port, PrefixKey4, VTEPS4, Vtep},
    programs, wire,
};
use overlay_tests::{counters, topology, topology::VNI};

use super::{
    bpf::{Map, Program},
    frames::{self, Ends},
    peers,
};
use crate::bench::{
    labs::Way,
    load::{datagrams::Random, on},
    measure, stats,
};

/// `TC_ACT_REDIRECT` of `linux/pkt_cls.h`: sent on, or delivered.
const REDIRECT: u32 = 7;

/// Nanoseconds of a program's run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) encapsulate: f64,
    pub(super) decapsulate: f64,
}

/// A node's programs and maps.
pub(super) struct Node {
    namespace: String,
    peers: Map<PrefixKey4, Peer>,
    vteps: Map<AddressKey4, Vtep>,
    from_endpoint: Program,
    from_underlay: Program,
    /// The container that sends and receives: its device, and what the programs know of it.
    device: u32,
    port: Port,
    /// The real peer, which the others are made after.
    model: Peer,
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
            with_mask(&mut port.network);
            ports.set(&device, &port)?;
            networks.set(&VNI, &port.network)?;
            if port.address != [0; 4] {
                found.get_or_insert((device, port));
            }
        }
        let (device, port) = found.context("the node has no container")?;
        let real = PrefixKey4 {
            vni: VNI,
            prefix: peer.subnet.base.octets(),
        };
        let model = peers.get(&real)?.context("the other node is no peer")?;
        let program = |name| Program::by_id(measure::program(instance, name)?);
        Ok(Self {
            namespace: instance.clone(),
            peers,
            vteps: Map::open(&counters::pin(instance, VTEPS4)?)?,
            from_endpoint: program(programs::FROM_ENDPOINT)?,
            from_underlay: program(programs::FROM_UNDERLAY)?,
            device,
            port,
            model,
        })
    }

    /// Adds peers, with a slot of the counters each.
    pub(super) fn add(&self, new: Range<u32>) -> Result<()> {
        for number in new {
            let vtep = peers::vtep(number).octets();
            let index = self.model.index + 1 + number;
            let peer = Peer {
                vtep,
                subnet_mask: peers::mask(),
                index,
                mac: wire::vtep_mac(vtep),
                ..self.model
            };
            let prefix = peers::subnet(number).octets();
            self.peers.set(&PrefixKey4 { vni: VNI, prefix }, &peer)?;
            let key = AddressKey4 {
                vni: VNI,
                address: vtep,
            };
            self.vteps.set(&key, &Vtep { index })?;
        }
        Ok(())
    }

    /// What the programs take for packets to and from random ones of the peers.
    pub(super) fn cost(&self, core: usize, peers: u32, runs: usize) -> Result<Cost> {
        let underlay = self.model.underlay_ifindex;
        let sent = || numbers(peers, runs).map(|peer| self.to(peer));
        let arriving = || numbers(peers, runs).map(|peer| self.from(peer));
        on(&self.namespace, core, || {
            let nothing = Program::nothing()?;
            let overhead = mean(&nothing, sent(), self.device, 0)?;
            let encapsulate = mean(&self.from_endpoint, sent(), self.device, REDIRECT)?;
            let decapsulate = mean(&self.from_underlay, arriving(), underlay, REDIRECT)?;
            Ok(Cost {
                encapsulate: encapsulate - overhead,
                decapsulate: decapsulate - overhead,
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
            destination_mac: [2, 0, 0, 0, 0, 1],
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
fn with_mask(network: &mut Network) {
    let mask = peers::mask();
    if network.peer_masks[0] != mask {
        network.peer_masks.rotate_right(1);
        network.peer_masks[0] = mask;
    }
}

fn numbers(peers: u32, count: usize) -> impl Iterator<Item = u32> {
    let mut random = Random::new();
    std::iter::repeat_with(move || random.below(peers)).take(count)
}

/// Each frame is made just before it is run, in the same memory as the one before: a heap
/// of frames would push the maps out of the caches.
fn mean(
    program: &Program,
    frames: impl Iterator<Item = Vec<u8>>,
    device: u32,
    action: u32,
) -> Result<f64> {
    let mut samples = Vec::new();
    for frame in frames {
        let run = program.run(&frame, device)?;
        ensure!(
            run.action == action,
            "a program returned {} for a packet of growth, not {action}: the maps are not as \
             the programs expect them",
            run.action
        );
        samples.push(run.nanoseconds);
    }
    stats::mean_without_interrupts(&mut samples).context("no packets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;

    #[test]
    fn masks_stay_sorted_by_length() {
        let mut network = Network::zeroed();
        network.peer_masks[0] = [255, 255, 255, 0];
        with_mask(&mut network);
        with_mask(&mut network);
        let masks = &network.peer_masks[..3];
        assert_eq!(masks, [peers::mask(), [255, 255, 255, 0], [0; 4]]);
    }
}
