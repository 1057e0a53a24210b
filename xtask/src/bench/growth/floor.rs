//! What a program cannot do without.
//!
//! Two hand-assembled programs make the calls to the kernel that overlay's make for a packet,
//! and look up what theirs look up, in the same maps: the device or the container, the peer,
//! the peer's counters. They check nothing and write no header, so what is sent is no packet
//! for anybody. No program that finds peers in hash maps takes less time.

use std::{
    mem::offset_of,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::Result;
use overlay_common::maps::{
    ENDPOINTS4, Endpoint, PEER_STATS, PEERS4, PORTS, Peer, PeerStats, Port,
};
use overlay_tests::{
    assembly::{
        EXIT, Instruction, STACK, add, and, call, copy, helper, instruction, load, set, set_long,
        set_map, skip_if_any, skip_if_no_more, store, store_value,
    },
    bpf::{Program, pinned_map},
    counters,
    topology::VNI,
};

use super::peers;

/// Where the context stays while other registers come and go.
const PACKET: u8 = 6;
const PEER_INDEX: u8 = 7;
const DEVICE: u8 = 8;

/// Bytes of the tunnel over IPv4.
const OVERHEAD: i16 = overlay_common::wire::OVERHEAD_V4.cast_signed();
const SOURCE: i16 = 14 + 12;
const DESTINATION: i16 = 14 + 16;

/// The programs of a node.
pub(super) struct Floor {
    pub(super) encapsulate: Program,
    pub(super) decapsulate: Program,
}

impl Floor {
    /// Loads the programs, over the maps of an instance.
    pub(super) fn load(instance: &str) -> Result<Self> {
        let map = |name| pinned_map(&counters::pin(instance, name)?);
        let maps = Maps {
            ports: map(PORTS)?,
            endpoints: map(ENDPOINTS4)?,
            peers: map(PEERS4)?,
            stats: map(PEER_STATS)?,
        };
        Ok(Self {
            encapsulate: Program::load(&encapsulate(&maps)?)?,
            decapsulate: Program::load(&decapsulate(&maps)?)?,
        })
    }
}

struct Maps {
    ports: OwnedFd,
    endpoints: OwnedFd,
    peers: OwnedFd,
    stats: OwnedFd,
}

fn encapsulate(maps: &Maps) -> Result<Vec<Instruction>> {
    /// Where `struct __sk_buff` has `ifindex`.
    const IFINDEX: i16 = 40;
    let mut code = vec![
        copy(PACKET, 1),
        load(2, PACKET, IFINDEX),
        store(STACK, -4, 2),
    ];
    look_up(&mut code, &maps.ports, -4);
    code.push(load(DEVICE, 0, offset_of!(Port, network).try_into()?));
    look_up_peer(&mut code, maps, DESTINATION)?;
    code.push(load(
        DEVICE,
        0,
        offset_of!(Peer, underlay_ifindex).try_into()?,
    ));
    code.extend([copy(1, PACKET), call(helper::FLOW_HASH)]);
    // BPF_F_ADJ_ROOM_*: FIXED_GSO, ENCAP_L3_IPV4, ENCAP_L4_UDP, NO_CSUM_RESET, ENCAP_L2_ETH; the
    // length of the inner Ethernet header stands in the highest byte.
    adjust_room(&mut code, OVERHEAD, 14 << 24, 0x73);
    count(&mut code, maps, offset_of!(PeerStats, tx))?;
    code.extend([copy(1, DEVICE), set(2, 0), set(3, 0), set(4, 0)]);
    code.extend([call(helper::REDIRECT_NEIGH), EXIT]);
    Ok(code)
}

fn decapsulate(maps: &Maps) -> Result<Vec<Instruction>> {
    /// `BPF_CSUM_LEVEL_DEC`
    const ONE_LESS: i32 = 2;
    let mut code = vec![copy(PACKET, 1)];
    load_word(&mut code, OVERHEAD + DESTINATION);
    code.extend([store(STACK, -4, 5), store_value(STACK, -8, vni()?)]);
    look_up(&mut code, &maps.endpoints, -8);
    code.push(load(DEVICE, 0, offset_of!(Endpoint, ifindex).try_into()?));
    look_up_peer(&mut code, maps, OVERHEAD + SOURCE)?;
    // BPF_F_ADJ_ROOM_*: FIXED_GSO, NO_CSUM_RESET.
    adjust_room(&mut code, -OVERHEAD, 0, 0x21);
    code.extend([
        copy(1, PACKET),
        set(2, ONE_LESS),
        call(helper::CHECKSUM_LEVEL),
    ]);
    count(&mut code, maps, offset_of!(PeerStats, rx))?;
    code.extend([copy(1, DEVICE), set(2, 0)]);
    code.extend([call(helper::REDIRECT_PEER), EXIT]);
    Ok(code)
}

fn vni() -> Result<i32> {
    Ok(VNI.try_into()?)
}

/// `r5 = the word of the packet at offset`
fn load_word(code: &mut Vec<Instruction>, offset: i16) {
    /// Where `struct __sk_buff` has the first byte of the packet, and the end of them.
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    code.extend([
        load(2, PACKET, DATA),
        load(3, PACKET, DATA_END),
        copy(4, 2),
        add(4, i32::from(offset) + 4),
        skip_if_no_more(4, 3, 2),
        set(0, 0),
        EXIT,
        load(5, 2, offset),
    ]);
}

/// `r0 = the value`, with the key on the stack; without one, the program ends.
fn look_up(code: &mut Vec<Instruction>, map: &OwnedFd, key: i16) {
    code.extend(set_map(1, map.as_raw_fd()));
    code.extend([
        copy(2, STACK),
        add(2, key.into()),
        call(helper::MAP_LOOKUP),
        skip_if_any(0, 1),
        EXIT,
    ]);
}

/// `r0 = the peer of the address at offset`, and its index into its register.
fn look_up_peer(code: &mut Vec<Instruction>, maps: &Maps, offset: i16) -> Result<()> {
    let length = peers::LENGTH;
    let mask = (u32::MAX << (32 - length)).to_be().cast_signed();
    load_word(code, offset);
    code.extend([
        and(5, mask),
        store(STACK, -4, 5),
        store_value(STACK, -8, length.into()),
        store_value(STACK, -12, vni()?),
    ]);
    look_up(code, &maps.peers, -12);
    code.push(load(PEER_INDEX, 0, offset_of!(Peer, index).try_into()?));
    Ok(())
}

fn adjust_room(code: &mut Vec<Instruction>, by: i16, high_flags: i32, flags: i32) {
    /// `BPF_ADJ_ROOM_MAC`
    const BEHIND_ETHERNET: i32 = 1;
    code.extend([copy(1, PACKET), set(2, by.into()), set(3, BEHIND_ETHERNET)]);
    code.extend(set_long(4, high_flags, flags));
    code.push(call(helper::ADJUST_ROOM));
}

/// Counts a packet for the peer.
fn count(code: &mut Vec<Instruction>, maps: &Maps, counter: usize) -> Result<()> {
    let counter = counter.try_into()?;
    code.push(store(STACK, -4, PEER_INDEX));
    look_up(code, &maps.stats, -4);
    code.extend([
        // *(u64 *)(r0 + counter) += 1
        instruction(0x79, 1, 0, counter, 0),
        add(1, 1),
        instruction(0x7b, 0, 1, counter, 0),
    ]);
    Ok(())
}
