//! Underlays of other kinds than a card: what has no Ethernet header, and what stands on a card.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::Result;
use overlay_common::maps::DROPS;
use overlay_tests::{counters, guard::Guard, poll, run, script::words, traffic::Pair};

use crate::stand::{BOTH, by_device, configure, flows_fast, ip, lab, second_cable, tells};

#[test]
fn an_interface_by_another_name_of_its() -> Result<()> {
    let guard = lab("tupalt")?;
    let long = "the-card-in-the-second-slot-of-rack-7";
    ip(
        &guard,
        1,
        &format!("link property add dev eth1 altname {long}"),
    )?;
    let by_other = format!("underlay = \"{long}\"");
    configure(&guard, &guard.topology().nodes[0], &[(BOTH.0, &by_other)])?;
    flows_fast(&guard, "another name of the same card")?;
    assert_eq!(
        guard.agent(1).json(&["status"])?["underlay"],
        serde_json::json!(["eth1"])
    );
    // Without it, its interface is none of that name.
    ip(
        &guard,
        1,
        &format!("link property del dev eth1 altname {long}"),
    )?;
    tells(
        &guard.agent(1),
        "there is no such interface (there are: eth1",
    )?;
    ip(
        &guard,
        1,
        &format!("link property add dev eth1 altname {long}"),
    )?;
    flows_fast(&guard, "its name's return")?;
    Ok(guard.down()?)
}

/// A TUN device of a node, as a VPN has one; it goes with its process.
struct Tun(Child);

impl Tun {
    fn make(guard: &Guard, node: usize, device: &str, address: &str) -> Result<Self> {
        let nodes = &guard.topology().nodes;
        let (here, there) = (&nodes[node - 1], &nodes[2 - node]);
        let argv = words(format!(
            "ip netns exec {} socat TUN:{address}/30,tun-name={device},iff-no-pi,iff-up \
             UDP4-DATAGRAM:{}:5555,bind={}:5555",
            here.namespace, there.underlay, here.underlay
        ));
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .spawn()?;
        let tun = Self(child);
        let is_up = poll::until_well(|| {
            ip(guard, node, &format!("link set {device} mtu 1420"))
                .err()
                .map(|error| format!("{error:#}"))
        });
        assert_eq!(is_up, Ok(()));
        Ok(tun)
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("socat was not ended: {error}");
        }
    }
}

/// What comes from no peer is dropped by the program there, as on any underlay.
fn drops_a_stranger(guard: &Guard, device: &str, stranger: &str, to: &str) -> Result<()> {
    let instance = &guard.agent(1).instance;
    let strangers = || -> Result<u64> {
        let drops = counters::reasons(instance, DROPS)?;
        let mut drops = drops.into_iter();
        let unknown = drops.find(|(reason, _)| reason == "unknown_vtep");
        Ok(unknown.map_or(0, |(_, packets)| packets))
    };
    let before = strangers()?;
    ip(guard, 2, &format!("addr add {stranger}/32 dev {device}"))?;
    let send = format!(
        "printf '\\10\\0\\0\\0\\0\\0\\1\\0judge me' | socat - UDP4-SENDTO:{to}:4789,bind={stranger}"
    );
    let namespace = &guard.topology().nodes[1].namespace;
    run::checked(&["ip", "netns", "exec", namespace, "sh", "-c", &send].map(str::to_owned))?;
    let counted = poll::until_well(|| match strangers() {
        Ok(now) if now == before + 1 => None,
        Ok(now) => Some(format!("{before} before, {now} now")),
        Err(error) => Some(format!("{error:#}")),
    });
    assert_eq!(counted, Ok(()));
    ip(guard, 2, &format!("addr del {stranger}/32 dev {device}"))
}

#[test]
fn a_device_without_ethernet() -> Result<()> {
    let guard = lab("tupvpn")?;
    // In the place of an Ethernet type there is one of IPv4 in the first of the addresses.
    for (device, addresses) in [("vpn0", "8.0.31."), ("vpn1", "172.31.0.")] {
        let _ends = [
            Tun::make(&guard, 1, device, &format!("{addresses}1"))?,
            Tun::make(&guard, 2, device, &format!("{addresses}2"))?,
        ];
        by_device(&guard, device, addresses)?;
        flows_fast(&guard, "a TUN device")?;
        let status = guard.agent(1).json(&["status"])?;
        assert_eq!(
            status["vteps"],
            serde_json::json!([format!("{addresses}1")])
        );
        assert_eq!(status["networks"][0]["mtu"], 1370);
        let nodes = &guard.topology().nodes;
        let path = Pair {
            client: &nodes[0].containers[0].namespace,
            server: &nodes[1].containers[0].namespace,
            address: nodes[1].containers[0].address.into(),
        };
        path.tcp(&[1 << 18])?;
        path.udp(&[1200])?;
        let (stranger, to) = (format!("{addresses}9"), format!("{addresses}1"));
        drops_a_stranger(&guard, device, &stranger, &to)?;
    }
    Ok(guard.down()?)
}

/// A kind of device, and how a node gets one: N is the node's number, O the other's.
struct Kind {
    name: &'static str,
    device: &'static str,
    /// Commands of `ip`, the first of which fails where the kernel has no such devices.
    made: &'static str,
}

/// What every kernel that this is tried on has.
const EVERYWHERE: [&str; 2] = ["bridge", "macvlan"];

const KINDS: [Kind; 9] = [
    Kind {
        name: "bridge",
        device: "br9",
        made: "link add br9 type bridge
               link set eth1 master br9",
    },
    Kind {
        name: "macvlan",
        device: "mv0",
        made: "link add mv0 link eth1 type macvlan mode bridge",
    },
    Kind {
        name: "ipvlan",
        device: "iv0",
        made: "link add iv0 link eth1 type ipvlan mode l2",
    },
    Kind {
        name: "VLAN",
        device: "eth1.5",
        made: "link add link eth1 name eth1.5 type vlan id 5",
    },
    Kind {
        name: "QinQ",
        device: "eth1.6.7",
        made: "link add link eth1 name eth1.6 type vlan protocol 802.1ad id 6
               link set eth1.6 up
               link add link eth1.6 name eth1.6.7 type vlan id 7",
    },
    Kind {
        name: "bond, active-backup",
        device: "bond1",
        made: "link add bond1 type bond mode active-backup miimon 100
               link set eth1 down
               link set eth1 master bond1
               link set eth2 down
               link set eth2 master bond1",
    },
    Kind {
        name: "bond, LACP",
        device: "bond4",
        made: "link add bond4 type bond mode 802.3ad miimon 100 lacp_rate fast
               link set eth1 down
               link set eth1 master bond4
               link set eth2 down
               link set eth2 master bond4",
    },
    Kind {
        name: "IPIP",
        device: "tun4",
        made: "link add tun4 type ipip local 192.168.56.1N remote 192.168.56.1O",
    },
    Kind {
        name: "GRE",
        device: "gre4",
        made: "link add gre4 type gre local 192.168.56.1N remote 192.168.56.1O",
    },
];

fn of_node(text: &str, node: usize) -> String {
    let (own, other) = (node.to_string(), (3 - node).to_string());
    text.replace('N', &own).replace('O', &other)
}

/// Whether this kernel has a kind of device.
fn is_there(guard: &Guard, kind: &Kind) -> Result<bool> {
    let namespace = &guard.topology().nodes[0].namespace;
    let first = kind.made.lines().next().unwrap_or_default();
    let tried = run::output(&words(format!("ip -n {namespace} {}", of_node(first, 1))))?;
    if tried.success {
        ip(guard, 1, &format!("link del {}", device_of(first)))?;
    } else {
        assert!(
            tried.stderr.contains("Unknown device type"),
            "{}",
            tried.stderr
        );
    }
    Ok(tried.success)
}

/// The device that a command makes.
fn device_of(command: &str) -> &str {
    let mut words = command.split_whitespace().skip_while(|word| *word != "add");
    words.next();
    match words.next() {
        Some("link") => words.nth(2).unwrap_or_default(),
        name => name.unwrap_or_default(),
    }
}

#[test]
fn devices_that_stand_on_a_card() -> Result<()> {
    let guard = lab("tupkind")?;
    second_cable(&guard)?;
    let mut there = Vec::new();
    for (kind, number) in KINDS.iter().zip(20..) {
        if !is_there(&guard, kind)? {
            println!("this kernel has no {}", kind.name);
            continue;
        }
        there.push(kind.name);
        let (addresses, device) = (format!("172.31.{number}."), kind.device);
        for node in [1, 2] {
            // What stands on a card shares its cable, and each would answer for the other.
            let quiet = "sysctl -qw net.ipv4.conf.eth1.arp_ignore=1";
            let namespace = &guard.topology().nodes[node - 1].namespace;
            run::checked(&words(format!("ip netns exec {namespace} {quiet}")))?;
            ip(&guard, node, &of_node(kind.made, node))?;
            let up = format!(
                "addr add {addresses}{node}/24 dev {device}
                 link set {device} up
                 link set eth1 up
                 link set eth2 up"
            );
            ip(&guard, node, &up)?;
        }
        by_device(&guard, device, &addresses)?;
        flows_fast(&guard, kind.name)?;
        let (stranger, to) = (format!("{addresses}9"), format!("{addresses}1"));
        drops_a_stranger(&guard, device, &stranger, &to)?;
        for node in [1, 2] {
            let first = kind.made.lines().next().unwrap_or_default();
            let removed = format!(
                "link del {}
                 link set eth1 up
                 link set eth2 up",
                device_of(first)
            );
            ip(&guard, node, &removed)?;
        }
    }
    assert!(
        EVERYWHERE.iter().all(|kind| there.contains(kind)),
        "{there:?}"
    );
    println!("tried: {}", there.join("; "));
    Ok(guard.down()?)
}

#[test]
fn an_underlay_of_wireguard() -> Result<()> {
    let guard = lab("tupwg")?;
    let keys = tempfile::tempdir()?;
    let nodes = &guard.topology().nodes;
    let first = &nodes[0].namespace;
    let tried = run::output(&words(format!("ip -n {first} link add wg9 type wireguard")))?;
    if !tried.success {
        assert!(
            tried.stderr.contains("Unknown device type"),
            "{}",
            tried.stderr
        );
        println!("this kernel has no WireGuard");
        return Ok(guard.down()?);
    }
    let mut public = Vec::new();
    for node in nodes {
        let key = run::checked(&words("wg genkey"))?;
        let file = keys.path().join(&node.namespace);
        fs::write(&file, &key)?;
        let shown = format!("wg pubkey < {}", file.display());
        let shown = run::checked(&["sh", "-c", &shown].map(str::to_owned))?;
        public.push(shown.trim().to_owned());
    }
    for node in nodes {
        let (number, other) = (node.number, 3 - node.number);
        let file = keys.path().join(&node.namespace);
        ip(
            &guard,
            number,
            &format!("link add wg0 type wireguard\naddr add 172.31.40.{number}/24 dev wg0"),
        )?;
        run::checked(&words(format!(
            "ip netns exec {} wg set wg0 private-key {} listen-port 51820 peer {} \
             allowed-ips 172.31.40.{other}/32,172.31.40.9/32 endpoint 192.168.56.1{other}:51820",
            node.namespace,
            file.display(),
            public[other - 1]
        )))?;
        ip(&guard, number, "link set wg0 up")?;
    }
    by_device(&guard, "wg0", "172.31.40.")?;
    flows_fast(&guard, "WireGuard")?;
    let path = Pair {
        client: &nodes[0].containers[0].namespace,
        server: &nodes[1].containers[0].namespace,
        address: nodes[1].containers[0].address.into(),
    };
    path.tcp(&[1 << 20])?;
    path.udp(&[1200])?;
    drops_a_stranger(&guard, "wg0", "172.31.40.9", "172.31.40.1")?;
    println!("tried: WireGuard");
    Ok(guard.down()?)
}

#[test]
fn a_card_in_a_vrf_is_told() -> Result<()> {
    let guard = lab("tupvrf")?;
    let first = &guard.topology().nodes[0].namespace;
    let tried = run::output(&words(format!(
        "ip -n {first} link add vrf9 type vrf table 9"
    )))?;
    if !tried.success {
        assert!(
            tried.stderr.contains("Unknown device type"),
            "{}",
            tried.stderr
        );
        println!("this kernel has no VRF");
        return Ok(guard.down()?);
    }
    ip(&guard, 1, "link set vrf9 up\nlink set eth1 master vrf9")?;
    tells(&guard.agent(1), "192.168.56.12")?;
    println!("told: {}", guard.agent(1).ask(&["status"])?.stdout);
    ip(&guard, 1, "link set eth1 nomaster")?;
    flows_fast(&guard, "the card's return")?;
    Ok(guard.down()?)
}
