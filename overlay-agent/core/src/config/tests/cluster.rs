//! What the cluster's helper hands over, whatever is in the store.

use std::{path::Path, time::Duration};

use overlay_cluster::{
    book::{Book, Entry, MAX_LENGTHS},
    fragment,
    lease::Lease,
    network::Network,
};
use overlay_common::maps::MAX_PREFIX_LENGTHS;

use crate::config::parse_with;

pub(super) const FILE: &str = r#"
[node]
name = "n1"
underlay = "192.0.2.1"
[cluster]
etcd = "http://192.0.2.9:2379"
network = "lab"
"#;
const OWN: &str = r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:4f:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:6f:00:00:00:01"}}"#;

fn value(v4: &str, v6: &str, macs: [&str; 2], rest: &str) -> String {
    format!(
        r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{}"}}{rest}}}"#,
        macs[0], macs[1]
    )
}

fn named(name: &str) -> String {
    format!(r#","Overlay":{{"Node":"{name}"}}"#)
}

#[test]
fn one_bad_entry_leaves_out_itself_and_nobody_else() {
    let good = value(
        "192.0.2.2",
        "2001:db8::2",
        ["02:4f:00:00:00:02", "02:6f:00:00:00:02"],
        &named("n2"),
    );
    let other = |v4, v6, v4_mac, v6_mac| value(v4, v6, [v4_mac, v6_mac], "");
    let (v4, v6) = ("192.0.2.3", "2001:db8::3");
    let (mac4, mac6) = ("02:4f:00:00:00:03", "02:6f:00:00:00:03");
    let usable = other(v4, v6, mac4, mac6);
    // Whether both are peers then; of two that are one, the later.
    let cases = [
        ("a good one", usable.clone(), true),
        ("our address", other("192.0.2.1", v6, mac4, mac6), false),
        ("our IPv6", other(v4, "2001:db8::1", mac4, mac6), false),
        ("its IPv4", other("192.0.2.2", v6, mac4, mac6), false),
        ("its IPv6", other(v4, "2001:db8::2", mac4, mac6), false),
        ("its MAC", other(v4, v6, "02:4f:00:00:00:02", mac6), false),
        (
            "its MAC, crossed",
            other(v4, v6, "02:6f:00:00:00:02", mac6),
            false,
        ),
        ("one MAC", other(v4, v6, mac4, mac4), false),
        ("link-local", other(v4, "fe80::3", mac4, mac6), false),
        ("loopback", other(v4, "::1", mac4, mac6), false),
        ("multicast", other(v4, "ff02::3", mac4, mac6), false),
        ("mapped", other(v4, "::ffff:192.0.2.3", mac4, mac6), false),
        (
            "a name twice",
            value(v4, v6, [mac4, mac6], &named("n2")),
            true,
        ),
        (
            "a name like a name",
            value(v4, v6, [mac4, mac6], &named("n2-v6")),
            true,
        ),
        (
            "the name of another's address",
            value(v4, v6, [mac4, mac6], &named("192.0.2.2")),
            true,
        ),
        (
            "a character that no comment holds",
            value(v4, v6, [mac4, mac6], &named("x\u{7f}")),
            true,
        ),
    ];
    for (what, value, both) in cases {
        let text = handed_over(&[
            ("10.5.2.0-24&fd00:6:0:2::-64".to_owned(), good.clone()),
            ("10.5.3.0-24&fd00:6:0:3::-64".to_owned(), value),
        ]);
        let peers = text.matches("[[networks.peers]]").count();
        assert_eq!(peers, if both { 4 } else { 2 }, "{what}\n{text}");
        taken(what, &text);
    }
}

#[test]
fn more_prefix_lengths_than_can_be_looked_up_are_left_out() {
    assert_eq!(MAX_LENGTHS, MAX_PREFIX_LENGTHS);
    let entries: Vec<(String, String)> = (20..30_u8)
        .map(|length| {
            let number = length - 20;
            let value = format!(
                r#"{{"PublicIP":"192.0.2.1{number}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:4f:00:00:01:{number:02}"}}}}"#
            );
            (format!("10.5.{}.0-{length}", 16 * number), value)
        })
        .collect();
    let text = handed_over_in(
        r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#,
        "10.5.250.0-24",
        &entries,
    );
    assert_eq!(
        text.matches("[[networks.peers]]").count(),
        MAX_LENGTHS,
        "{text}"
    );
    taken("lengths", &text);
}

/// A node, and what the helper hands over of two others of which one has a key.
const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn keyed(encrypted: bool) -> String {
    let with_key = named("n2").replace('}', &format!(r#","PublicKey":"{KEY}"}}"#));
    let entry = |last: u8, rest: &str| {
        let macs = [
            format!("02:4f:00:00:00:0{last}"),
            format!("02:6f:00:00:00:0{last}"),
        ];
        let (v4, v6) = (format!("192.0.2.{last}"), format!("2001:db8::{last}"));
        let key = format!("10.5.{last}.0-24&fd00:6:0:{last}::-64");
        (key, value(&v4, &v6, [&macs[0], &macs[1]], rest))
    };
    let entries = [entry(2, &with_key), entry(3, &named("n3"))];
    let network = Network {
        encrypted,
        ..Network::read(BOTH.as_bytes()).unwrap()
    };
    of_network(&network, "10.5.1.0-24&fd00:6:0:1::-64", &entries)
}

#[test]
fn a_network_that_is_encrypted_has_those_who_have_a_key() {
    let file = format!("{FILE}encryption = \"wireguard\"\n");
    let file_of = |port| file.clone() + &format!("wireguard_port = {port}\n");
    let parse = |file: &str, text: &str| {
        let fragment = Some((Path::new("cluster.toml"), text));
        parse_with(Path::new("node.toml"), file, fragment).unwrap()
    };
    // What was told before this node encrypted has others, too.
    for text in [keyed(true), keyed(false)] {
        let (model, faults) = parse(&file, &text);
        assert!(faults.is_none(), "{faults:?}");
        let network = &model.networks[0];
        let ports = network.wireguard.map(|it| (it.port, it.next_port));
        assert_eq!(ports, Some((51_820, 51_821)));
        let [peer] = &network.peers[..] else {
            panic!("{:?}", network.peers);
        };
        assert_eq!(peer.name.as_str(), "n2");
        assert_eq!(peer.public_key.as_deref().unwrap().to_string(), KEY);
    }
    // Both families go inside one tunnel.
    let (model, _) = parse(&file, &keyed(true));
    let subnets = &model.networks[0].peers[0].subnets;
    assert_eq!(subnets.len(), 2, "{subnets:?}");
    // Without encryption all are there, with a key that waits.
    let (model, _) = parse(FILE, &keyed(false));
    let network = &model.networks[0];
    assert_eq!((network.peers.len(), network.wireguard), (4, None));
    assert!(network.peers.iter().any(|peer| peer.public_key.is_some()));

    let (_, faults) = parse(&file_of(8472), &keyed(true));
    let faults = faults.unwrap().to_string();
    assert!(
        faults.contains("cluster.wireguard_port: UDP port 8472 is that of the cluster's tunnels"),
        "{faults}"
    );
}

/// Of both families.
const BOTH: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:6::/48","Backend":{"Type":"vxlan"}}"#;

fn handed_over(entries: &[(String, String)]) -> String {
    handed_over_in(BOTH, "10.5.1.0-24&fd00:6:0:1::-64", entries)
}

fn handed_over_in(network: &str, own: &str, entries: &[(String, String)]) -> String {
    of_network(&Network::read(network.as_bytes()).unwrap(), own, entries)
}

fn of_network(network: &Network, own: &str, entries: &[(String, String)]) -> String {
    let own_lease = Lease::read(OWN.as_bytes()).unwrap();
    let own = own.parse().unwrap();
    let mut book = Book::default();
    for (revision, (key, value)) in (1..).zip(entries) {
        let entry = Entry {
            key: key.clone(),
            value: value.clone().into_bytes(),
            create_revision: revision,
            mod_revision: revision,
            lease: 1,
        };
        book.put(&entry, Duration::ZERO);
    }
    let (nodes, _) = book.peers(network, Some(own), &own_lease);
    fragment::write("lab", network, own, &nodes)
}

/// The agent takes it whole, and it is remembered as it was.
fn taken(what: &str, text: &str) {
    let path = Path::new("cluster.toml");
    let (model, faults) = parse_with(Path::new("node.toml"), FILE, Some((path, text))).unwrap();
    if let Some(faults) = faults {
        panic!("{what}: {faults}\n{text}");
    }
    let peers = text.matches("[[networks.peers]]").count();
    assert_eq!(model.networks[0].peers.len(), peers, "{what}");
    assert_eq!(
        fragment::read(text).len(),
        text.matches("\n# lease ").count(),
        "{what}"
    );
}
