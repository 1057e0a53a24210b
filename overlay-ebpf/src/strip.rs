//! The tunnel's headers taken off in XDP, so that GRO merges what was inside.
//!
//! The guard strips what it has judged as [`ingress`](crate::ingress) would, and puts a
//! note before it; [`from_underlay`](crate::ingress::from_underlay) delivers what has such
//! a note. Anything that is not delivered is left as it is, for the kernel's sake: its
//! VXLAN device must see the headers.

use core::ptr::read_volatile;

use network_types::eth::EthHdr;
use overlay_common::{journal::Step, reasons::DropReason};

use crate::{
    addresses::{Ip4, Ip6, Mac},
    decap::Delivery,
    family::Family,
    frame::Ethernet,
    headers::Headers,
    ingress::judge,
    journal::tell,
    outer::Outer,
    packet::Packet,
    raw::Raw,
    received::Received as _,
    verdict::{Exit, Sender, Sent, Way},
};

/// Not 0 in an object that strips; the agent sets it before the kernel verifies and, where
/// it is 0, leaves out all that follows.
#[unsafe(no_mangle)]
static STRIP: u32 = 0;

/// Marks a note of ours; no other program has a reason to write the same.
const MARK: u32 = 0x6f76_6c31;

const MARK_PLACE: usize = 0;
const INTERFACE: usize = 4;
const SENDER: usize = 8;
const ENDPOINT_MAC: usize = 12;
const GATEWAY_MAC: usize = 18;
const SLOT: usize = 24;
/// Bytes of a note: the kernel takes a multiple of 4, up to 32.
const LEN: usize = 28;

/// Whether the object was told to strip.
pub(crate) fn is_on() -> bool {
    // SAFETY: a static is valid to read; it is not the compiler that knows its value.
    unsafe { read_volatile(&raw const STRIP) != 0 }
}

/// Strips a packet in a tunnel over `O`, if it can be delivered.
pub(crate) fn strip<O: Family>(packet: &mut Raw, outer: &Outer<O>) -> Result<(), Exit> {
    let Some(inner) = Ethernet::of(packet, O::OVERHEAD.into()) else {
        return Ok(());
    };
    match inner.kind {
        Ip4::ETHER_TYPE => inside::<O, Ip4>(packet, outer, inner),
        Ip6::ETHER_TYPE => inside::<O, Ip6>(packet, outer, inner),
        _ => Ok(()),
    }
}

fn inside<O: Family, I: Family>(
    packet: &mut Raw,
    outer: &Outer<O>,
    inner: Ethernet,
) -> Result<(), Exit> {
    // What cannot be delivered is judged again, and counted, in an skb.
    let Ok(delivery) = judge::<O, I, _>(packet, outer, inner) else {
        return Ok(());
    };
    // To the kernel it stays addressed as it is: to this machine, and not to everybody.
    let Some(underlay) = Ethernet::of(packet, 0).filter(|to| !to.destination.is_for_many()) else {
        return Ok(());
    };
    let ethernet = Ethernet {
        kind: I::ETHER_TYPE,
        ..underlay
    };
    if packet.reserve_note::<LEN>().is_none() || packet.strip(O::OVERHEAD).is_none() {
        return Ok(());
    }
    // From here on the packet is changed: it is sent, or dropped.
    I::write(packet, 0, &ethernet, Some(&delivery.forwarded))
        .and_then(|()| {
            let mut note = packet.note::<LEN>()?;
            write(&mut note, &delivery);
            tell(Step::Stripped, []);
            Some(())
        })
        .ok_or(Exit::Drop(DropReason::ResizeFailed, delivery.sender))
}

fn write(note: &mut Headers<'_, LEN>, delivery: &Delivery) {
    note.write::<u32, MARK_PLACE>(MARK);
    note.write::<u32, INTERFACE>(delivery.endpoint.ifindex);
    note.write::<u32, SENDER>(delivery.sender.0);
    let mac = Mac::from(delivery.endpoint.mac);
    note.write::<u32, ENDPOINT_MAC>(mac.head);
    note.write::<u16, { ENDPOINT_MAC + 4 }>(mac.tail);
    let mac = Mac::from(delivery.endpoint.network.gateway_mac);
    note.write::<u32, GATEWAY_MAC>(mac.head);
    note.write::<u16, { GATEWAY_MAC + 4 }>(mac.tail);
    note.write::<u32, SLOT>(delivery.endpoint.slot);
}

/// What the guard noted of a packet that it has stripped.
pub(crate) struct Note {
    interface: u32,
    sender: Sender,
    endpoint_mac: Mac,
    gateway_mac: Mac,
    /// The endpoint's.
    slot: u32,
}

impl Note {
    /// The note before a packet, if it has one of ours.
    #[inline(always)]
    pub(crate) fn before(packet: &mut Packet) -> Option<Self> {
        let note = packet.note::<LEN>()?;
        (note.read::<u32, MARK_PLACE>() == MARK).then(|| Self {
            interface: note.read::<u32, INTERFACE>(),
            sender: Sender(note.read::<u32, SENDER>()),
            endpoint_mac: Mac {
                head: note.read::<u32, ENDPOINT_MAC>(),
                tail: note.read::<u16, { ENDPOINT_MAC + 4 }>(),
            },
            gateway_mac: Mac {
                head: note.read::<u32, GATEWAY_MAC>(),
                tail: note.read::<u16, { GATEWAY_MAC + 4 }>(),
            },
            slot: note.read::<u32, SLOT>(),
        })
    }
}

/// Delivers a packet, or what GRO made of several, as its note says.
pub(crate) fn deliver(packet: &mut Packet, note: &Note) -> Result<Sent, Exit> {
    tell(Step::Noted, [note.interface.into()]);
    let gone = || Exit::Drop(DropReason::ResizeFailed, note.sender);
    // Devices take tags off before XDP could see them: what stands beside the inner frame now
    // was the outer one's.
    if packet.is_in_vlan() {
        return Err(Exit::Drop(DropReason::InnerVlanTag, note.sender));
    }
    if packet.has_vlan_tag() {
        packet.forget_priority_tag().map_err(|_| gone())?;
    }
    let mut headers = packet.headers::<{ EthHdr::LEN }>(0).ok_or_else(gone)?;
    Ethernet::readdress(&mut headers, note.endpoint_mac, note.gateway_mac);
    packet.forget_queue();
    packet.deliver_through(note.interface);
    tell(Step::Delivered, [note.interface.into()]);
    Ok(Sent {
        way: Way::FromPeer {
            peer: note.sender.0,
            to: note.slot,
        },
        bytes: packet.length(),
    })
}
