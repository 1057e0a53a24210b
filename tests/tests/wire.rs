//! What overlay puts on the underlay, seen by tcpdump, decoded by tshark.

use anyhow::{Context as _, Result};
use overlay_common::wire::{IANA_PORT, OUTER_TTL, vtep_mac};
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::Family,
    guard::Guard,
    topology::{Node, VNI},
    traffic::Pair,
    wire::{Capture, Packet},
};

/// Pings and datagrams that each test sends.
const PINGS: u64 = 20;
const DATAGRAMS: usize = 20;

fn mac(node: &Node) -> String {
    vtep_mac(node.underlay.octets())
        .map(|byte| format!("{byte:02x}"))
        .join(":")
}

/// Asserts every field of the outer headers that `sender` must write for `receiver`.
fn is_well_formed(packet: &Packet, sender: &Node, receiver: &Node) -> Result<()> {
    let outer = |layer, field| {
        packet
            .outer(layer, field)
            .with_context(|| format!("{field} in {packet:#?}"))
    };
    let inner = |layer, field| {
        packet
            .inner(layer, field)
            .with_context(|| format!("{field} in {packet:#?}"))
    };

    assert!(!packet.is_malformed(), "{packet:#?}");
    assert!(
        packet
            .protocols()
            .starts_with("eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:"),
        "{packet:#?}"
    );
    assert_eq!(outer("ip", "ip.src")?, sender.underlay.to_string());
    assert_eq!(outer("ip", "ip.dst")?, receiver.underlay.to_string());
    assert_eq!(outer("ip", "ip.hdr_len")?, "20");
    assert_eq!(outer("ip", "ip.ttl")?, OUTER_TTL.to_string());
    assert_eq!(outer("ip", "ip.dsfield")?, "0x00");
    assert_eq!(outer("ip", "ip.flags.df")?, "0");
    assert_eq!(outer("ip", "ip.flags.mf")?, "0");
    assert_eq!(outer("ip", "ip.frag_offset")?, "0");
    assert_eq!(
        outer("ip", "ip.checksum.status")?,
        "1",
        "outer IP checksum: {packet:#?}"
    );

    let port: u16 = outer("udp", "udp.srcport")?.parse()?;
    assert!((49_152..=65_535).contains(&port), "source port {port}");
    assert_eq!(outer("udp", "udp.dstport")?, IANA_PORT.to_string());
    assert_eq!(outer("udp", "udp.checksum")?, "0x0000");
    let ip_length: u16 = outer("ip", "ip.len")?.parse()?;
    assert_eq!(outer("udp", "udp.length")?, (ip_length - 20).to_string());

    assert_eq!(outer("vxlan", "vxlan.vni")?, VNI.to_string());
    // The I flag alone; the reserved bits are sent as 0 (RFC 7348 §5).
    assert_eq!(outer("vxlan", "vxlan.flags")?, "0x0800");
    assert_eq!(outer("vxlan", "vxlan.reserved8")?, "0");

    assert_eq!(inner("eth", "eth.src")?, mac(sender));
    assert_eq!(inner("eth", "eth.dst")?, mac(receiver));
    assert_eq!(inner("ip", "ip.ttl")?, "63", "a router takes one");
    assert_eq!(
        inner("ip", "ip.checksum.status")?,
        "1",
        "inner IP checksum: {packet:#?}"
    );
    Ok(())
}

/// Sends pings and datagrams from the first node's first container to the second's.
fn talk(guard: &Guard) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    for _ in 0..PINGS {
        assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    }
    let pair = Pair::between(from, to, Family::V4);
    Ok(pair.udp(&[64; DATAGRAMS])?)
}

#[test]
fn what_the_fast_path_sends_is_vxlan_to_the_letter() -> Result<()> {
    let guard = Guard::overlay("twire")?;
    let nodes = &guard.topology().nodes;
    // The neighbours on the underlay and on the bridges are resolved before the count begins.
    talk(&guard)?;

    let name = &guard.topology().shape.name;
    let filter = format!("udp port {IANA_PORT}");
    let capture = Capture::start(name, &nodes[0], &filter)?;
    let before = counters::carried(&nodes[0].namespace)?;
    talk(&guard)?;
    let carried = counters::carried(&nodes[0].namespace)? - before;
    let packets = capture.finish()?;

    let exchanges = PINGS + u64::try_from(DATAGRAMS)?;
    assert_eq!(
        (carried.sent, carried.received),
        (exchanges, exchanges),
        "{carried:?}"
    );
    // The stack of the host sends neighbour solicitations and the like when it pleases;
    // they are VXLAN too, by the kernel's device.
    let ours = |sender: &Node| {
        let source = sender.containers[0].address.to_string();
        packets
            .iter()
            .filter(|packet| packet.inner("ip", "ip.src") == Some(&source))
            .collect::<Vec<_>>()
    };
    for (sender, receiver) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let sent = ours(sender);
        assert_eq!(
            u64::try_from(sent.len())?,
            exchanges,
            "on the wire from {}",
            sender.namespace
        );
        sent.into_iter()
            .try_for_each(|packet| is_well_formed(packet, sender, receiver))?;
    }
    Ok(guard.down()?)
}

#[test]
fn the_slow_path_sends_the_same_headers() -> Result<()> {
    let guard = Guard::overlay("twireoff")?;
    guard
        .agents()
        .iter()
        .try_for_each(|agent| agent.fastpath(false))?;
    let nodes = &guard.topology().nodes;
    talk(&guard)?;

    let name = &guard.topology().shape.name;
    let filter = format!("udp port {IANA_PORT} and src host {}", nodes[0].underlay);
    let capture = Capture::start(name, &nodes[0], &filter)?;
    let before = counters::carried(&nodes[0].namespace)?;
    talk(&guard)?;
    assert_eq!(
        counters::carried(&nodes[0].namespace)?,
        before,
        "the programs are detached"
    );
    let source = nodes[0].containers[0].address.to_string();
    let packets = capture.finish()?;
    let sent: Vec<_> = packets
        .iter()
        .filter(|packet| packet.inner("ip", "ip.src") == Some(&source))
        .collect();
    assert_eq!(
        u64::try_from(sent.len())?,
        PINGS + u64::try_from(DATAGRAMS)?
    );
    sent.into_iter()
        .try_for_each(|packet| is_well_formed(packet, &nodes[0], &nodes[1]))?;
    Ok(guard.down()?)
}
