//! Exact bytes: what leaves the programs on the fast path.

use std::net::IpAddr;

use overlay_common::{
    maps::network_flags,
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    wire::{SOURCE_PORT_MAX, SOURCE_PORT_MIN},
};

use crate::{
    counters::Outcome,
    frames::{Ip, Mac, UDP, ethernet, udp, vxlan},
    node::Node,
    traffic::{
        I_FLAG, arriving, datagram, from_node, from_remote, inner, outer, routed, routed_with,
        to_remote, tunnelled, tunnelled_with,
    },
    world::{
        DATABASE, DATABASE_MAC, DATABASE6, GATEWAY_MAC, OTHER_PEER, OTHER_PEER_INDEX,
        OTHER_PEER_MAC, OTHER_REMOTE, OTHER_REMOTE6, OVER4, PORT, REMOTE_TOO, REMOTE6_TOO, ROADS,
        Road, Tunnel, VNI, WEB, WEB_MAC, WEB6, roads,
    },
};

/// The 50 or 70 bytes that the kernel's VXLAN device would have put before a packet, with
/// the identification and the source port of `sent`: those are the flow's and chance's,
/// and are looked at apart.
fn expected(sent: &[u8], tos: u8, tunnel: &Tunnel, macs: &[u8], packet: Ip) -> Vec<u8> {
    expected_around(sent, tos, tunnel, macs, packet, &datagram())
}

fn expected_around(
    sent: &[u8],
    tos: u8,
    tunnel: &Tunnel,
    macs: &[u8],
    packet: Ip,
    payload: &[u8],
) -> Vec<u8> {
    let inner = packet.around(payload);
    let frame = ethernet(tunnel.peer_mac, tunnel.node_mac, packet.ethertype(), &inner);
    let port = source_port(sent, tunnel);
    let header = Ip {
        tos,
        id: id(sent),
        flags_and_offset: 0,
        // None, as from Linux's device.
        label: 0,
        ttl: 64,
        protocol: UDP,
        source: tunnel.node,
        destination: tunnel.peer,
    };
    let datagram = udp(port, PORT, 0, &vxlan(I_FLAG, VNI, &frame));
    [
        macs,
        &header.ethertype().to_be_bytes(),
        &header.around(&datagram),
    ]
    .concat()
}

fn id(sent: &[u8]) -> u16 {
    u16::from_be_bytes([sent[18], sent[19]])
}

fn source_port(sent: &[u8], tunnel: &Tunnel) -> u16 {
    // Before the inner Ethernet header stand UDP and VXLAN.
    let udp = tunnel.overhead - 16;
    u16::from_be_bytes([sent[udp], sent[udp + 1]])
}

/// The packet after this node has routed it.
fn older(packet: Ip) -> Ip {
    Ip {
        ttl: packet.ttl - 1,
        ..packet
    }
}

/// What our container gets from the gateway.
fn delivered(mac: Mac, packet: Ip) -> Vec<u8> {
    ethernet(
        mac,
        GATEWAY_MAC,
        packet.ethertype(),
        &packet.around(&datagram()),
    )
}

#[test]
fn an_endpoint_s_packet_is_put_into_the_tunnel_one_hop_older() {
    const OTHER: Tunnel = Tunnel {
        peer: OTHER_PEER,
        peer_mac: OTHER_PEER_MAC,
        index: OTHER_PEER_INDEX,
        ..OVER4
    };
    let mut node = Node::new();
    let further = [
        (WEB, REMOTE_TOO, &OVER4),
        (WEB6, REMOTE6_TOO, &OVER4),
        (WEB, OTHER_REMOTE, &OTHER),
        (WEB6, OTHER_REMOTE6, &OTHER),
    ];
    let all = ROADS
        .iter()
        .map(|road| (road.here, road.there, road.tunnel))
        .chain(further);
    for (here, there, tunnel) in all {
        let packet = inner(here, there);
        let frame = routed(packet);
        let run = node.run(FROM_ENDPOINT, &frame, 0);
        assert_eq!(run.outcome, Outcome::To(tunnel.index), "to {there}");
        let expected = expected(&run.bytes, 0, tunnel, &frame[..12], older(packet));
        assert_eq!(run.bytes, expected, "to {there}");
    }
}

/// The kernel does so where it receives a packet of IP, and a bridge does not.
#[test]
fn what_stands_behind_an_endpoint_s_packet_is_taken_off_where_it_is_routed() {
    const PADDING: [u8; 17] = [0xaa; 17];
    let mut node = Node::new();
    let padded = |frame: &[u8]| [frame, &PADDING].concat();
    for road in roads() {
        let packet = inner(road.here, road.there);
        let frame = routed(packet);
        let run = node.run(FROM_ENDPOINT, &padded(&frame), 0);
        assert_eq!(run.outcome, Outcome::To(road.tunnel.index));
        let expected = expected(&run.bytes, 0, road.tunnel, &frame[..12], older(packet));
        assert_eq!(run.bytes, expected, "{}", road.name());
        let run = node.run(FROM_HOST, &padded(&from_node(&road)), 0);
        assert!(run.bytes.ends_with(&PADDING), "as by the kernel's device");
    }
    for (web, database) in [(WEB, DATABASE), (WEB6, DATABASE6)] {
        let packet = inner(web, database);
        let run = node.run(FROM_ENDPOINT, &padded(&routed(packet)), 0);
        assert_eq!(run.outcome, Outcome::Local);
        assert_eq!(run.bytes, delivered(DATABASE_MAC, older(packet)));
        let to_neighbour = [&DATABASE_MAC, &routed(packet)[6..]].concat();
        let run = node.run(FROM_ENDPOINT, &padded(&to_neighbour), 0);
        assert_eq!(run.outcome, Outcome::Local);
        assert_eq!(run.bytes, padded(&to_neighbour));
    }
}

#[test]
fn the_node_s_own_packet_keeps_its_ttl() {
    let mut node = Node::new();
    for road in roads() {
        let frame = from_node(&road);
        let run = node.run(FROM_HOST, &frame, 0);
        assert_eq!(
            run.outcome,
            Outcome::To(road.tunnel.index),
            "{}",
            road.name()
        );
        let packet = inner(road.gateway(), road.there);
        let expected = expected(&run.bytes, 0, road.tunnel, &frame[..12], packet);
        assert_eq!(run.bytes, expected, "{}", road.name());
    }
}

#[test]
fn the_outer_header_carries_ecn_and_dscp_only_where_it_is_asked_for() {
    const DSCP: u8 = 0xb8;
    for (flags, dscp) in [(0, 0), (network_flags::COPY_DSCP, DSCP)] {
        let mut node = Node::new().with_network_flags(flags);
        for road in roads() {
            for (ecn, outer_ecn) in [(0b00, 0b00), (0b01, 0b01), (0b10, 0b10), (0b11, 0b10)] {
                let packet = Ip {
                    tos: DSCP | ecn,
                    ..inner(road.here, road.there)
                };
                let frame = routed(packet);
                let run = node.run(FROM_ENDPOINT, &frame, 0);
                let tos = dscp | outer_ecn;
                let expected = expected(&run.bytes, tos, road.tunnel, &frame[..12], older(packet));
                assert_eq!(run.bytes, expected, "{}, ECN {ecn:02b}", road.name());
            }
        }
    }
}

#[test]
fn a_flow_has_one_source_port_and_flows_have_many() {
    let mut node = Node::new();
    for road in roads() {
        let mut port_of = |source: u16| {
            // An IPv6 flow label would be the flow's name, and the ports no matter.
            let packet = Ip {
                label: 0,
                ..inner(road.here, road.there)
            };
            let frame = routed_with(packet, &udp(source, 2000, 0, &[0; 64]));
            source_port(&node.run(FROM_ENDPOINT, &frame, 0).bytes, road.tunnel)
        };
        let ports: Vec<u16> = (1000..1032).map(&mut port_of).collect();
        assert_eq!(port_of(1000), ports[0]);
        for &port in &ports {
            assert!((SOURCE_PORT_MIN..SOURCE_PORT_MAX).contains(&port), "{port}");
        }
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert!(
            different.len() > 16,
            "32 flows of {} share {} ports",
            road.name(),
            different.len()
        );
    }
}

#[test]
fn what_a_peer_sends_arrives_one_hop_older_from_the_gateway() {
    let mut node = Node::new();
    for road in roads() {
        let run = node.run(FROM_UNDERLAY, &from_remote(&road), 0);
        assert_eq!(
            run.outcome,
            Outcome::From(road.tunnel.index),
            "{}",
            road.name()
        );
        let packet = older(inner(road.there, road.here));
        assert_eq!(run.bytes, delivered(WEB_MAC, packet), "{}", road.name());
    }
}

/// RFC 6040, figure 4, but for the cell that drops.
#[test]
fn congestion_on_the_way_is_told_to_the_endpoint() {
    let mut node = Node::new();
    for road in roads() {
        for (outer_ecn, inner_ecn, arrives) in [
            (0b00, 0b00, 0b00),
            (0b01, 0b00, 0b00),
            (0b10, 0b00, 0b00),
            (0b00, 0b10, 0b10),
            (0b01, 0b10, 0b01),
            (0b10, 0b10, 0b10),
            (0b11, 0b10, 0b11),
            (0b00, 0b01, 0b01),
            (0b01, 0b01, 0b01),
            (0b10, 0b01, 0b01),
            (0b11, 0b01, 0b11),
            (0b00, 0b11, 0b11),
            (0b01, 0b11, 0b11),
            (0b10, 0b11, 0b11),
            (0b11, 0b11, 0b11),
        ] {
            let packet = Ip {
                tos: 0xb8 | inner_ecn,
                ..inner(road.there, road.here)
            };
            let header = Ip {
                tos: outer_ecn,
                ..outer(road.tunnel.peer)
            };
            let frame = arriving(header, &tunnelled(road.tunnel, packet));
            let run = node.run(FROM_UNDERLAY, &frame, 0);
            let marked = Ip {
                tos: 0xb8 | arrives,
                ..older(packet)
            };
            assert_eq!(
                run.bytes,
                delivered(WEB_MAC, marked),
                "{}, outer {outer_ecn:02b} over inner {inner_ecn:02b}",
                road.name()
            );
        }
    }
}

#[test]
fn a_neighbour_gets_frames_as_a_bridge_or_a_router_hands_them_on() {
    let mut node = Node::new();
    for (web, database) in [(WEB, DATABASE), (WEB6, DATABASE6)] {
        let packet = inner(web, database);
        let bridged = ethernet(
            DATABASE_MAC,
            WEB_MAC,
            packet.ethertype(),
            &packet.around(&datagram()),
        );
        let run = node.run(FROM_ENDPOINT, &bridged, 0);
        assert_eq!(run.outcome, Outcome::Local);
        assert_eq!(run.bytes, bridged);

        let run = node.run(FROM_ENDPOINT, &routed(packet), 0);
        assert_eq!(run.outcome, Outcome::Local);
        assert_eq!(run.bytes, delivered(DATABASE_MAC, older(packet)));
    }
}

#[test]
fn the_smallest_and_the_largest_packets_go_through_whole() {
    fn unknown(source: IpAddr, destination: IpAddr) -> Ip {
        Ip {
            protocol: 253,
            ..inner(source, destination)
        }
    }
    let mut node = Node::new();
    for road @ Road {
        here,
        there,
        tunnel,
    } in roads()
    {
        let largest = 1450 - inner(here, there).header();
        for size in [0, 1, largest - 1, largest] {
            let name = format!("{size} bytes of {}", road.name());
            let payload: Vec<u8> = (0..size).map(|byte| byte.to_le_bytes()[0]).collect();
            let packet = unknown(here, there);
            let frame = routed_with(packet, &payload);
            let sent = node.run(FROM_ENDPOINT, &frame, 0);
            assert_eq!(sent.outcome, Outcome::To(tunnel.index), "{name}");
            let expected = expected_around(
                &sent.bytes,
                0,
                tunnel,
                &frame[..12],
                older(packet),
                &payload,
            );
            assert_eq!(sent.bytes, expected, "{name}");

            let packet = unknown(there, here);
            let frame = arriving(
                outer(tunnel.peer),
                &tunnelled_with(tunnel, packet, &payload),
            );
            let received = node.run(FROM_UNDERLAY, &frame, 0);
            assert_eq!(received.outcome, Outcome::From(tunnel.index), "{name}");
            assert_eq!(
                received.bytes[14..],
                older(packet).around(&payload),
                "{name}"
            );
        }
    }
}

#[test]
fn the_identification_field_varies() {
    let mut node = Node::new();
    let ids: std::collections::BTreeSet<_> = (0..32)
        .map(|_| id(&node.run(FROM_ENDPOINT, &to_remote(&ROADS[0]), 0).bytes))
        .collect();
    assert!(
        ids.len() > 24,
        "32 packets share {} identifications",
        ids.len()
    );
}
