use overlay_common::maps::{FlowKey, mapped, translated};

use super::{Tuple, identifiers, is_error};
use crate::addresses::Ip6;

fn tuple(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Tuple {
    Tuple {
        source: Ip6::from(mapped(source.0)),
        destination: Ip6::from(mapped(destination.0)),
        ports: [source.1.to_be(), destination.1.to_be()],
        protocol: 6,
        is_quoted: false,
    }
}

#[test]
fn both_directions_have_one_key_and_a_name_each() {
    let (client, server) = (([10, 244, 1, 10], 40_000), ([10, 244, 2, 10], 80));
    let (forth, direction) = tuple(client, server).key(1);
    let (back, other) = tuple(server, client).key(1);
    assert_eq!(forth, back);
    assert_ne!(direction, other);
    for direction in [direction, other] {
        assert_ne!(direction, translated::NOT);
    }
    let ends = [
        (forth.first, forth.first_port_be),
        (forth.second, forth.second_port_be),
    ];
    assert!(ends.contains(&(mapped(client.0), client.1.to_be_bytes())));
    assert!(ends.contains(&(mapped(server.0), server.1.to_be_bytes())));
}

#[test]
fn the_agent_makes_the_same_keys() {
    let ends = [([10, 244, 1, 10], 40_000), ([10, 244, 2, 10], 80)];
    for (source, destination) in [(ends[0], ends[1]), (ends[1], ends[0]), (ends[0], ends[0])] {
        let end = |(address, port): ([u8; 4], u16)| (mapped(address), port.to_be_bytes());
        let made = FlowKey::between(1, 6, end(source), end(destination));
        assert_eq!(tuple(source, destination).key(1), made);
    }
}

#[test]
fn flows_are_kept_apart() {
    let (client, server) = (([10, 244, 1, 10], 40_000), ([10, 244, 2, 10], 80));
    let (key, _) = tuple(client, server).key(1);
    assert_ne!(tuple(client, server).key(2).0, key);
    assert_ne!(tuple((client.0, 40_001), server).key(1).0, key);
    assert_ne!(tuple((client.0, 80), (server.0, 40_000)).key(1).0, key);
}

#[test]
fn one_address_talking_to_itself_has_two_directions_by_its_ports() {
    let address = [10, 244, 1, 10];
    let (forth, direction) = tuple((address, 1), (address, 2)).key(1);
    let (back, other) = tuple((address, 2), (address, 1)).key(1);
    assert_eq!(forth, back);
    assert_ne!(direction, other);
}

#[test]
fn echoes_have_identifiers_and_errors_quote() {
    let words = |bytes: [u8; 8]| bytemuck::cast::<_, [u32; 2]>(bytes);
    for kind in [0, 8, 128, 129] {
        let echo = words([kind, 0, 1, 2, 0x12, 0x34, 0, 1]);
        assert_eq!(identifiers(echo), [u16::from_ne_bytes([0x12, 0x34]); 2]);
        assert!(!is_error(echo), "{kind}");
    }
    for kind in [1, 2, 3, 4, 5, 11, 12] {
        assert!(is_error(words([kind, 0, 0, 0, 0, 0, 0, 0])), "{kind}");
    }
    assert_eq!(identifiers(words([135, 0, 0, 0, 9, 9, 9, 9])), [0; 2]);
}
