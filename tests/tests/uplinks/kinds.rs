//! Underlays of other kinds than a card: what has no Ethernet header, and what stands on a card.

use std::process::{Child, Command, Stdio};

use anyhow::Result;
use overlay_common::maps::DROPS;
use overlay_tests::{counters, guard::Guard, poll, run, script::words, traffic::Pair};

use crate::stand::{BOTH, by_device, configure, flows_fast, ip, lab, tells};

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

/// A kind of device, and the commands of `ip` by which a node gets one.
struct Kind {
    name: &'static str,
    device: &'static str,
    made: &'static str,
}

const KINDS: [Kind; 2] = [
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
];

#[test]
fn devices_that_stand_on_a_card() -> Result<()> {
    let guard = lab("tupkind")?;
    for (kind, number) in KINDS.iter().zip(20..) {
        let (addresses, device) = (format!("172.31.{number}."), kind.device);
        for node in [1, 2] {
            // What stands on a card shares its cable, and each would answer for the other.
            let quiet = "sysctl -qw net.ipv4.conf.eth1.arp_ignore=1";
            let namespace = &guard.topology().nodes[node - 1].namespace;
            run::checked(&words(format!("ip netns exec {namespace} {quiet}")))?;
            ip(&guard, node, kind.made)?;
            let up = format!(
                "addr add {addresses}{node}/24 dev {device}
                 link set {device} up"
            );
            ip(&guard, node, &up)?;
        }
        by_device(&guard, device, &addresses)?;
        flows_fast(&guard, kind.name)?;
        let (stranger, to) = (format!("{addresses}9"), format!("{addresses}1"));
        drops_a_stranger(&guard, device, &stranger, &to)?;
        for node in [1, 2] {
            ip(&guard, node, &format!("link del {device}"))?;
        }
    }
    Ok(guard.down()?)
}
