//! Two machines with a network card each, whose driver segments, checksums and runs XDP: what
//! no veth shows. `cargo xtask vm` raises them.

mod cards;

use std::net::SocketAddr;

use anyhow::Result;
use overlay_common::maps::{DROPS, PASSES};
use overlay_tests::{
    config::Config,
    counters,
    families::{Families, Family},
    kernel,
    machines::{Machine, Machines, Traffic},
    shape::{Scenario, Shape},
    topology::{UNDERLAY, UNDERLAY_MTU},
    traffic::Caller,
};

/// Sizes around every boundary of MTU, page and GSO.
const SIZES: [usize; 10] = [
    1, 64, 1_372, 1_382, 1_422, 1_450, 1_500, 9_000, 32_769, 65_000,
];
/// Each is a connection, and a process on the other machine.
const STREAMS: [usize; 3] = [1, 1_450, 65_000];
/// Enough for the sender's window to fill whole GSO packets.
const STREAM: usize = 1 << 19;
const PINGS: u64 = 10;

/// What a driver may leave to the kernel, as `ethtool` names it.
const OFFLOADS: [&str; 5] = ["gro off", "tso off", "gso off", "tx off", "sg off"];

fn raise(over: Families, change: impl Fn(&mut Config)) -> Result<Machines> {
    let shape = Shape::of("vm", Scenario::Overlay, 2, 1)?;
    Ok(Machines::up(shape.speaking(over, Families::Both)?, change)?)
}

fn switch(machines: &Machines, on: bool) -> Result<()> {
    let command = if on { "fastpath on" } else { "fastpath off" };
    for machine in &machines.both {
        machine.agent(command)?;
    }
    Ok(())
}

/// What both have counted.
fn traffic(machines: &Machines) -> Result<[Traffic; 2]> {
    let [one, two] = &machines.both;
    Ok([one.traffic()?, two.traffic()?])
}

fn since(machines: &Machines, before: [Traffic; 2]) -> Result<[Traffic; 2]> {
    let [one, two] = traffic(machines)?;
    Ok([one - before[0], two - before[1]])
}

/// Pings from one's container to the other's; none is lost.
fn ping(from: &Machine, to: &Machine, family: Family) -> Result<()> {
    let address = to.container().at(family);
    let line = format!("ping -n -q -c {PINGS} -i 0.05 -W 5 {address}");
    let said = from.inside(from.container(), &line)?;
    assert!(
        said.contains(&format!("{PINGS} received")) && !said.contains("duplicates"),
        "{said}"
    );
    Ok(())
}

/// Who carries packets.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// The programs, in both directions.
    Fast,
    /// The programs send; what arrives is the kernel's to strip when it is of the other family
    /// than the tunnel, where the kernel is too old to let programs do it.
    Tc(Families),
    /// The kernel alone.
    Slow,
}

impl Path {
    /// Pings that are counted as sent and as received.
    fn counted(self, inner: Family) -> (u64, u64) {
        match self {
            Self::Slow => (0, 0),
            Self::Tc(over) if !over.has(inner) && !kernel::strips_other_family() => (PINGS, 0),
            Self::Fast | Self::Tc(_) => (PINGS, PINGS),
        }
    }
}

/// Pings in both directions; each packet is counted once on each side, or never.
fn pings_are_counted(machines: &Machines, path: Path) -> Result<()> {
    let [one, two] = &machines.both;
    for family in [Family::V4, Family::V6] {
        for (from, to) in [(one, two), (two, one)] {
            // What asks for neighbours' MACs is not the fast path's to carry.
            ping(from, to, family)?;
            let before = traffic(machines)?;
            ping(from, to, family)?;
            for (counted, machine) in since(machines, before)?.into_iter().zip(&machines.both) {
                assert_eq!(
                    (counted.sent, counted.received),
                    path.counted(family),
                    "{} left to the kernel: {}",
                    machine.node.namespace,
                    machine.count(PASSES)?
                );
            }
        }
    }
    Ok(())
}

/// Sends datagrams and streams there and back, and compares every byte.
fn payloads_arrive(machines: &Machines, port: u16, what: &str) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        payloads_of(machines, port, what, family)?;
    }
    Ok(())
}

fn payloads_of(machines: &Machines, port: u16, what: &str, family: Family) -> Result<()> {
    let [one, two] = &machines.both;
    let caller = Caller {
        client: &one.container().namespace,
        server: SocketAddr::new(two.container().at(family), port),
    };
    caller.udp(&SIZES)?;
    caller.tcp(&STREAMS)?;
    let before = traffic(machines)?;
    caller.tcp(&[STREAM])?;
    let [here, there] = since(machines, before)?;
    println!(
        "{what}, {family:?}: bytes a packet sent {:?}, received {:?}",
        mean(here.sent_bytes, here.sent),
        mean(there.received_bytes, there.received)
    );
    Ok(())
}

fn mean(bytes: u64, packets: u64) -> Option<u64> {
    bytes.checked_div(packets)
}

/// Nothing was dropped on this machine.
fn nothing_was_dropped(machines: &Machines) -> Result<()> {
    let drops = counters::reasons(&machines.both[0].node.namespace, DROPS)?;
    assert_eq!(drops, Vec::new());
    Ok(())
}

/// Large packets leave the container whole: the driver, or the kernel before it, cuts them.
fn segmentation_is_kept(machines: &Machines, port: u16, path: Path) -> Result<()> {
    let [one, two] = &machines.both;
    let caller = Caller {
        client: &one.container().namespace,
        server: SocketAddr::new(two.container().at(Family::V4), port),
    };
    let before = traffic(machines)?;
    caller.tcp(&[STREAM])?;
    let [here, there] = since(machines, before)?;
    let (sends, receives) = path.counted(Family::V4);
    for (direction, bytes, packets, by_us) in [
        ("sent", here.sent_bytes, here.sent, sends),
        ("received", there.received_bytes, there.received, receives),
    ] {
        let mean = mean(bytes, packets);
        let large = mean > Some(UNDERLAY_MTU.into());
        assert_eq!(large, by_us > 0, "{direction}: {mean:?}");
    }
    Ok(())
}

/// Everything arrives with the fast path on and off; it is on afterwards.
fn all_arrives_on_both_paths(machines: &Machines, port: u16, over: Families) -> Result<()> {
    for (on, path, what) in [(true, Path::Tc(over), "fast"), (false, Path::Slow, "slow")] {
        switch(machines, on)?;
        pings_are_counted(machines, path)?;
        payloads_arrive(machines, port, what)?;
    }
    switch(machines, true)
}

/// Everything arrives, whoever segments and checksums, with the fast path on and off.
fn all_arrives(over: Families) -> Result<()> {
    let machines = raise(over, |_| {})?;
    let port = machines.both[1].echo()?;
    segmentation_is_kept(&machines, port, Path::Tc(over))?;
    all_arrives_on_both_paths(&machines, port, over)?;
    for offload in OFFLOADS {
        for machine in &machines.both {
            machine.run(&format!("ethtool -K {UNDERLAY} {offload}"))?;
        }
        payloads_of(&machines, port, offload, Family::V4)?;
        let back = offload.replace("off", "on");
        for machine in &machines.both {
            machine.run(&format!("ethtool -K {UNDERLAY} {back}"))?;
        }
    }
    // Sums that a container has calculated itself are not the driver's to make.
    for machine in &machines.both {
        machine.inside(machine.container(), "ethtool -K eth0 tx off")?;
    }
    payloads_arrive(&machines, port, "tx off inside")?;
    nothing_was_dropped(&machines)?;
    Ok(machines.down()?)
}

/// Where a program of XDP runs, by `linux/if_link.h`.
#[derive(Clone, Copy, PartialEq)]
enum XdpMode {
    /// `XDP_ATTACHED_DRV`
    Driver = 1,
    /// `XDP_ATTACHED_SKB`
    Generic = 2,
}

/// That a program runs there, and not elsewhere.
fn runs_xdp(machine: &Machine, mode: XdpMode) -> Result<()> {
    let link = machine.run(&format!("ip -d -j link show dev {UNDERLAY}"))?;
    let links: serde_json::Value = serde_json::from_str(&link)?;
    assert_eq!(links[0]["xdp"]["mode"], mode as u8, "{link}");
    Ok(())
}

/// The guard in the driver lets through what it should, and nothing else.
fn guards(over: Families) -> Result<()> {
    const STRANGER: &str = "192.168.56.99";
    const DATAGRAMS: u64 = 10;
    let machines = raise(over, |config| config.node.guard = Some("native"))?;
    let [one, two] = &machines.both;
    for machine in &machines.both {
        runs_xdp(machine, XdpMode::Driver)?;
    }
    let port = two.echo()?;
    pings_are_counted(&machines, Path::Tc(over))?;
    payloads_arrive(&machines, port, "guarded")?;
    nothing_was_dropped(&machines)?;

    two.run(&format!("ip addr add {STRANGER}/32 dev {UNDERLAY}"))?;
    let send = format!(
        "for i in $(seq {DATAGRAMS}); do printf '\\10\\0\\0\\0\\0\\0\\1\\0judge me' | \
         socat - UDP4-SENDTO:{}:4789,bind={STRANGER}; done",
        one.node.underlay
    );
    let outcome = two.run(&send);
    two.run(&format!("ip addr del {STRANGER}/32 dev {UNDERLAY}"))?;
    outcome?;
    let drops = counters::reasons(&one.node.namespace, DROPS)?;
    assert_eq!(drops, [("unknown_vtep".to_owned(), DATAGRAMS)]);
    Ok(machines.down()?)
}

/// Headers that are stripped in the driver leave packets that GRO merges.
fn strips(over: Families) -> Result<()> {
    let machines = raise(over, |config| {
        config.node.guard = Some("native");
        config.node.rx = Some("xdp");
    })?;
    for machine in &machines.both {
        runs_xdp(machine, XdpMode::Driver)?;
    }
    let port = machines.both[1].echo()?;
    pings_are_counted(&machines, Path::Fast)?;
    payloads_arrive(&machines, port, "stripped")?;
    segmentation_is_kept(&machines, port, Path::Fast)?;
    nothing_was_dropped(&machines)?;
    Ok(machines.down()?)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn over_ipv4() -> Result<()> {
    all_arrives(Families::V4)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn over_ipv6() -> Result<()> {
    all_arrives(Families::V6)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn guarded_over_ipv4() -> Result<()> {
    guards(Families::V4)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn stripped_over_ipv4() -> Result<()> {
    strips(Families::V4)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn stripped_over_ipv6() -> Result<()> {
    strips(Families::V6)
}
