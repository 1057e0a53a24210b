//! Packets of an ordinary day, damaged with some knowledge of where it hurts.

use overlay_common::programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD};

use super::corpus::Input;
use crate::{
    traffic::{from_node, from_remote, to_remote},
    world::ROADS,
};

/// Values at which lengths, flags and types turn over.
const BYTES: [u8; 12] = [0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x60, 0x7f, 0x80, 0xff];
/// Protocols and extension headers, where one byte decides what follows.
const PROTOCOLS: [u8; 10] = [0, 1, 6, 17, 41, 43, 44, 51, 58, 60];
/// Ethernet types: IPv4, ARP, VLAN, IPv6, and none.
const TYPES: [u16; 6] = [0x0800, 0x0806, 0x8100, 0x88a8, 0x86dd, 0x05dc];
/// Where Ethernet types and protocols stand in plain and in tunnelled packets, by family.
const TYPE_PLACES: [usize; 3] = [12, 62, 82];
const PROTOCOL_PLACES: [usize; 6] = [20, 23, 70, 73, 90, 93];
/// Everything that a program reads lies before this place.
const HEADERS: usize = 160;

/// Packets, each of which follows from the seed and its number.
pub(super) struct Mutator {
    random: Random,
    seeds: Vec<Input>,
}

impl Mutator {
    pub(super) fn new(seed: u64) -> Self {
        let input = |program: &str, packet: Vec<u8>| Input {
            program: program.to_owned(),
            segment: 0,
            packet,
        };
        Self {
            random: Random(seed),
            seeds: ROADS
                .iter()
                .flat_map(|road| {
                    [
                        input(FROM_ENDPOINT, to_remote(road)),
                        input(FROM_HOST, from_node(road)),
                        input(FROM_UNDERLAY, from_remote(road)),
                        input(UNDERLAY_GUARD, from_remote(road)),
                    ]
                })
                .collect(),
        }
    }

    /// The next packet: now and then whole, mostly with a few things wrong.
    pub(super) fn next(&mut self) -> Input {
        let mut input = self.seed();
        for _ in 0..self.random.below(4) {
            self.damage(&mut input.packet);
        }
        if self.random.below(8) == 0 {
            input.segment = self.random.number(2_000);
        }
        // A packet that entered at the wrong hook.
        if self.random.below(16) == 0 {
            input.program = self.seed().program;
        }
        input
    }

    fn seed(&mut self) -> Input {
        let index = self.random.below(self.seeds.len());
        self.seeds[index].clone()
    }

    fn damage(&mut self, packet: &mut Vec<u8>) {
        let random = &mut self.random;
        let place = random.below(packet.len().clamp(1, HEADERS));
        match random.below(10) {
            0 => set(packet, place, &[random.byte()]),
            1 => flip(packet, place, 1 << random.below(8)),
            2 => set(packet, place, &[BYTES[random.below(BYTES.len())]]),
            3 => {
                // Near the packet's own length, where a length field contradicts it.
                let length = packet.len() + 8 - random.below(64).min(packet.len());
                set(packet, place & !1, &short(length));
            }
            4 => set(
                packet,
                TYPE_PLACES[random.below(TYPE_PLACES.len())],
                &TYPES[random.below(TYPES.len())].to_be_bytes(),
            ),
            5 => set(
                packet,
                PROTOCOL_PLACES[random.below(PROTOCOL_PLACES.len())],
                &[PROTOCOLS[random.below(PROTOCOLS.len())]],
            ),
            6 => packet.truncate(random.below(packet.len() + 1)),
            7 => packet.resize(packet.len() + random.below(128), random.byte()),
            8 => {
                // As an option, an extension header or a tag would.
                let size = [2, 4, 8, 20, 40][random.below(5)];
                let bytes: Vec<u8> = (0..size).map(|_| random.byte()).collect();
                let place = place.min(packet.len());
                packet.splice(place..place, bytes);
            }
            _ => {
                // The head of one packet before the tail of another.
                let other = self.seed().packet;
                if place < other.len() {
                    packet.truncate(place);
                    packet.extend_from_slice(&other[place.min(packet.len())..]);
                }
            }
        }
    }
}

fn set(packet: &mut [u8], place: usize, bytes: &[u8]) {
    if let Some(field) = packet.get_mut(place..place + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

fn flip(packet: &mut [u8], place: usize, bits: u8) {
    if let Some(byte) = packet.get_mut(place) {
        *byte ^= bits;
    }
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): any seed will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn number(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
