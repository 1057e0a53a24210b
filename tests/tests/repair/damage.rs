//! What can be broken, by the commands that break it.

use anyhow::Result;
use overlay_tests::told;
use serde_json::Value;

use crate::stand::Stand;

/// Of packets, in bytes: what no length field of a header can tell.
const BIG: u32 = 180_000;

type Make = dyn Fn(&Stand) -> Result<()>;
type Look = dyn Fn(&Stand) -> Result<String>;

/// Something that others do to our objects, and where one sees that it is undone.
pub(crate) struct Damage {
    pub(crate) what: String,
    pub(crate) make: Box<Make>,
    pub(crate) look: Box<Look>,
    /// Whether the bystander's packets pass what is broken.
    pub(crate) in_path: bool,
}

impl Damage {
    /// By a command on the node; what another one prints tells.
    fn on_node(command: impl Into<String>, look: impl Into<String>) -> Self {
        let (command, look) = (command.into(), look.into());
        Self {
            what: command.clone(),
            make: Box::new(move |stand| stand.on_node(&command).map(drop)),
            look: Box::new(move |stand| steady(&stand.on_node(&look)?)),
            in_path: false,
        }
    }

    /// By a command in the first container.
    fn inside(command: impl Into<String>, look: impl Into<String>) -> Self {
        let (command, look) = (command.into(), look.into());
        Self {
            what: format!("{command} (in the container)"),
            make: Box::new(move |stand| {
                let container = &stand.container(1, 1).namespace;
                Stand::within(container, &command).map(drop)
            }),
            look: Box::new(move |stand| {
                let container = &stand.container(1, 1).namespace;
                steady(&Stand::within(container, &look)?)
            }),
            in_path: false,
        }
    }
}

/// Without what changes by itself or when a device is made anew: indices, timers, states of
/// neighbours, the time to live of addresses.
fn steady(text: &str) -> Result<String> {
    let json = text.starts_with(['[', '{']);
    if !json {
        return Ok(text.to_owned());
    }
    let lines = told::lines(text, &is_steady)?;
    // Nobody chooses the MACs of these.
    let any_mac = |line: &str| line.contains("ifname=ovlpad") || line.contains("ifname=ovl-");
    let lines = lines.iter().map(|line| {
        let words = line
            .split(' ')
            .filter(|word| !any_mac(line) || !word.starts_with("address="));
        words.collect::<Vec<_>>().join(" ")
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn is_steady(path: &str, value: &Value) -> bool {
    /// What changes by itself, or with a device that is made anew.
    const CHANGING: [&str; 16] = [
        "ifindex",
        "link_index",
        "link_netnsid",
        "qdisc",
        "port_id",
        "port_no",
        "designated_port",
        "packets",
        "bytes",
        "handle",
        "valid_life_time",
        "preferred_life_time",
        "root_id",
        "bridge_id",
        "fdb_n_learned",
        // The kernel tells of the carrier with a delay; a port's state is another matter.
        "operstate",
    ];
    let key = told::key(path);
    match key {
        "flags" => !["NO-CARRIER", "LOWER_UP", "linkdown", "dead"]
            .contains(&value.as_str().unwrap_or_default()),
        _ => !key.ends_with("_timer") && !CHANGING.contains(&key) && !path.starts_with("metainfo"),
    }
}

/// Takes a device down and gives it another name: two steps before Linux 6.2, and nobody comes in
/// between.
fn down_and_rename(device: &str) -> String {
    format!("printf 'link set {device} down\\nlink set {device} name mine0\\n' | ip -batch -")
}

/// Devices, and what they are like.
pub(crate) fn links(stand: &Stand) -> Vec<Damage> {
    let veth = stand.veth(1);
    let mut damages = Vec::new();
    let look = |device: &str| format!("ip -d -j link show dev {device}");
    for device in ["ovlbr1", "ovl1", "ovlpad1", "ovlbr2", "ovl6-2", &veth] {
        let on = |command: String| Damage::on_node(command, look(device));
        damages.push(on(format!("ip link del {device}")));
        damages.push(on(format!("ip link set {device} alias mine")));
        if !device.contains("pad") {
            damages.push(on(format!("ip link set {device} down")));
            damages.push(on(format!("ip link set {device} mtu 1300")));
        }
    }
    for device in ["ovlbr1", "ovl1", "ovl6-2"] {
        let command = format!("ip link set {device} address 02:00:00:00:00:07");
        damages.push(Damage::on_node(command, look(device)));
    }
    damages.extend([
        Damage::on_node("ip link set ovlpad1 up", look("ovlpad1")),
        Damage::on_node(format!("ip link set {veth} nomaster"), look(&veth)),
        Damage::on_node("ip link set ovlpad1 nomaster", look("ovlpad1")),
        Damage::on_node(
            // Before Linux 6.2 one that is up keeps its name.
            format!(
                "ip link set {veth} name mine0 || {}",
                down_and_rename(&veth)
            ),
            look(&veth),
        ),
        Damage::on_node(down_and_rename("ovl1"), look("ovl1")),
        // What comes in its place loses its mark before anybody has looked at it.
        Damage::on_node(
            "ip link del ovl1; for try in $(seq 9999); do \
             ip link set ovl1 alias mine 2>/dev/null && break; done",
            look("ovl1"),
        ),
        Damage::on_node("ip link set ovl1 type vxlan ttl 5", look("ovl1")),
        Damage::on_node("ip link set ovl1 type vxlan learning", look("ovl1")),
        Damage::on_node("ip link set ovlbr1 type bridge stp_state 1", look("ovlbr1")),
    ]);
    // Only veths can be told to send such packets, which the kernel cuts before other devices.
    damages.push(Damage::on_node(
        format!("ip link set {veth} gso_max_size {BIG} gro_max_size {BIG}"),
        look(&veth),
    ));
    for device in ["ovlbr1", "ovl1", "ovlpad1", "ovl6-2"] {
        let command = format!("ip link set {device} gro_max_size {BIG}");
        damages.push(Damage::on_node(command, look(device)));
    }
    for flags in [
        "isolated on",
        "learning off flood off",
        "hairpin on",
        "state 4",
    ] {
        let command = format!("bridge link set dev {veth} {flags}");
        damages.push(Damage::on_node(command, look(&veth)));
    }
    damages
}

/// Addresses, routes, neighbours and forwarding entries of the node.
pub(crate) fn entries(_: &Stand) -> Vec<Damage> {
    let addresses = |device: &str| format!("ip -j addr show dev {device} scope global");
    let routes = "ip -j route show proto 111; ip -6 -j route show proto 111";
    let neighbours = |device: &str| format!("ip -j neigh show nud permanent dev {device}");
    let fdb = |device: &str| format!("bridge -j fdb show dev {device}");
    let mac = "02:4f:c0:a8:38:0c";
    let mut damages: Vec<Damage> = [
        ("ip addr del 10.244.1.1/24 dev ovlbr1", "ovlbr1"),
        ("ip addr add 10.77.0.1/24 dev ovlbr1", "ovlbr1"),
        ("ip addr del fd00:245:0:1::1/64 dev ovlbr2", "ovlbr2"),
        ("ip addr del 10.244.1.0/32 dev ovl1", "ovl1"),
    ]
    .map(|(command, device)| Damage::on_node(command, addresses(device)))
    .into();
    damages.extend(
        [
            "ip route del 10.244.2.0/24",
            "ip route del 10.245.2.0/24",
            "ip route del fd00:245:0:2::/64",
            "ip route del 10.99.1.0/24",
            "ip route replace 10.244.2.0/24 via 10.244.2.0 dev ovl1 onlink proto 111 mtu 600",
            "ip route replace 10.244.2.0/24 via 10.244.2.9 dev ovl1 onlink proto 111",
            "ip route add 10.78.0.0/24 via 10.244.2.0 dev ovl1 onlink proto 111",
        ]
        .map(|command| Damage::on_node(command, routes)),
    );
    damages.extend(
        [
            ("ip neigh del 10.244.2.0 dev ovl1", "ovl1"),
            (
                "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev ovl1",
                "ovl1",
            ),
            (
                "ip neigh replace 10.244.2.0 lladdr 02:4f:c0:a8:38:0c dev ovl1 nud reachable",
                "ovl1",
            ),
            (
                "ip neigh replace 10.244.2.7 lladdr 02:00:00:00:00:01 dev ovl1",
                "ovl1",
            ),
            (
                "ip neigh replace 10.244.1.10 lladdr 02:00:00:00:00:01 dev ovlbr1",
                "ovlbr1",
            ),
            ("ip neigh del fd00:245:0:2:: dev ovl6-2", "ovl6-2"),
        ]
        .map(|(command, device)| Damage::on_node(command, neighbours(device))),
    );
    let fdb_damages = [
        format!("bridge fdb del {mac} dev ovl1"),
        format!("bridge fdb replace {mac} dev ovl1 dst 192.168.56.99"),
        format!("bridge fdb replace {mac} dev ovl1 dst 192.168.56.12 port 9999"),
        format!("bridge fdb replace {mac} dev ovl1 dst 192.168.56.12 self dynamic"),
        "bridge fdb append 00:00:00:00:00:00 dev ovl1 dst 192.168.56.99".to_owned(),
        "bridge fdb append 02:00:00:00:00:09 dev ovl1 dst 192.168.56.99".to_owned(),
    ];
    damages.extend(fdb_damages.map(|command| Damage::on_node(command, fdb("ovl1"))));
    damages
}

/// Settings and packet filter.
pub(crate) fn rules(stand: &Stand) -> Vec<Damage> {
    let setting = |name: &str| {
        let look = format!("sysctl -n {name}");
        Damage::on_node(format!("sysctl -qw {name}=0"), look)
    };
    let table = format!("inet overlay-{}", stand.agent.instance);
    let ruleset = format!("nft -j list table {table}");
    let mut damages = vec![
        setting("net.ipv4.ip_forward"),
        setting("net.ipv4.conf.ovlbr1.forwarding"),
        setting("net.ipv4.conf.ovl1.forwarding"),
        setting("net.ipv6.conf.all.forwarding"),
        Damage::on_node(
            "sysctl -qw net.ipv6.conf.ovlbr2.accept_dad=1",
            "sysctl -n net.ipv6.conf.ovlbr2.accept_dad",
        ),
    ];
    damages.extend(
        [
            format!("nft delete table {table}"),
            format!("nft flush chain {table} forward"),
            format!("nft flush chain {table} postrouting"),
            format!("nft delete element {table} isolated '{{ ovl1 }}'"),
            format!("nft add element {table} together '{{ ovlbr1 . ovlbr2 }}'"),
            format!("nft add rule {table} forward drop"),
            format!("nft add set {table} more '{{ type ipv4_addr; }}'"),
        ]
        .map(|command| Damage::on_node(command, ruleset.clone())),
    );
    damages
}

/// What a container does to itself.
pub(crate) fn inside(stand: &Stand) -> Vec<Damage> {
    let address = stand.container(1, 1).address;
    let (link, addresses) = ("ip -d -j link show dev eth0", "ip -4 -j addr show dev eth0");
    vec![
        Damage::inside("ip link del eth0", link),
        Damage::inside("ip link set eth0 down", link),
        Damage::inside("ip link set eth0 mtu 1200", link),
        Damage::inside(
            format!("ip link set eth0 gso_max_size {BIG} gro_max_size {BIG}"),
            link,
        ),
        Damage::inside("ip link set eth0 address 02:00:00:00:00:07", link),
        Damage::inside(down_and_rename("eth0"), link),
        Damage::inside(format!("ip addr del {address}/24 dev eth0"), addresses),
        Damage::inside("ip route del default", "ip -j route show default"),
        Damage::inside(
            "ip route replace default via 10.244.1.77 proto 111",
            "ip -j route show default",
        ),
    ]
}

/// Of every kind, for those who want some of each.
pub(crate) fn all(stand: &Stand) -> Vec<Damage> {
    let mut damages = links(stand);
    damages.extend(entries(stand));
    damages.extend(rules(stand));
    damages.extend(inside(stand));
    damages
}
