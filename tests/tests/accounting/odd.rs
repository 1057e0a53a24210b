//! Frames that do not take the fast path: passed and dropped for several reasons.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result};
use overlay_common::{
    reasons::{DropReason, PassReason},
    wire::{IANA_PORT, VXLAN_FLAGS, vtep_mac},
};
use overlay_tests::{
    frames::{Ip, Mac, ethernet, ethertype, udp, vxlan},
    raw::{self, Socket},
    topology::{Container, Node, UNDERLAY, VNI},
};

/// Frames of each kind.
pub(crate) const EACH: u64 = 2000;
/// Frames at a time: a small part of what a backlog holds.
const AT_ONCE: usize = 50;
const PAUSE: Duration = Duration::from_millis(2);
const BROADCAST: Mac = [0xff; 6];
const PAYLOAD: [u8; 32] = [0x5a; 32];

/// What must become of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Dropped(DropReason),
    Passed(PassReason),
}

/// A kind of frames, and where they are sent.
pub(crate) struct Odd {
    pub(crate) fate: Fate,
    pub(crate) frame: Vec<u8>,
}

/// Sends every kind [`EACH`] times, in turns.
pub(crate) fn send(device: &Socket, kinds: &[Odd]) -> Result<()> {
    let each = usize::try_from(EACH)?;
    for (number, odd) in (1..).zip(kinds.iter().cycle().take(each * kinds.len())) {
        device.send(&odd.frame)?;
        if number % AT_ONCE == 0 {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// What a container can send that is odd.
pub(crate) fn of_container(here: &Container, node: &Node, there: Ipv4Addr) -> Result<Vec<Odd>> {
    let mac = raw::mac_of(&here.namespace, "eth0")?;
    let gateway = node.gateway.context("a gateway")?;
    let gateway = raw::neighbour_of(&here.namespace, gateway.into())?;
    let ip = Ip::new(here.address.into(), there.into());
    let frame = |from: Mac, ip: &Ip| {
        ethernet(
            gateway,
            from,
            ethertype::IPV4,
            &ip.around_udp(1000, 9, &PAYLOAD),
        )
    };
    let mut other_mac = mac;
    other_mac[5] ^= 0x40;
    let claim = [
        &[0, 1, 8, 0, 6, 4, 0, 2][..],
        &mac,
        &there.octets(),
        &[0; 6],
        &there.octets(),
    ]
    .concat();
    let nowhere = Ipv4Addr::new(198, 51, 100, 7);
    let dropped = |reason, frame| Odd {
        fate: Fate::Dropped(reason),
        frame,
    };
    let passed = |reason, frame| Odd {
        fate: Fate::Passed(reason),
        frame,
    };
    let more_fragments = 0x2000;
    Ok(vec![
        dropped(DropReason::SpoofedSource, frame(other_mac, &ip)),
        dropped(
            DropReason::SpoofedSource,
            frame(mac, &Ip::new(nowhere.into(), there.into())),
        ),
        dropped(
            DropReason::SpoofedNeighbour,
            ethernet(BROADCAST, mac, ethertype::ARP, &claim),
        ),
        passed(PassReason::TtlExpired, frame(mac, &Ip { ttl: 1, ..ip })),
        passed(
            PassReason::Fragment,
            frame(
                mac,
                &Ip {
                    flags_and_offset: more_fragments,
                    ..ip
                },
            ),
        ),
        passed(
            PassReason::NoRoute,
            frame(mac, &Ip::new(here.address.into(), nowhere.into())),
        ),
    ])
}

/// What a node, and somebody who is none, can send to another node that is odd.
pub(crate) fn of_node(from: &Node, to: &Node) -> Result<Vec<Odd>> {
    let macs = (
        raw::mac_of(&to.namespace, UNDERLAY)?,
        raw::mac_of(&from.namespace, UNDERLAY)?,
    );
    let inner = Ip::new(
        from.containers[0].address.into(),
        to.containers[0].address.into(),
    );
    let inside = |kind, packet: &[u8]| {
        let vteps = (to.underlay.octets(), from.underlay.octets());
        ethernet(vtep_mac(vteps.0), vtep_mac(vteps.1), kind, packet)
    };
    let plain = |inner: &Ip| inside(ethertype::IPV4, &inner.around_udp(1000, 9, &PAYLOAD));
    let outer = |source: Ipv4Addr, flags: u32, frame: &[u8]| {
        let ip = Ip::new(source.into(), to.underlay.into());
        let datagram = udp(50_000, IANA_PORT, 0, &vxlan(flags, VNI << 8, frame));
        ethernet(macs.0, macs.1, ethertype::IPV4, &ip.around(&datagram))
    };
    let [a, b, c, _] = from.underlay.octets();
    let stranger = Ipv4Addr::new(a, b, c, 99);
    let foreign = Ip::new(Ipv4Addr::new(198, 51, 100, 7).into(), inner.destination);
    let martian = Ip::new(Ipv4Addr::LOCALHOST.into(), inner.destination);
    let in_vlan = [&[0, 7, 8, 0][..], &inner.around_udp(1000, 9, &PAYLOAD)].concat();
    let own = from.underlay;
    let dropped = |reason, frame| Odd {
        fate: Fate::Dropped(reason),
        frame,
    };
    Ok(vec![
        dropped(
            DropReason::UnknownVtep,
            outer(stranger, VXLAN_FLAGS, &plain(&inner)),
        ),
        dropped(
            DropReason::InvalidVxlanHeader,
            outer(own, VXLAN_FLAGS | 1, &plain(&inner)),
        ),
        dropped(
            DropReason::SourceNotBehindVtep,
            outer(own, VXLAN_FLAGS, &plain(&foreign)),
        ),
        dropped(
            DropReason::MartianSource,
            outer(own, VXLAN_FLAGS, &plain(&martian)),
        ),
        dropped(
            DropReason::InnerVlanTag,
            outer(own, VXLAN_FLAGS, &inside(ethertype::VLAN, &in_vlan)),
        ),
    ])
}
