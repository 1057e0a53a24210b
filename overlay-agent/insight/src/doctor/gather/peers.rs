//! The peers: what they answer, and what is counted meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use overlay_common::{
    maps::{Count, PassedKey, PeerStats, SenderKey, SenderKind},
    programs::Program,
    reasons::{DropReason, Drops, PassReason, Passes},
    wire::{OVERHEAD_V4, OVERHEAD_V6},
};
use overlay_core::{
    desired::wireguard_name,
    model::{Family, IfName, Mac, Network, Peer, Range, WireGuard},
    objects::{AttachmentState, Hook},
    surroundings::Question,
};
use overlay_kernel::{
    self as kernel,
    netlink::{Answers, Reachability},
    statistics, wireguard,
};

use super::{Look, speak, told};
use crate::doctor::facts::{
    Answer, Device, Encrypted, Growth, Neighbour, NeighbourState, PeerFacts, Reach, Seen,
};

/// Peers that are spoken to.
const PEERS: usize = 64;
/// How long the kernel may take to ask a neighbour that it doubts: first it waits for a sign of
/// life, then it asks three times.
const DOUBT: Duration = Duration::from_secs(9);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What was seen of the peers, and counted.
pub(super) struct Watched {
    pub(super) peers: Vec<PeerFacts>,
    pub(super) growth: Seen<Growth>,
    /// Packets by underlay device.
    pub(super) received: BTreeMap<IfName, u64>,
}

/// Speaks to the peers for as long as counters are watched.
pub(super) async fn watch(
    look: &Look<'_>,
    underlay: &[Device],
    vteps: &[IpAddr],
    sample: Duration,
) -> kernel::Result<Watched> {
    let mut peers = peers(look, vteps).await?;
    let slots = slots(look, &peers);
    let start = Instant::now();
    // Programs count before devices do: what arrives in between must not seem to be missing.
    let before = count(look, &slots);
    let device_before = statistics::received()?;
    speak::speak(&mut peers, vteps, sample).await;
    handshakes(look, &mut peers);
    let device_after = statistics::received()?;
    let after = count(look, &slots);
    let time = start.elapsed();
    let received = underlay.iter().filter_map(|device| {
        let (before, after) = (
            device_before.get(&device.name)?,
            device_after.get(&device.name)?,
        );
        Some((device.name, after.saturating_sub(*before)))
    });
    let both = before.and_then(|before| after.map(|after| (before, after)));
    let growth = both.map(|(before, after)| {
        for (peer, (before, after)) in peers.iter_mut().zip(before.peers.iter().zip(&after.peers)) {
            peer.received = after.rx.packets.saturating_sub(before.rx.packets);
        }
        for (peer, slot) in peers.iter_mut().zip(&slots) {
            let misplaced = |counted: &Counted| slot.map_or(0, |slot| counted.misplaced(slot));
            peer.misplaced = misplaced(&after).saturating_sub(misplaced(&before));
            peer.passed = slot.map_or_else(Vec::new, |slot| passed(&before, &after, slot));
        }
        growth(&before, &after, time)
    });
    ask_for_neighbours(look, underlay, &mut peers).await?;
    Ok(Watched {
        peers,
        growth: growth.and_then(|growth| is_attached(look, underlay).map(|()| growth)),
        received: received.collect(),
    })
}

/// Counters mean something only where the programs run.
fn is_attached(look: &Look<'_>, underlay: &[Device]) -> Result<(), String> {
    let attachments = &look.observed.objects.attachments;
    let runs = |device: &Device| {
        let state = attachments.get(&(device.name, Hook::FromUnderlay));
        state.is_some_and(|state| *state != AttachmentState::Broken)
    };
    if underlay.iter().all(runs) {
        Ok(())
    } else {
        Err("the programs are not attached to the underlay".to_owned())
    }
}

/// The peers that there is a way to, as far as they are spoken to, with nothing asked yet.
async fn peers(look: &Look<'_>, vteps: &[IpAddr]) -> kernel::Result<Vec<PeerFacts>> {
    let mut found = Vec::new();
    let all = look.model.networks.iter().flat_map(|network| {
        let peers = network.peers.iter();
        peers.map(move |peer| (network, peer))
    });
    for (network, peer) in all.take(PEERS) {
        let way = look.observed.around.ways.get(&peer.vtep);
        let path = match way {
            Some(_) => {
                let mut own = vteps.iter().copied();
                let question = Question {
                    to: peer.vtep,
                    from: own.find(|vtep| Family::of(*vtep) == Family::of(peer.vtep)),
                    port: network.outer_port(),
                };
                look.node.netlink.way_of(question).await?
            }
            None => None,
        };
        let facts = look
            .networks
            .iter()
            .find(|facts| facts.name == network.name);
        let inside = facts.and_then(|facts| facts.mtu).unwrap_or_default();
        let overhead = match Family::of(peer.vtep) {
            Family::V4 => OVERHEAD_V4,
            Family::V6 => OVERHEAD_V6,
        };
        let encryption = network
            .wireguard
            .map_or(0, |_| WireGuard::overhead(Family::of(peer.vtep)));
        let overhead = overhead + u16::try_from(encryption).unwrap_or_default();
        let outside = if inside == 0 { 0 } else { inside + overhead };
        let reach = |size| Reach {
            size,
            ..Reach::default()
        };
        found.push(PeerFacts {
            name: peer.name.clone(),
            network: network.name.clone(),
            vni: network.vni,
            port: network.outer_port(),
            vtep: peer.vtep,
            inner: inner(network, peer),
            device: way.map(|way| way.link),
            path_mtu: path.and_then(|path| path.mtu),
            neighbour: way.map(|way| Neighbour {
                device: way.link,
                address: way.next_hop,
                mac: None,
                state: NeighbourState::Known,
            }),
            underlay: reach(outside),
            tunnel: reach(inside),
            port_answer: Answer::Unasked,
            received: 0,
            misplaced: 0,
            passed: Vec::new(),
            health: None,
            encrypted: None,
        });
    }
    Ok(found)
}

/// Nodes of ours have a gateway; what stands for a VTEP by flannel's rule is the first address.
fn inner(network: &Network, peer: &Peer) -> Option<IpAddr> {
    let subnet: IpNet = *peer.subnets.first()?;
    let is_ours = peer.mac == Mac::of_vtep(peer.vtep);
    let range = network.range(Family::of(subnet.addr()))?;
    let there = Range { subnet, ..*range };
    Some(if is_ours {
        there.gateway()
    } else {
        subnet.network()
    })
}

struct Counted {
    /// By program.
    drops: Vec<Drops>,
    passes: Vec<Passes>,
    peers: Vec<PeerStats>,
    /// Passes of packets whose peer is known.
    passed: BTreeMap<PassedKey, Count>,
    /// Drops whose sender is known.
    dropped: BTreeMap<SenderKey, Count>,
}

impl Counted {
    /// Packets of the peer of a slot with somebody else's inner source.
    fn misplaced(&self, slot: u32) -> u64 {
        let key = SenderKey {
            kind: SenderKind::Peer,
            slot,
            reason: DropReason::SourceNotBehindVtep,
        };
        self.dropped.get(&key).map_or(0, |count| count.packets)
    }
}

/// The slot of each peer's counters.
fn slots(look: &Look<'_>, peers: &[PeerFacts]) -> Vec<Option<u32>> {
    let vteps = &look.observed.objects.peers.entries.vteps;
    peers
        .iter()
        .map(|peer| vteps.get(&(peer.vni, peer.vtep)).copied())
        .collect()
}

fn count(look: &Look<'_>, slots: &[Option<u32>]) -> Seen<Counted> {
    let counted = look.node.with_maps(|maps| {
        let counters = maps.counters();
        let of_peers = counters.peers()?;
        let of = |slot: &Option<u32>| slot.and_then(|slot| of_peers.get(&slot).copied());
        let programs = Program::ALL.into_iter();
        Ok(Counted {
            drops: programs
                .clone()
                .map(|program| counters.drops(program))
                .collect::<kernel::Result<_>>()?,
            passes: programs
                .map(|program| counters.passes(program))
                .collect::<kernel::Result<_>>()?,
            peers: slots
                .iter()
                .map(|slot| of(slot).unwrap_or_default())
                .collect(),
            passed: counters.passes_by_peer()?,
            dropped: counters.drops_by_sender()?,
        })
    });
    told(counted)?.ok_or_else(|| "no maps are pinned".to_owned())
}

/// Packets of a slot's peer that were left to the kernel, by reason.
fn passed(before: &Counted, after: &Counted, slot: u32) -> Vec<(PassReason, u64)> {
    let packets = |counted: &Counted, reason| {
        let counted = counted.passed.get(&PassedKey { slot, reason });
        counted.map_or(0, |count| count.packets)
    };
    let reasons = PassReason::ALL.iter().copied();
    let grown = reasons.map(|reason| {
        let grown = packets(after, reason).saturating_sub(packets(before, reason));
        (reason, grown)
    });
    grown.filter(|(_, packets)| *packets > 0).collect()
}

fn growth(before: &Counted, after: &Counted, time: Duration) -> Growth {
    let drops = DropReason::ALL.iter().map(|&reason| {
        let of = |counted: &[Drops]| counted.iter().map(|drops| drops.of(reason).packets).sum();
        let (before, after): (u64, u64) = (of(&before.drops), of(&after.drops));
        (reason, after.saturating_sub(before))
    });
    let passes = PassReason::ALL.iter().map(|&reason| {
        let of = |counted: &[Passes]| counted.iter().map(|passes| passes.of(reason).packets).sum();
        let (before, after): (u64, u64) = (of(&before.passes), of(&after.passes));
        (reason, after.saturating_sub(before))
    });
    Growth {
        time,
        drops: drops.collect(),
        passes: passes.collect(),
    }
}

/// Sees what has become of the neighbours. Where one is silent the kernel is given the time to
/// find out whether it is still there.
async fn ask_for_neighbours(
    look: &Look<'_>,
    underlay: &[Device],
    peers: &mut [PeerFacts],
) -> kernel::Result<()> {
    let is_down = |name: IfName| {
        let mut devices = underlay.iter();
        devices.any(|device| device.name == name && !(device.up && device.running))
    };
    let neighbours = peers.iter().filter_map(|peer| peer.neighbour.as_ref());
    let devices: BTreeSet<IfName> = neighbours.map(|neighbour| neighbour.device).collect();
    let deadline = Instant::now() + DOUBT;
    loop {
        let mut tables: BTreeMap<IfName, Vec<Reachability>> = BTreeMap::new();
        for &device in &devices {
            if let Some(link) = look.observed.around.links.get(&device) {
                let found = look.node.netlink.reachabilities(link.index).await?;
                tables.insert(device, found);
            }
        }
        let mut doubt = false;
        for peer in peers.iter_mut() {
            let is_silent = !peer.underlay.is_answered() && !peer.tunnel.is_answered();
            let Some(neighbour) = &mut peer.neighbour else {
                continue;
            };
            let device = neighbour.device;
            let mut table = tables.get(&device).into_iter().flatten();
            if let Some(found) = table.find(|found| found.address == neighbour.address) {
                neighbour.mac = found.mac;
                neighbour.state = match found.state {
                    Answers::Yes | Answers::Doubtful => NeighbourState::Known,
                    Answers::No => NeighbourState::Unanswered,
                    Answers::Set => NeighbourState::Set,
                };
                doubt |= is_silent && found.state == Answers::Doubtful && !is_down(device);
            }
        }
        if !doubt || Instant::now() > deadline {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether encrypted peers and this node have agreed on keys, now that they were spoken to.
fn handshakes(look: &Look<'_>, peers: &mut [PeerFacts]) {
    let Some(own) = look.observed.around.public_key else {
        return;
    };
    for network in &look.model.networks {
        let device = wireguard_name(network.vni).filter(|_| network.wireguard.is_some());
        let link = device.and_then(|device| look.observed.around.links.get(&device));
        let Some(link) = link.filter(|link| link.ours) else {
            continue;
        };
        // What cannot be read accuses nobody.
        let Ok(info) = wireguard::read(link.index) else {
            continue;
        };
        for facts in peers.iter_mut().filter(|peer| peer.network == network.name) {
            let mut known = network.peers.iter();
            let peer = known.find(|peer| peer.name == facts.name);
            let Some(key) = peer.and_then(|peer| peer.public_key.as_deref()) else {
                continue;
            };
            let traffic = info.traffic.get(key);
            facts.encrypted = Some(Encrypted {
                own,
                peer: *key,
                handshake: traffic
                    .and_then(|traffic| traffic.handshake)
                    .and_then(|at| at.elapsed().ok()),
            });
        }
    }
}
