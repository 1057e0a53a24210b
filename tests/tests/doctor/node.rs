//! Faults of the node: devices, addresses, routes, filters, programs.

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use overlay_tests::{
    assembly::{EXIT, set},
    bpf::{Hook, Link, Program},
    kernel, netns, poll, run,
    topology::UNDERLAY,
};

use crate::{
    fault::{Fault, advised, only_finding},
    stand::{Stand, reconfigured},
};

/// `TCX_NEXT`, `TCX_PASS` and `XDP_PASS`
const NEXT: i32 = -1;
const PASS: i32 = 0;
const XDP_PASS: i32 = 2;

fn chain(table: &str, hook: &str, priority: i32, rule: &str) -> String {
    let kind = if hook == "postrouting" {
        "nat"
    } else {
        "filter"
    };
    format!(
        "nft add table {table}; \
         nft add chain {table} c '{{ type {kind} hook {hook} priority {priority}; }}'; \
         nft add rule {table} c {rule}"
    )
}

/// Of the packet filter.
fn rules() -> Vec<Fault> {
    let nft = |check, object, table: &str, hook, rule| {
        let priority = if hook == "postrouting" { 100 } else { 0 };
        Fault::new(check, object, chain(table, hook, priority, rule))
            .cleared_by("n1", format!("nft delete table {table}"))
    };
    vec![
        nft(
            "firewall-drops-tunnel",
            "inet fw c",
            "inet fw",
            "input",
            "udp dport 4789 drop",
        ),
        nft(
            "firewall-drops-tunnel",
            "ip fw c",
            "ip fw",
            "output",
            "oifname eth1 udp dport '{ 4789, 8472 }' drop",
        ),
        nft(
            "forward-rules-bypassed",
            "ip fw c",
            "ip fw",
            "forward",
            "counter drop",
        ),
        nft(
            "rule-drops-containers",
            "inet fw c",
            "inet fw",
            "forward",
            "ip daddr 10.244.2.10 drop",
        ),
        nft(
            "connections-followed",
            "lab",
            "ip fw",
            "forward",
            "ct state new tcp dport 25 drop",
        ),
        nft(
            "nat-in-network",
            "ip fw c",
            "ip fw",
            "postrouting",
            "ip saddr 10.244.1.0/24 masquerade",
        ),
    ]
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::new(
            "foreign-vxlan",
            "vx9",
            "ip link add vx9 type vxlan id 9 dstport 4789 local 192.168.56.11",
        )
        .cured_by("n1", "ip link del vx9"),
        Fault::new(
            "gateway-taken",
            "10.244.1.1",
            "ip link add other type bridge; ip address add 10.244.1.1/24 dev other",
        )
        .cleared_by("n1", "ip link del other"),
        Fault::new(
            "address-taken",
            "10.244.1.77",
            "ip link add other type bridge; ip address add 10.244.1.77/32 dev other",
        )
        .cleared_by("n1", "ip link del other"),
        Fault::new(
            "duplicate-vtep",
            "192.168.56.12",
            "ip address add 192.168.56.12/24 dev eth1",
        )
        .with("peer-no-route"),
        Fault::new(
            "subnet-around-underlay",
            "10.244.1.0/24",
            "ip address add 10.244.1.77/16 dev eth1",
        )
        .with("route-hides-network")
        .cured_by("n1", "ip address del 10.244.1.77/16 dev eth1"),
        Fault::new(
            "route-taken",
            "10.244.2.0/24",
            "ip route add 10.244.2.0/24 via 192.168.56.12",
        ),
        Fault::new(
            "route-hides-network",
            "10.244.2.128/25",
            "ip route add 10.244.2.128/25 via 192.168.56.12",
        ),
        Fault::new(
            "rule-diverts-network",
            "rule 100 to table 77",
            "ip route add 10.244.2.0/24 via 192.168.56.12 table 77; \
             ip rule add to 10.244.2.0/24 lookup 77 priority 100",
        )
        .cleared_by(
            "n1",
            "ip rule del priority 99; ip rule del priority 100; ip route flush table 77",
        ),
        // Not ours, whatever its name; there is none of that name in between.
        Fault::new(
            "guard-table-taken",
            "guard.overlay-tdoc-n1",
            "nft 'delete table inet guard.overlay-tdoc-n1; add table inet guard.overlay-tdoc-n1'",
        )
        .cured_by("n1", "nft delete table inet guard.overlay-tdoc-n1"),
        Fault::new("offload-off", "eth1", "ethtool -K eth1 tx off"),
    ]
}

#[test]
fn what_is_wrong_on_the_node_is_found_and_cured() -> Result<()> {
    let stand = Stand::raise("tdoc")?;
    for fault in faults().into_iter().chain(rules()) {
        fault.is_found(&stand)?;
    }
    programs_of_others(&stand)?;
    settings_and_configurations(&stand)?;
    Ok(stand.guard.down()?)
}

/// Has a program run on the node's underlay.
fn attach(stand: &Stand, program: &Program, hook: Hook) -> Result<Link> {
    let node = &stand.agent.instance;
    netns::inside(node, || -> Result<Link> {
        let device = if_nametoindex(UNDERLAY)?;
        Ok(match hook {
            Hook::Xdp => program.attach(device, hook)?,
            _ => program.attach_first(device, hook)?,
        })
    })?
}

/// Those that swallow packets are told from those that only look.
fn programs_of_others(stand: &Stand) -> Result<()> {
    // Without TCX there is no link that could come first.
    if kernel::has_tcx() {
        for (action, severity) in [(NEXT, "warning"), (PASS, "problem")] {
            let program = Program::load(&[set(0, action), EXIT])?;
            let _link = attach(stand, &program, Hook::Ingress)?;
            let found = only_finding(stand, "program-before-ours", UNDERLAY, || stand.diagnosis())?;
            assert_eq!(found["severity"], severity, "{found:#}");
            advised(&found)?;
            stand.is_healthy("a program before ours")?;
        }
    }
    let program = Program::load_xdp(&[set(0, XDP_PASS), EXIT])?;
    let _link = attach(stand, &program, Hook::Xdp)?;
    let found = only_finding(stand, "foreign-xdp", UNDERLAY, || stand.diagnosis())?;
    advised(&found)?;
    stand.is_healthy("an XDP program")
}

/// A setting of the whole machine, put back also when the test fails.
struct Setting(&'static str, String);

impl Setting {
    fn note(name: &'static str) -> Result<Self> {
        let value = run::checked(format!("sysctl -n {name}"))?;
        Ok(Self(name, value.trim().to_owned()))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let Self(name, value) = self;
        if let Err(error) = run::checked(format!("sysctl -qw {name}={value}")) {
            eprintln!("{name} was not put back: {error}");
        }
    }
}

fn settings_and_configurations(stand: &Stand) -> Result<()> {
    let _setting = Setting::note("kernel.bpf_stats_enabled")?;
    Fault::new(
        "bpf-stats-on",
        "kernel.bpf_stats_enabled",
        "sysctl -qw kernel.bpf_stats_enabled=1",
    )
    .is_found_by(stand, || stand.whole_diagnosis())?;

    for (from, to, check, object) in [
        ("vni = 1", "vni = 0", "config-refused", "configuration"),
        ("vni = 1", "vni = 1\nmtu = 1500", "mtu-does-not-fit", "lab"),
        ("\"eth1\"", "\"eth9\"", "underlay-missing", "eth9"),
    ] {
        let back = reconfigured(&stand.agent, from, to)?;
        only_finding(stand, check, object, || stand.diagnosis())?;
        back()?;
        stand.is_healthy(check)?;
    }

    stand.agent.fastpath(false)?;
    let note = only_finding(stand, "fastpath-off", "fast path", || stand.diagnosis())?;
    assert_eq!(note["severity"], "note");
    let ends_well = poll::until_well(|| match stand.agent.ask(&["doctor"]) {
        Ok(out) if out.stdout.contains("[bpf-stats-on]") => None,
        Ok(out) => (!out.success).then_some(out.stdout),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(ends_well, Ok(()), "a note is not a problem");
    stand.agent.fastpath(true)?;
    stand.is_healthy("the fast path was off")
}
