//! Underlays of other kinds than a card: what has no Ethernet header, and what stands on a card.
//!
//! What this machine's kernel may lack (bonds, VLANs, VRFs, `WireGuard`) is tried on Debian's.

use std::fs;

use anyhow::Result;
use overlay_common::maps::DROPS;
use overlay_tests::{
    counters, families::Family, guard::Guard, kernel, poll, run, run::Running, traffic::Pair,
};

use crate::stand::{by_device, flows_fast, ip, second_cable};

/// A TUN device of a node, as a VPN has one; it goes with its process.
fn tun(guard: &Guard, node: usize, device: &str, addresses: &str) -> Result<Running> {
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[node - 1], &nodes[2 - node]);
    let tunnel = Running::inside(
        &here.namespace,
        &format!(
            "socat TUN,tun-name={device},iff-no-pi,iff-up \
             UDP4-DATAGRAM:{}:5555,bind={}:5555",
            there.underlay, here.underlay
        ),
    )?;
    poll::until_ok(|| ip(guard, node, &format!("link set {device} mtu 1420")))?;
    let length = if is_ipv6(addresses) { 64 } else { 24 };
    let address = format!("addr add {addresses}{node}/{length} dev {device} nodad");
    ip(guard, node, &address)?;
    Ok(tunnel)
}

fn is_ipv6(address: &str) -> bool {
    address.contains(':')
}

/// What comes from no peer is dropped by the program there, as on any underlay.
fn drops_a_stranger(guard: &Guard, device: &str, addresses: &str) -> Result<()> {
    let (stranger, to) = (format!("{addresses}9"), format!("{addresses}1"));
    let instance = &guard.agent(1).instance;
    let strangers = || -> Result<u64> {
        let drops = counters::reasons(instance, DROPS)?;
        let mut drops = drops.into_iter();
        let unknown = drops.find(|(reason, _)| reason == "unknown_vtep");
        Ok(unknown.map_or(0, |(_, packets)| packets))
    };
    let before = strangers()?;
    let (length, socket) = if is_ipv6(addresses) {
        (128, format!("UDP6-SENDTO:[{to}]:4789,bind=[{stranger}]"))
    } else {
        (32, format!("UDP4-SENDTO:{to}:4789,bind={stranger}"))
    };
    let address = format!("{stranger}/{length} dev {device}");
    ip(guard, 2, &format!("addr add {address} nodad"))?;
    let send = format!("printf '\\10\\0\\0\\0\\0\\0\\1\\0judge me' | socat - {socket}");
    let namespace = &guard.topology().nodes[1].namespace;
    run::checked(["ip", "netns", "exec", namespace, "sh", "-c", &send].map(str::to_owned))?;
    let counted = poll::until_well(|| match strangers() {
        Ok(now) if now == before + 1 => None,
        Ok(now) => Some(format!("{before} before, {now} now")),
        Err(error) => Some(format!("{error:#}")),
    });
    assert_eq!(counted, Ok(()), "by {device}");
    ip(guard, 2, &format!("addr del {address}"))
}

/// Both directions, streams and datagrams, and the rules.
fn is_an_underlay(guard: &Guard, name: &str, device: &str, addresses: &str) -> Result<()> {
    by_device(guard, device, addresses)?;
    flows_fast(guard, name)?;
    let nodes = &guard.topology().nodes;
    let path = Pair::between(&nodes[0].containers[0], &nodes[1].containers[0], Family::V4);
    path.tcp(&[1 << 18])?;
    path.udp(&[1200])?;
    drops_a_stranger(guard, device, addresses)?;
    println!("tried: {name}");
    Ok(())
}

#[test]
fn a_device_without_ethernet() -> Result<()> {
    let guard = Guard::pair("tupvpn")?;
    // In the place of an Ethernet type there is one of IPv4 in the first of the addresses.
    for (device, addresses, mtu) in [
        ("vpn0", "8.0.31.", 1370),
        ("vpn1", "172.31.0.", 1370),
        ("vpn2", "fd31::", 1350),
    ] {
        if is_ipv6(addresses) && !kernel::strips_other_family() {
            println!("this kernel takes IPv4 out of IPv6 itself");
            continue;
        }
        let _ends = [
            tun(&guard, 1, device, addresses)?,
            tun(&guard, 2, device, addresses)?,
        ];
        is_an_underlay(&guard, "a TUN device", device, addresses)?;
        let status = guard.agent(1).json(&["status"])?;
        assert_eq!(
            status["vteps"],
            serde_json::json!([format!("{addresses}1")])
        );
        assert_eq!(status["networks"][0]["mtu"], mtu);
    }
    Ok(guard.down()?)
}

/// A kind of device, and how a node gets one: N is the node's number, O the other's.
struct Kind {
    name: &'static str,
    device: &'static str,
    /// Commands of `ip`.
    made: &'static str,
    removed: &'static str,
}

/// What every kernel that this is tried on has.
const EVERYWHERE: [Kind; 2] = [
    Kind {
        name: "bridge",
        device: "br9",
        made: "link add br9 type bridge
               link set eth1 master br9",
        removed: "link del br9",
    },
    Kind {
        name: "macvlan",
        device: "mv0",
        made: "link add mv0 link eth1 type macvlan mode bridge",
        removed: "link del mv0",
    },
];

const VLANS: [Kind; 3] = [
    Kind {
        name: "ipvlan",
        device: "iv0",
        made: "link add iv0 link eth1 type ipvlan mode l2",
        removed: "link del iv0",
    },
    Kind {
        name: "VLAN",
        device: "eth1.5",
        made: "link add link eth1 name eth1.5 type vlan id 5",
        removed: "link del eth1.5",
    },
    Kind {
        name: "QinQ",
        device: "eth1.6.7",
        made: "link add link eth1 name eth1.6 type vlan protocol 802.1ad id 6
               link set eth1.6 up
               link add link eth1.6 name eth1.6.7 type vlan id 7",
        removed: "link del eth1.6",
    },
];

const BONDS: [Kind; 2] = [
    Kind {
        name: "bond, active-backup",
        device: "bond1",
        made: "link add bond1 type bond mode active-backup miimon 100
               link set eth1 down
               link set eth1 master bond1
               link set eth2 down
               link set eth2 master bond1",
        removed: "link del bond1",
    },
    Kind {
        name: "bond, LACP",
        device: "bond4",
        made: "link add bond4 type bond mode 802.3ad miimon 100 lacp_rate fast
               link set eth1 down
               link set eth1 master bond4
               link set eth2 down
               link set eth2 master bond4",
        removed: "link del bond4",
    },
];

const TUNNELS: [Kind; 2] = [
    Kind {
        name: "IPIP",
        device: "tun4",
        made: "link add tun4 type ipip local 192.168.56.1N remote 192.168.56.1O",
        removed: "link del tun4",
    },
    Kind {
        name: "GRE",
        device: "gre4",
        made: "link add gre4 type gre local 192.168.56.1N remote 192.168.56.1O",
        removed: "link del gre4",
    },
];

fn of_node(text: &str, node: usize) -> String {
    let (own, other) = (node.to_string(), (3 - node).to_string());
    text.replace('N', &own).replace('O', &other)
}

/// Has a lab's nodes reach each other by devices of these kinds, one after the other.
fn each_is_an_underlay(name: &str, kinds: &[Kind]) -> Result<()> {
    let guard = Guard::pair(name)?;
    second_cable(&guard)?;
    for (kind, number) in kinds.iter().zip(20..) {
        let (addresses, device) = (format!("172.31.{number}."), kind.device);
        for node in [1, 2] {
            // What stands on a card shares its cable, and each would answer for the other.
            let quiet = "sysctl -qw net.ipv4.conf.eth1.arp_ignore=1";
            let namespace = &guard.topology().nodes[node - 1].namespace;
            run::checked(format!("ip netns exec {namespace} {quiet}"))?;
            ip(&guard, node, &of_node(kind.made, node))?;
            let up = format!(
                "addr add {addresses}{node}/24 dev {device}
                 link set {device} up
                 link set eth1 up
                 link set eth2 up"
            );
            ip(&guard, node, &up)?;
        }
        is_an_underlay(&guard, kind.name, device, &addresses)?;
        for node in [1, 2] {
            ip(&guard, node, kind.removed)?;
            ip(&guard, node, "link set eth1 up\nlink set eth2 up")?;
        }
    }
    Ok(guard.down()?)
}

#[test]
fn bridges_and_macvlans() -> Result<()> {
    each_is_an_underlay("tupkind", &EVERYWHERE)
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn vlans_and_ipvlans() -> Result<()> {
    each_is_an_underlay("tupvlan", &VLANS)
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn bonds() -> Result<()> {
    each_is_an_underlay("tupbond", &BONDS)
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn tunnels_of_the_kernel() -> Result<()> {
    each_is_an_underlay("tuptun", &TUNNELS)
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn wireguard() -> Result<()> {
    let guard = Guard::pair("tupwg")?;
    let keys = tempfile::tempdir()?;
    let nodes = &guard.topology().nodes;
    let mut public = Vec::new();
    for node in nodes {
        let key = run::checked("wg genkey")?;
        let file = keys.path().join(&node.namespace);
        fs::write(&file, &key)?;
        let shown = format!("wg pubkey < {}", file.display());
        let shown = run::checked(["sh", "-c", &shown].map(str::to_owned))?;
        public.push(shown.trim().to_owned());
    }
    for node in nodes {
        let number = usize::from(node.number);
        let other = 3 - number;
        let file = keys.path().join(&node.namespace);
        ip(
            &guard,
            number,
            &format!("link add wg0 type wireguard\naddr add 172.31.40.{number}/24 dev wg0"),
        )?;
        run::checked(format!(
            "ip netns exec {} wg set wg0 private-key {} listen-port 51820 peer {} \
             allowed-ips 172.31.40.{other}/32,172.31.40.9/32 endpoint 192.168.56.1{other}:51820",
            node.namespace,
            file.display(),
            public[other - 1]
        ))?;
        ip(&guard, number, "link set wg0 up")?;
    }
    is_an_underlay(&guard, "WireGuard", "wg0", "172.31.40.")?;
    Ok(guard.down()?)
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn a_card_in_a_vrf() -> Result<()> {
    let guard = Guard::pair("tupvrf")?;
    for node in [1, 2] {
        let vrf = "link add vrf9 type vrf table 9\nlink set vrf9 up\nlink set eth1 master vrf9";
        ip(&guard, node, vrf)?;
    }
    // Tunnels belong to no VRF; what is said makes them heed this one.
    for agent in guard.agents() {
        agent.tells("it belongs to VRF vrf9")?;
    }
    for node in &guard.topology().nodes {
        let rule = format!("rule add from {} lookup 9", node.underlay);
        ip(&guard, node.number.into(), &rule)?;
        let setting = "sysctl -qw net.ipv4.udp_l3mdev_accept=1";
        run::checked(format!("ip netns exec {} {setting}", node.namespace))?;
    }
    flows_fast(&guard, "a VRF")?;
    let nodes = &guard.topology().nodes;
    let path = Pair::between(&nodes[0].containers[0], &nodes[1].containers[0], Family::V4);
    path.tcp(&[1 << 18])?;
    // In fragments: those are the kernel's.
    path.udp(&[1200, 4000])?;
    println!("tried: VRF");
    Ok(guard.down()?)
}
