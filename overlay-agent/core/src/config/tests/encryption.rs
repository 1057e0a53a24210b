//! What a configuration says of encryption, and what can be wrong with that.

use std::path::Path;

use super::parse;
use crate::{config::text, model::WireGuard};

const ENCRYPTED: &str = r#"
[node]
name = "node01"
underlay = "eth1"

[[networks]]
name = "lab"
vni = 1
cidr = "10.244.0.0/16"
subnet = "10.244.1.0/24"
encryption = "wireguard"
wireguard_next_port = 51900

[[networks.peers]]
name = "node02"
vtep = "192.168.56.12"
subnet = "10.244.2.0/24"
public_key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="

[[networks.peers]]
name = "node03"
vtep = "192.168.56.13"
subnet = "10.244.3.0/24"
public_key = "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw="
next_public_key = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="

[[networks]]
name = "blue"
vni = 2
port = 8472
cidr = "10.245.0.0/16"
subnet = "10.245.1.0/24"
encryption = "wireguard"
wireguard_port = 51821
"#;

#[test]
fn it_reaches_the_model_and_a_file_again() {
    let model = parse(Path::new("n.toml"), ENCRYPTED).unwrap();
    let [lab, blue] = &model.networks[..] else {
        panic!("two networks");
    };
    let (port, next_port) = (WireGuard::USUAL_PORT, 51_900);
    assert_eq!(lab.wireguard, Some(WireGuard { port, next_port }));
    assert_eq!(blue.wireguard.unwrap().next_port, 51_822);
    assert_eq!((lab.outer_port(), lab.port), (51_820, 4789));
    assert_eq!(blue.outer_port(), 51_821);
    let key = lab.peers[0].public_key.as_deref().unwrap().to_string();
    assert_eq!(key, "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=");
    assert!(lab.peers[0].next_public_key.is_none());
    let next = lab.peers[1].next_public_key.as_deref().unwrap().to_string();
    assert_eq!(next, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=");
    let again = parse(Path::new("n.toml"), &text(&model)).unwrap();
    assert_eq!(again, model);

    // A key may be there before it is needed.
    let plain = ENCRYPTED.replace("encryption = \"wireguard\"\n", "");
    let plain = plain.replace("wireguard_port = 51821", "");
    let plain = plain.replace("wireguard_next_port = 51900", "");
    let model = parse(Path::new("n.toml"), &plain).unwrap();
    assert_eq!(model.networks[0].wireguard, None);
    assert!(model.networks[0].peers[0].public_key.is_some());
}

#[test]
fn what_is_wrong_is_told_by_line() {
    let key3 = "public_key = \"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=\"";
    for (from, to, expected) in [
        (
            key3,
            "",
            "n.toml:21: networks[0].peers[1].public_key: the network is encrypted",
        ),
        (
            key3,
            "public_key = \"B6N8v\"",
            "n.toml:24: networks[0].peers[1].public_key: \"B6N8v\" is not a public key",
        ),
        (
            key3,
            "public_key = \"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"",
            "n.toml:24: networks[0].peers[1].public_key: public key HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw= is used twice",
        ),
        (
            "vtep = \"192.168.56.13\"",
            "vtep = \"2001:db8::13\"",
            "n.toml:22: networks[0].peers[1].vtep: encryption takes only IPv4 VTEPs",
        ),
        (
            "wireguard_port = 51821",
            "",
            "n.toml:28: networks[1].wireguard_port: UDP port 51820 is that of WireGuard for network lab",
        ),
        (
            "wireguard_port = 51821",
            "wireguard_port = 4789",
            "n.toml:34: networks[1].wireguard_port: UDP port 4789 is that of network lab",
        ),
        (
            "wireguard_next_port = 51900",
            "wireguard_next_port = 51821",
            "n.toml:12: networks[0].wireguard_next_port: UDP port 51821 is that of WireGuard for network blue",
        ),
        (
            "wireguard_next_port = 51900",
            "wireguard_next_port = 0",
            "n.toml:12: networks[0].wireguard_next_port: UDP port 0 is not a port; choose another wireguard_next_port",
        ),
        (
            "next_public_key = \"CQk",
            "next_public_key = \"!Qk",
            "n.toml:25: networks[0].peers[1].next_public_key: \"!",
        ),
        (
            "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
            "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
            "n.toml:25: networks[0].peers[1].next_public_key: public key HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw= is used twice",
        ),
        (
            "wireguard_port = 51821",
            "wireguard_port = 0",
            "n.toml:34: networks[1].wireguard_port: UDP port 0 is not a port",
        ),
        (
            "subnet = \"10.245.1.0/24\"\nencryption = \"wireguard\"",
            "subnet = \"10.245.1.0/24\"",
            "n.toml:33: networks[1].wireguard_port: the network is not encrypted",
        ),
    ] {
        assert!(ENCRYPTED.contains(from), "{from}");
        let text = ENCRYPTED.replace(from, to);
        let faults = parse(Path::new("n.toml"), &text).unwrap_err().to_string();
        assert!(faults.starts_with(expected), "{to}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}
