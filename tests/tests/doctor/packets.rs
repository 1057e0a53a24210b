//! What arrives and should not.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use overlay_common::wire::{IANA_PORT, VXLAN_FLAGS, vtep_mac};
use overlay_tests::{
    frames::{Ip, ethernet, udp, vxlan},
    raw::{self, Socket},
    topology::{UNDERLAY, VNI},
};

use crate::{fault::only_finding, stand::Stand};

/// Often enough to be many a second, also while counters are watched for a part of one.
const EVERY: Duration = Duration::from_millis(1);

/// A tunnel packet to the first node from the second's cable.
struct Packet {
    flags: u32,
    /// Whether the outer header has a UDP checksum, as a kernel's VXLAN device gives it one.
    summed: bool,
    vtep: Ipv4Addr,
    source: Ipv4Addr,
    /// Bytes behind the inner packet in its frame.
    padding: usize,
}

impl Packet {
    fn frame(&self, stand: &Stand) -> Result<Vec<u8>> {
        let [here, there, ..] = stand.guard.topology().nodes.as_slice() else {
            anyhow::bail!("three nodes were asked for");
        };
        let to = here.containers[0].address;
        let inner = Ip::new(IpAddr::from(self.source), to.into()).around_udp(1000, 9, b"nobody");
        let (mine, theirs) = (here.underlay.octets(), there.underlay.octets());
        let mut inner = ethernet(vtep_mac(mine), vtep_mac(theirs), 0x0800, &inner);
        inner.resize(inner.len() + self.padding, 0);
        let tunnel = vxlan(self.flags, VNI << 8, &inner);
        let outer = Ip::new(self.vtep.into(), here.underlay.into());
        let outer = if self.summed {
            outer.around_udp(50_000, IANA_PORT, &tunnel)
        } else {
            outer.around(&udp(50_000, IANA_PORT, 0, &tunnel))
        };
        let macs = [&here.namespace, &there.namespace].map(|node| raw::mac_of(node, UNDERLAY));
        let [to, from] = macs;
        Ok(ethernet(to?, from?, 0x0800, &outer))
    }
}

/// Sends a frame over and over while something is done.
fn while_sending<T>(
    namespace: &str,
    device: &str,
    frame: &[u8],
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let socket = Socket::open(namespace, device)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                socket.send(frame)?;
                thread::sleep(EVERY);
            }
            Ok(())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    })
}

#[test]
fn what_arrives_and_should_not_is_found_while_it_does() -> Result<()> {
    let stand = Stand::raise("tdocd")?;
    let topology = stand.guard.topology();
    let second = &topology.nodes[1];
    let good = Packet {
        flags: VXLAN_FLAGS,
        summed: false,
        vtep: second.underlay,
        source: second.containers[0].address,
        padding: 0,
    };
    let stranger = Packet {
        vtep: Ipv4Addr::new(192, 168, 56, 99),
        ..good
    };
    let foreign = Packet {
        source: topology.nodes[2].containers[0].address,
        ..good
    };
    let invalid = Packet { flags: 0, ..good };
    let unverified = Packet {
        summed: true,
        ..good
    };
    let padded = Packet { padding: 6, ..good };
    for (packet, check, object) in [
        (&stranger, "unknown-vtep", UNDERLAY),
        (&foreign, "source-not-behind-peer", "n2"),
        (&invalid, "packets-dropped", "invalid_vxlan_header"),
        (&unverified, "checksums-unverified", UNDERLAY),
        (&padded, "received-by-kernel", "n2"),
    ] {
        let frame = packet.frame(&stand)?;
        while_sending(&second.namespace, UNDERLAY, &frame, || {
            only_finding(&stand, check, object, || stand.diagnosis())
        })?;
        stand.is_healthy(check)?;
    }

    let mut frame = good.frame(&stand)?;
    // The checksum of the datagram inside is over this byte, too.
    if let Some(last) = frame.last_mut() {
        *last ^= 1;
    }
    let receiver = &topology.nodes[0].containers[0].namespace;
    while_sending(&second.namespace, UNDERLAY, &frame, || {
        only_finding(&stand, "checksums-wrong", receiver, || stand.diagnosis())
    })?;
    stand.is_healthy("datagrams with wrong checksums")?;

    let container = &topology.nodes[0].containers[0];
    let inner = Ip::new([10, 244, 1, 99].into(), second.containers[0].address.into());
    let own = raw::mac_of(&container.namespace, "eth0")?;
    let gateway = raw::mac_of(&stand.agent.instance, "ovlbr1")?;
    let frame = ethernet(
        gateway,
        own,
        0x0800,
        &inner.around_udp(1000, 9, b"somebody else"),
    );
    while_sending(&container.namespace, "eth0", &frame, || {
        only_finding(&stand, "spoofed-source", "containers", || stand.diagnosis())
    })?;
    stand.is_healthy("a container that used another's address")?;
    Ok(stand.guard.down()?)
}
