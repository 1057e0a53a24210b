//! Options of dual-stack nodes, and what can be wrong with them.

use std::path::Path;

use super::{GOOD, parse};
use crate::model::{Dscp, Guard, Rx, Security, Verdict};

/// Dual stack, over both families, with a container that forwards.
const DUAL: &str = r#"
[node]
name = "node01"
underlay = "eth1"
guard = "native"
rx = "xdp"

[[networks]]
name = "lab"
vni = 1
cidr = ["10.244.0.0/16", "fd00:244::/48"]
subnet = ["10.244.1.0/24", "fd00:244:0:1::/64"]
mtu = 1400
masquerade = true
dscp = "copy"
[networks.security]
unknown_vtep = "accept"

[[networks.peers]]
name = "node02"
vtep = "192.168.56.12"
subnet = ["10.244.2.0/24", "fd00:244:0:2::/64"]
[[networks.peers]]
name = "node03"
vtep = "2001:db8::13"
subnet = ["fd00:244:0:3::/64"]
udp6_checksum = true

[[networks]]
name = "blue"
vni = 2
cidr = ["10.245.0.0/16"]
subnet = ["10.245.1.0/24"]

[[endpoints]]
name = "router"
network = "lab"
netns = "router"
address = ["fd00:244:0:1::9", "10.244.1.9"]
forwarding = true
allowed_sources = ["10.99.0.0/24", "fd99::/64"]

[[endpoints]]
name = "other"
network = "lab"
netns = "other"
forwarding = true
allowed_sources = ["10.98.0.0/24"]
"#;

#[test]
fn every_option_reaches_the_model() {
    let model = parse(Path::new("n.toml"), DUAL).unwrap();
    assert_eq!((model.node.guard, model.node.rx), (Guard::Native, Rx::Xdp));
    let network = &model.networks[0];
    let ranges: Vec<String> = network
        .ranges
        .iter()
        .map(|range| format!("{} {} {}", range.cidr, range.subnet, range.gateway()))
        .collect();
    assert_eq!(
        ranges,
        [
            "10.244.0.0/16 10.244.1.0/24 10.244.1.1",
            "fd00:244::/48 fd00:244:0:1::/64 fd00:244:0:1::1"
        ]
    );
    assert!(network.masquerade);
    assert_eq!(network.dscp, Dscp::Copy);
    let strict_but_one = Security {
        unknown_vtep: Verdict::Accept,
        ..Security::default()
    };
    assert_eq!(network.security, strict_but_one);
    let peers: Vec<_> = network
        .peers
        .iter()
        .map(|peer| (peer.mac.to_string(), peer.udp6_checksum))
        .collect();
    assert_eq!(peers[0], ("02:4f:c0:a8:38:0c".to_owned(), false));
    assert!(peers[1].0.starts_with("02:36:") && peers[1].1);
    let router = &model.endpoints[0];
    let addresses: Vec<String> = router.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.9", "fd00:244:0:1::9"]);
    assert!(router.forwarding);
    assert_eq!(router.allowed_sources.len(), 2);
    // Left out, everything is off and strict.
    let plain = parse(Path::new("n.toml"), GOOD).unwrap();
    assert_eq!((plain.node.guard, plain.node.rx), (Guard::Off, Rx::Tc));
    let network = &plain.networks[0];
    assert_eq!(network.security, Security::default());
    assert!(!network.masquerade && network.dscp == Dscp::Zero);
    assert!(!plain.endpoints[0].forwarding && !network.peers[0].udp6_checksum);
}

/// What is replaced, by what, and the first thing that is told then.
const MISTAKES: [(&str, &str, &str); 27] = [
    (
        "rx = \"xdp\"",
        "rx = \"xdp\"\nprobe = \"5h\"",
        "n.toml:7: node.probe: invalid probe interval \"5h\"; use \"off\", \"answer\", or 100ms to 60m, such as \"5s\"",
    ),
    (
        "rx = \"xdp\"",
        "rx = \"xdp\" # in\nguard2 = 1",
        "n.toml:7: node.guard2: there is no such key; there are: name, underlay, vtep, guard, rx, metrics, probe",
    ),
    (
        "guard = \"native\"",
        "guard = \"generic\"",
        "n.toml:6: node.rx: rx = \"xdp\" needs the program in the driver; set guard = \"native\", or rx = \"tc\"",
    ),
    (
        "guard = \"native\"",
        "guard = \"on\"",
        "n.toml:5: node.guard: the text \"on\" stands here instead of \"off\", \"native\" or \"generic\"; write guard = \"off\"",
    ),
    (
        "underlay = \"eth1\"",
        "underlay = \"fe80::1\"",
        "n.toml:4: node.underlay: fe80::1 cannot be a VTEP; use a unicast address of this node's underlay interface",
    ),
    (
        "[\"10.244.0.0/16\", \"fd00:244::/48\"]",
        "[\"10.244.0.0/16\", \"10.246.0.0/16\"]",
        "n.toml:11: networks[0].cidr: this field has two IPv4 values, 10.244.0.0/16 and 10.246.0.0/16; keep one of them",
    ),
    (
        "[\"10.244.1.0/24\", \"fd00:244:0:1::/64\"]",
        "\"10.244.1.0/24\"",
        "n.toml:12: networks[0].subnet: this node has no part of the network's fd00:244::/48; add a subnet inside it, or remove fd00:244::/48 from cidr",
    ),
    (
        "[\"10.244.0.0/16\", \"fd00:244::/48\"]",
        "\"10.244.0.0/16\"",
        "n.toml:12: networks[0].subnet: fd00:244:0:1::/64 is IPv6, and the network has no IPv6 cidr; add one, or remove fd00:244:0:1::/64",
    ),
    (
        "\"fd00:244:0:1::/64\"",
        "\"fd00:245::/64\"",
        "n.toml:12: networks[0].subnet: fd00:245::/64 is not inside the network's cidr fd00:244::/48; choose a part of it",
    ),
    (
        "\"fd00:244:0:1::/64\"",
        "\"fd00:244:0:1::1/64\"",
        "n.toml:12: networks[0].subnet: fd00:244:0:1::1/64 has host bits set; write fd00:244:0:1::/64",
    ),
    (
        "\"fd00:244:0:1::/64\"",
        "\"fd00:244:0:1::/127\"",
        "n.toml:12: networks[0].subnet: fd00:244:0:1::/127 has no room for a gateway and an endpoint; use a prefix of /126 or shorter",
    ),
    (
        "mtu = 1400",
        "mtu = 1279",
        "n.toml:13: networks[0].mtu: an MTU of 1279 is too small for IPv6; use \"auto\", or at least 1280 (RFC 8200), or remove the IPv6 subnets",
    ),
    (
        "unknown_vtep = \"accept\"",
        "unknown_vtep = \"pass\"",
        "n.toml:17: networks[0].security.unknown_vtep: the text \"pass\" stands here instead of \"drop\" or \"accept\"; write unknown_vtep = \"drop\"",
    ),
    (
        "dscp = \"copy\"",
        "dscp = \"keep\"",
        "n.toml:15: networks[0].dscp: the text \"keep\" stands here instead of \"zero\" or \"copy\"; write dscp = \"zero\"",
    ),
    (
        "[\"fd00:244:0:3::/64\"]",
        "[\"fd00:244::/62\"]",
        "n.toml:26: networks[0].peers[1].subnet: fd00:244::/62 overlaps fd00:244:0:1::/64 of this node; give every node its own part",
    ),
    (
        "\"2001:db8::13\"",
        "\"fe80::13\"",
        "n.toml:25: networks[0].peers[1].vtep: fe80::13 cannot be a VTEP; use a unicast address of the peer's underlay interface",
    ),
    (
        "\"2001:db8::13\"",
        "\"::ffff:192.168.56.13\"",
        "n.toml:25: networks[0].peers[1].vtep: ::ffff:192.168.56.13 cannot be a VTEP; use a unicast address of the peer's underlay interface",
    ),
    (
        "\"2001:db8::13\"",
        "\"192.168.56.13\"",
        "n.toml:27: networks[0].peers[1].udp6_checksum: 192.168.56.13 is not an IPv6 VTEP, and only IPv6 needs the checksum; remove udp6_checksum",
    ),
    (
        "\"10.245.1.0/24\"",
        "\"fd00:245::/64\"",
        "n.toml:33: networks[1].subnet: this node has no part of the network's 10.245.0.0/16; add a subnet inside it, or remove 10.245.0.0/16 from cidr",
    ),
    (
        "\"10.245.0.0/16\"",
        "\"10.244.0.0/16\"",
        "n.toml:32: networks[1].cidr: 10.244.0.0/16 overlaps 10.244.0.0/16 of network lab; give every node its own part",
    ),
    (
        "\"10.244.1.9\"]",
        "\"fd00:244:0:1::8\"]",
        "n.toml:39: endpoints[0].address: an endpoint has two IPv6 values, fd00:244:0:1::9 and fd00:244:0:1::8; keep one of them",
    ),
    (
        "\"fd00:244:0:1::9\"",
        "\"fd00:244:0:1::1\"",
        "n.toml:39: endpoints[0].address: fd00:244:0:1::1 is not an address for endpoints of fd00:244:0:1::/64; use one from fd00:244:0:1::2 to fd00:244:0:1:ffff:ffff:ffff:ffff",
    ),
    (
        "forwarding = true",
        "forwarding = false",
        "n.toml:41: endpoints[0].allowed_sources: only an endpoint that forwards has others behind it; set forwarding = true, or remove allowed_sources",
    ),
    (
        "\"10.99.0.0/24\"",
        "\"10.244.2.128/25\"",
        "n.toml:41: endpoints[0].allowed_sources: 10.244.2.128/25 overlaps 10.244.2.0/24 of peer node02; let the endpoint send only from what nobody else has",
    ),
    (
        "\"10.99.0.0/24\"",
        "\"10.245.9.0/24\"",
        "n.toml:41: endpoints[0].allowed_sources: 10.245.9.0/24 overlaps 10.245.0.0/16 of network blue; let the endpoint send only from what nobody else has",
    ),
    (
        "\"10.99.0.0/24\"",
        "\"10.0.0.0/8\"",
        "n.toml:41: endpoints[0].allowed_sources: 10.0.0.0/8 overlaps 10.244.1.0/24 of this node; let the endpoint send only from what nobody else has",
    ),
    (
        "\"10.98.0.0/24\"",
        "\"10.99.0.64/26\"",
        "n.toml:48: endpoints[1].allowed_sources: 10.99.0.64/26 overlaps 10.99.0.0/24 of endpoint router; let the endpoint send only from what nobody else has",
    ),
];

#[test]
fn each_mistake_with_two_families_is_told_with_line_field_and_cure() {
    for (from, to, message) in MISTAKES {
        assert!(DUAL.contains(from), "{from}");
        let text = DUAL.replacen(from, to, 1);
        let refused = parse(Path::new("n.toml"), &text).unwrap_err().to_string();
        // What follows from the mistake may be told after it.
        assert_eq!(refused.lines().next(), Some(message), "{from} → {to}");
    }
}
