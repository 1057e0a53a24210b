//! Exact bytes: what leaves the programs on the fast path.

use overlay_common::{
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY},
    wire::{SOURCE_PORT_MAX, SOURCE_PORT_MIN},
};

use crate::{
    frames::{Ipv4, UDP, ethernet, udp, vxlan},
    node::{
        DATABASE, DATABASE_MAC, GATEWAY_MAC, NODE, NODE_MAC, Node, OTHER_PEER, OTHER_PEER_INDEX,
        OTHER_PEER_MAC, OTHER_REMOTE, Outcome, PEER, PEER_INDEX, PEER_MAC, PORT, REMOTE,
        REMOTE_TOO, VNI, WEB, WEB_MAC,
    },
    traffic::{
        I_FLAG, IPV4, arriving, datagram, from_node, from_remote, inner, outer, routed, to_remote,
        tunnelled,
    },
};

const ID: std::ops::Range<usize> = 18..20;
const SOURCE_PORT: std::ops::Range<usize> = 34..36;

fn field(bytes: &[u8], place: std::ops::Range<usize>) -> u16 {
    u16::from_be_bytes(bytes[place].try_into().unwrap())
}

/// The frame that the kernel's VXLAN device would have built, with the identification and
/// the source port of `sent`: those are the flow's and chance's, and are looked at apart.
fn expected(
    sent: &[u8],
    tos: u8,
    peer: [u8; 4],
    peer_mac: [u8; 6],
    macs: &[u8],
    packet: &[u8],
) -> Vec<u8> {
    let frame = ethernet(peer_mac, NODE_MAC, IPV4, packet);
    let datagram = udp(
        field(sent, SOURCE_PORT),
        PORT,
        0,
        &vxlan(I_FLAG, VNI, &frame),
    );
    let header = Ipv4 {
        tos,
        id: field(sent, ID),
        flags_and_offset: 0,
        ttl: 64,
        protocol: UDP,
        source: NODE,
        destination: peer,
    };
    [macs, &IPV4.to_be_bytes(), &header.around(&datagram)].concat()
}

#[test]
fn an_endpoint_s_packet_is_put_into_the_tunnel_one_hop_older() {
    let mut node = Node::new();
    for (destination, peer, mac, index) in [
        (REMOTE, PEER, PEER_MAC, PEER_INDEX),
        (REMOTE_TOO, PEER, PEER_MAC, PEER_INDEX),
        (OTHER_REMOTE, OTHER_PEER, OTHER_PEER_MAC, OTHER_PEER_INDEX),
    ] {
        let packet = inner(WEB, destination);
        let frame = routed(&packet.around(&datagram()));
        let run = node.run(FROM_ENDPOINT, &frame, 0);
        assert_eq!(run.outcome, Outcome::To(index));
        let older = Ipv4 { ttl: 63, ..packet };
        let expected = expected(
            &run.bytes,
            0,
            peer,
            mac,
            &frame[..12],
            &older.around(&datagram()),
        );
        assert_eq!(run.bytes, expected);
    }
}

#[test]
fn the_node_s_own_packet_keeps_its_ttl() {
    let mut node = Node::new();
    let frame = from_node();
    let run = node.run(FROM_HOST, &frame, 0);
    assert_eq!(run.outcome, Outcome::To(PEER_INDEX));
    let packet = inner(NODE, REMOTE).around(&datagram());
    assert_eq!(
        run.bytes,
        expected(&run.bytes, 0, PEER, PEER_MAC, &frame[..12], &packet)
    );
}

#[test]
fn the_outer_header_carries_ecn_and_no_dscp() {
    let mut node = Node::new();
    for (ecn, outer_ecn) in [(0b00, 0b00), (0b01, 0b01), (0b10, 0b10), (0b11, 0b10)] {
        let packet = Ipv4 {
            tos: 0xb8 | ecn,
            ..inner(WEB, REMOTE)
        };
        let frame = routed(&packet.around(&datagram()));
        let run = node.run(FROM_ENDPOINT, &frame, 0);
        let older = Ipv4 { ttl: 63, ..packet };
        let expected = expected(
            &run.bytes,
            outer_ecn,
            PEER,
            PEER_MAC,
            &frame[..12],
            &older.around(&datagram()),
        );
        assert_eq!(run.bytes, expected, "inner ECN {ecn:02b}");
    }
}

#[test]
fn a_flow_has_one_source_port_and_flows_have_many() {
    let mut node = Node::new();
    let mut port_of = |source: u16| {
        let packet = inner(WEB, REMOTE).around(&udp(source, 2000, 0, &[0; 64]));
        field(
            &node.run(FROM_ENDPOINT, &routed(&packet), 0).bytes,
            SOURCE_PORT,
        )
    };
    let ports: Vec<u16> = (1000..1032).map(&mut port_of).collect();
    assert_eq!(port_of(1000), ports[0]);
    for &port in &ports {
        assert!((SOURCE_PORT_MIN..SOURCE_PORT_MAX).contains(&port), "{port}");
    }
    let different: std::collections::BTreeSet<_> = ports.iter().collect();
    assert!(
        different.len() > 16,
        "32 flows share {} ports",
        different.len()
    );
}

#[test]
fn what_a_peer_sends_arrives_one_hop_older_from_the_gateway() {
    let mut node = Node::new();
    let run = node.run(FROM_UNDERLAY, &from_remote(), 0);
    assert_eq!(run.outcome, Outcome::From(PEER_INDEX));
    let older = Ipv4 {
        ttl: 63,
        ..inner(REMOTE, WEB)
    };
    assert_eq!(
        run.bytes,
        ethernet(WEB_MAC, GATEWAY_MAC, IPV4, &older.around(&datagram()))
    );
}

#[test]
fn a_node_may_answer_a_container_from_its_underlay_address() {
    let mut node = Node::new();
    let packet = inner(PEER, WEB);
    let frame = arriving(outer(PEER), &tunnelled(&packet.around(&datagram())));
    let run = node.run(FROM_UNDERLAY, &frame, 0);
    assert_eq!(run.outcome, Outcome::From(PEER_INDEX));
    let older = Ipv4 { ttl: 63, ..packet };
    assert_eq!(
        run.bytes,
        ethernet(WEB_MAC, GATEWAY_MAC, IPV4, &older.around(&datagram()))
    );
}

/// RFC 6040, figure 4, but for the cell that drops.
#[test]
fn congestion_on_the_way_is_told_to_the_endpoint() {
    let mut node = Node::new();
    for (outer_ecn, inner_ecn, arrives) in [
        (0b00, 0b00, 0b00),
        (0b01, 0b00, 0b00),
        (0b10, 0b00, 0b00),
        (0b00, 0b10, 0b10),
        (0b01, 0b10, 0b01),
        (0b10, 0b10, 0b10),
        (0b11, 0b10, 0b11),
        (0b11, 0b01, 0b11),
        (0b10, 0b11, 0b11),
    ] {
        let packet = Ipv4 {
            tos: 0xb8 | inner_ecn,
            ..inner(REMOTE, WEB)
        };
        let header = Ipv4 {
            tos: outer_ecn,
            ..outer(PEER)
        };
        let frame = arriving(header, &tunnelled(&packet.around(&datagram())));
        let run = node.run(FROM_UNDERLAY, &frame, 0);
        let older = Ipv4 {
            ttl: 63,
            tos: 0xb8 | arrives,
            ..packet
        };
        assert_eq!(
            run.bytes,
            ethernet(WEB_MAC, GATEWAY_MAC, IPV4, &older.around(&datagram())),
            "outer {outer_ecn:02b} over inner {inner_ecn:02b}"
        );
    }
}

#[test]
fn a_neighbour_gets_frames_as_a_bridge_or_a_router_hands_them_on() {
    let mut node = Node::new();
    let packet = inner(WEB, DATABASE);

    let bridged = ethernet(DATABASE_MAC, WEB_MAC, IPV4, &packet.around(&datagram()));
    let run = node.run(FROM_ENDPOINT, &bridged, 0);
    assert_eq!(run.outcome, Outcome::Local);
    assert_eq!(run.bytes, bridged);

    let run = node.run(FROM_ENDPOINT, &routed(&packet.around(&datagram())), 0);
    assert_eq!(run.outcome, Outcome::Local);
    let older = Ipv4 { ttl: 63, ..packet };
    assert_eq!(
        run.bytes,
        ethernet(DATABASE_MAC, GATEWAY_MAC, IPV4, &older.around(&datagram()))
    );
}

#[test]
fn the_smallest_and_the_largest_packets_go_through_whole() {
    let mut node = Node::new();
    for payload in [0, 1, 1429, 1430] {
        let payload: Vec<u8> = (0..payload)
            .map(|byte: u16| byte.to_le_bytes()[0])
            .collect();
        let packet = Ipv4 {
            protocol: 253,
            ..inner(WEB, REMOTE)
        };
        let sent = node.run(FROM_ENDPOINT, &routed(&packet.around(&payload)), 0);
        assert_eq!(
            sent.outcome,
            Outcome::To(PEER_INDEX),
            "{} bytes",
            payload.len()
        );
        let older = Ipv4 { ttl: 63, ..packet };
        assert_eq!(sent.bytes[64..], older.around(&payload));

        let packet = Ipv4 {
            protocol: 253,
            ..inner(REMOTE, WEB)
        };
        let frame = arriving(outer(PEER), &tunnelled(&packet.around(&payload)));
        let received = node.run(FROM_UNDERLAY, &frame, 0);
        assert_eq!(
            received.outcome,
            Outcome::From(PEER_INDEX),
            "{} bytes",
            payload.len()
        );
        let older = Ipv4 { ttl: 63, ..packet };
        assert_eq!(received.bytes[14..], older.around(&payload));
    }
}

#[test]
fn the_identification_field_varies() {
    let mut node = Node::new();
    let ids: std::collections::BTreeSet<_> = (0..32)
        .map(|_| field(&node.run(FROM_ENDPOINT, &to_remote(), 0).bytes, ID))
        .collect();
    assert!(
        ids.len() > 24,
        "32 packets share {} identifications",
        ids.len()
    );
}
