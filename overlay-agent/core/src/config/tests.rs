use std::path::Path;

use super::parse;
use crate::model::Security;

mod cluster;
mod dual_stack;
mod encryption;
mod roll;

const GOOD: &str = r#"
[node]
name = "node01"
underlay = "eth1"

[[networks]]
name = "lab"
vni = 1
cidr = ["10.244.0.0/16"]
subnet = "10.244.1.0/24"
mtu = "auto"

[[networks.peers]]
name = "node02"
vtep = "192.168.56.12"
subnet = ["10.244.2.0/24"]

[[endpoints]]
name = "web"
network = "lab"
netns = "web"
address = ["10.244.1.10"]

[[endpoints]]
name = "job"
network = "lab"
pid = 1234
"#;

/// The message for a good file in which `from` is replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    assert!(
        GOOD.contains(from),
        "the test replaces something that is there"
    );
    parse(Path::new("n.toml"), &GOOD.replacen(from, to, 1))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_good_file_becomes_a_model_with_its_defaults() {
    let model = parse(Path::new("n.toml"), GOOD).unwrap();
    let network = &model.networks[0];
    assert_eq!(network.port, 4789);
    assert_eq!(network.mtu, None);
    assert_eq!(network.ranges[0].gateway().to_string(), "10.244.1.1");
    assert_eq!(network.peers[0].mac.to_string(), "02:4f:c0:a8:38:0c");
    assert_eq!(model.endpoints[0].interface.as_str(), "eth0");
    assert!(model.endpoints[1].addresses.is_empty());
}

#[test]
fn the_example_is_good() {
    let text = include_str!("../../../dist/node01.toml");
    let model = parse(Path::new("node01.toml"), text).unwrap();
    assert_eq!(model.networks[0].peers.len(), 1);
    assert_eq!(model.networks[0].security, Security::default());
    // The commented MAC is the one that is derived.
    let commented = text
        .split("# mac = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    assert_eq!(
        commented,
        Some(model.networks[0].peers[0].mac.to_string().as_str())
    );
}

#[test]
fn each_mistake_is_told_with_line_field_and_cure() {
    let cases = [
        (
            "vni = 1\n",
            "vni = 16777216\n",
            "n.toml:8: networks[0].vni: VNI 16777216 is out of range; use 1 to 16777215",
        ),
        (
            "vni = 1\n",
            "vni = 1\nport = 0\n",
            "n.toml:9: networks[0].port: 0 is not a UDP port; use 4789, or 8472 to join flannel",
        ),
        (
            "\"10.244.0.0/16\"",
            "\"224.0.0.0/16\"",
            "n.toml:9: networks[0].cidr: 224.0.0.0/16 is part of 224.0.0.0/4, multicast addresses; choose another range, such as 10.244.0.0/16 or fd00:244::/48",
        ),
        (
            "\"10.244.1.0/24\"",
            "\"10.245.1.0/24\"",
            "n.toml:10: networks[0].subnet: 10.245.1.0/24 is not inside the network's cidr 10.244.0.0/16; choose a part of it",
        ),
        (
            "\"10.244.1.0/24\"",
            "\"10.244.1.7/24\"",
            "n.toml:10: networks[0].subnet: 10.244.1.7/24 has host bits set; write 10.244.1.0/24",
        ),
        (
            "\"10.244.2.0/24\"",
            "\"10.244.0.0/22\"",
            "n.toml:16: networks[0].peers[0].subnet: 10.244.0.0/22 overlaps 10.244.1.0/24 of this node; give every node its own part",
        ),
        (
            "\"192.168.56.12\"",
            "\"192.168.56\"",
            "n.toml:15: networks[0].peers[0].vtep: invalid IP address \"192.168.56\"; write an address of the underlay alone, such as 192.168.56.12 or 2001:db8::12",
        ),
        (
            "\"192.168.56.12\"",
            "\"224.0.0.1\"",
            "n.toml:15: networks[0].peers[0].vtep: 224.0.0.1 cannot be a VTEP; use a unicast address of the peer's underlay interface",
        ),
        (
            "mtu = \"auto\"",
            "mtu = 100",
            "n.toml:11: networks[0].mtu: an MTU of 100 is out of range; use \"auto\", or 576 to 65485",
        ),
        (
            "network = \"lab\"",
            "network = \"lap\"",
            "n.toml:20: endpoints[0].network: there is no network \"lap\"; name one of [[networks]]",
        ),
        (
            "\"10.244.1.10\"",
            "\"10.244.1.1\"",
            "n.toml:22: endpoints[0].address: 10.244.1.1 is not an address for endpoints of 10.244.1.0/24; use one from 10.244.1.2 to 10.244.1.254",
        ),
        (
            "name = \"job\"",
            "name = \"web\"",
            "n.toml:25: endpoints[1].name: endpoint name web is used twice, first by endpoints[0].name; each must have its own",
        ),
        (
            "pid = 1234",
            "",
            "n.toml:25: endpoints[1]: an endpoint has either netns or pid; add netns = \"NAME\", which is made if it is not there",
        ),
        (
            "underlay = \"eth1\"",
            "underlay = \"192.168.56.12\"",
            "n.toml:15: networks[0].peers[0].vtep: 192.168.56.12 is this node's own underlay address; a peer is another node",
        ),
    ];
    for (from, to, message) in cases {
        // What follows from the mistake may be told after it.
        let refused = refused(from, to);
        assert_eq!(refused.lines().next(), Some(message), "{from} → {to}");
    }
}

#[test]
fn a_peer_that_is_this_node_is_told_alone() {
    // As in a file that was copied from the peer, and of which only the name was changed.
    let own = GOOD.replacen("node01", "node02", 1);
    let own = own.replacen("10.244.1.0/24", "10.244.2.0/24", 1);
    let own = own.replacen("10.244.1.10", "10.244.2.10", 1);
    let refused = parse(Path::new("n.toml"), &own).unwrap_err().to_string();
    assert_eq!(
        refused,
        "n.toml:14: networks[0].peers[0].name: node02 is this node's own name, and a peer is another node; \
         correct the peer's name or node.name, or remove the peer"
    );
}

#[test]
fn unknown_keys_and_wrong_types_name_their_line() {
    for (from, to, place) in [
        ("vni = 1", "vnii = 1", "n.toml:8: networks[0].vnii: "),
        ("vni = 1", "vni = \"one\"", "n.toml:8: networks[0].vni: "),
        (
            "mtu = \"auto\"",
            "mtu = \"big\"",
            "n.toml:11: networks[0].mtu: ",
        ),
    ] {
        let message = refused(from, to);
        assert!(message.starts_with(place), "{message}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_lines() {
    let text = GOOD
        .replace("vni = 1", "vni = 0")
        .replace("\"10.244.1.10\"", "\"10.9.9.9\"");
    let faults = parse(Path::new("n.toml"), &text).unwrap_err().faults;
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    // Without its network nothing can be said of the endpoint's address.
    assert_eq!(fields, ["networks[0].vni"]);

    let text = GOOD
        .replace("mtu = \"auto\"", "mtu = 100")
        .replace("\"10.244.1.10\"", "\"10.9.9.9\"");
    let faults = parse(Path::new("n.toml"), &text).unwrap_err().faults;
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["networks[0].mtu", "endpoints[0].address"]);
}

#[test]
fn more_prefix_lengths_than_the_data_plane_takes_are_refused() {
    use std::fmt::Write as _;

    let mut text = GOOD[..GOOD.find("[[endpoints]]").unwrap()].to_owned();
    for length in 25..=32 {
        write!(
            text,
            "[[networks.peers]]\nname = \"p{length}\"\nvtep = \"192.168.56.{length}\"\nsubnet = \"10.244.{length}.0/{length}\"\n"
        )
        .unwrap();
    }
    let message = parse(Path::new("n.toml"), &text).unwrap_err().to_string();
    assert!(
        message.contains("9 different prefix lengths, the data plane takes 8"),
        "{message}"
    );
}

#[test]
fn a_vtep_is_in_no_subnet() {
    let with = |vtep: &str, subnet: &str, other: &str| {
        let text = format!(
            "[node]\nname = \"n\"\nunderlay = \"eth1\"\nvtep = \"192.168.56.11\"\n[[networks]]\nname = \"lab\"\nvni = 1\n\
             cidr = \"192.168.0.0/16\"\nsubnet = \"192.168.1.0/24\"\n[[networks.peers]]\nname = \"p2\"\n\
             vtep = \"{vtep}\"\nsubnet = \"{subnet}\"\n[[networks.peers]]\nname = \"p3\"\n\
             vtep = \"10.0.0.3\"\nsubnet = \"{other}\"\n"
        );
        parse(Path::new("n.toml"), &text)
    };
    assert!(with("192.168.56.12", "192.168.2.0/24", "192.168.3.0/24").is_ok());
    for (vtep, subnet, other, fault) in [
        (
            "192.168.56.12",
            "192.168.56.12/30",
            "192.168.3.0/24",
            "n.toml:12: networks[0].peers[0].vtep: 192.168.56.12/30 of peer p2 has the VTEP 192.168.56.12 in it",
        ),
        (
            "192.168.3.12",
            "192.168.2.0/24",
            "192.168.3.0/24",
            "n.toml:12: networks[0].peers[0].vtep: 192.168.3.0/24 of peer p3 has the VTEP 192.168.3.12 in it",
        ),
        (
            "192.168.1.12",
            "192.168.2.0/24",
            "192.168.3.0/24",
            "n.toml:12: networks[0].peers[0].vtep: 192.168.1.0/24 of this node has the VTEP 192.168.1.12 in it",
        ),
        ("192.168.56.12", "192.168.2.0/24", "192.168.56.0/29", ""),
        (
            "10.0.0.2",
            "192.168.2.0/24",
            "192.168.56.0/25",
            "n.toml:17: networks[0].peers[1].subnet: 192.168.56.0/25 of peer p3 has the VTEP 192.168.56.11 in it",
        ),
    ] {
        let message = with(vtep, subnet, other)
            .err()
            .map(|error| error.to_string());
        let message = message.unwrap_or_default();
        assert!(message.starts_with(fault), "{message}");
        assert_eq!(
            message.lines().count(),
            usize::from(!fault.is_empty()),
            "{message}"
        );
    }
}

#[test]
fn a_vtep_is_an_address_of_this_node_beside_interfaces() {
    let with = |lines: &str| {
        let text = format!("[node]\nname = \"n\"\n{lines}\n");
        parse(Path::new("n.toml"), &text)
    };
    let good = with("underlay = [\"eth0\", \"eth1\"]\nvtep = [\"fd00::1\", \"10.0.0.1\"]").unwrap();
    let vteps: Vec<String> = good.node.vteps.iter().map(ToString::to_string).collect();
    assert_eq!(vteps, ["10.0.0.1", "fd00::1"]);
    for (lines, fault) in [
        (
            "underlay = \"10.0.0.1\"\nvtep = \"10.0.0.1\"",
            "node.underlay is an address already; name there the interfaces where tunnel packets arrive, such as \"eth1\", and here the address",
        ),
        (
            "underlay = \"eth1\"\nvtep = \"eth1\"",
            "invalid IP address \"eth1\"; write an address of the underlay alone, such as 192.168.56.12 or 2001:db8::12",
        ),
        (
            "underlay = \"eth1\"\nvtep = \"127.0.0.1\"",
            "127.0.0.1 cannot be a VTEP; use a unicast address of this node's underlay interface",
        ),
        (
            "underlay = \"eth1\"\nvtep = [\"10.0.0.1\", \"10.0.0.2\"]",
            "vtep has two IPv4 values, 10.0.0.1 and 10.0.0.2; keep one of them",
        ),
        (
            "underlay = \"eth1\"\nvtep = []",
            "vtep takes at least one address, not 0; name the address that other nodes know this one by, or remove the key",
        ),
    ] {
        let faults = with(lines).unwrap_err();
        let told = faults.faults.iter();
        let told: Vec<(&str, String)> = told
            .map(|located| (located.field.as_str(), located.fault.to_string()))
            .collect();
        assert_eq!(told, [("node.vtep", fault.to_owned())], "{lines}");
    }
}
