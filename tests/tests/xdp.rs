//! In XDP: the guard drops strangers and malformed VXLAN before an skb exists, and nothing else;
//! where that is asked for, headers are stripped there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use overlay_common::{
    maps::{DROPS, PASSES},
    programs::{GENERIC_GUARD, UNDERLAY_GUARD},
    wire::{IANA_PORT, VXLAN_FLAGS},
};
use overlay_tests::{
    assembly::{EXIT, call, helper, set},
    bpf::{Hook, Link, Program},
    check,
    counters::{self, Carried},
    families::{Families, Family},
    frames::{Ip, ethernet, udp, vxlan},
    guard::Guard,
    kernel, lab, netns,
    raw::{self, Socket},
    run, scenario,
    script::inside,
    shape::{Scenario, Shape},
    state,
    topology::{Node, Topology, UNDERLAY, VNI},
    traffic::Pair,
};

/// Sizes around the MTU; a guard that took the wrong ones would show.
const SIZES: [usize; 5] = [1, 1_372, 1_382, 1_450, 9_000];

/// Far more than a frame takes that is sent to a device in the same memory.
const MOMENT: Duration = Duration::from_millis(200);

fn raise(name: &str, over: Families, mode: &'static str) -> Result<Guard> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?.speaking(over, Families::Both)?;
    Ok(Guard::configured(shape, |node, config| {
        // The other node sends what the guard judges.
        if node.number == 1 {
            config.node.guard = Some(mode);
        }
    })?)
}

/// A VXLAN frame from the second node's place to the first, as if from some address.
fn frame(nodes: &[Node], source: IpAddr, flags: u32) -> Result<Vec<u8>> {
    let [node, sender] = nodes else {
        anyhow::bail!("two nodes were asked for");
    };
    let destination = node.underlay_at(Family::of(source));
    let inner = Ip::new(
        sender.containers[0].address.into(),
        node.containers[0].address.into(),
    );
    let packet = inner.around_udp(1000, 9, b"judge me");
    let inner_frame = ethernet([2; 6], [4; 6], inner.ethertype(), &packet);
    let outer = Ip::new(source, destination);
    let datagram = udp(50_000, IANA_PORT, 0, &vxlan(flags, VNI << 8, &inner_frame));
    Ok(ethernet(
        raw::mac_of(&node.namespace, UNDERLAY)?,
        raw::mac_of(&sender.namespace, UNDERLAY)?,
        outer.ethertype(),
        &outer.around(&datagram),
    ))
}

fn drops(instance: &str, reason: &str) -> Result<u64> {
    let reasons = counters::reasons(instance, DROPS)?;
    let found = reasons.iter().find(|(name, _)| name == reason);
    Ok(found.map_or(0, |&(_, packets)| packets))
}

fn stranger(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 56, 99).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x56, 0, 0, 0, 0, 0, 0x99).into(),
    }
}

/// Everyone reaches everyone, with payloads of all sizes.
fn are_whole(topology: &Topology) -> Result<()> {
    check::all_pairs_are_well(topology)?;
    let nodes = &topology.nodes;
    for inner in [Family::V4, Family::V6] {
        for (from, to) in [(0, 1), (1, 0)] {
            let pair = Pair::between(&nodes[from].containers[0], &nodes[to].containers[0], inner);
            pair.udp(&SIZES)?;
            pair.tcp(&[1 << 20])?;
        }
    }
    Ok(())
}

/// Everything that should passes, and what should not is counted and seen by nobody.
fn guards(name: &str, over: Families, family: Family, mode: &'static str) -> Result<()> {
    let guard = raise(name, over, mode)?;
    let topology = guard.topology();
    let nodes = &topology.nodes;
    let instance = &nodes[0].namespace;
    let attached = xdp_on(instance)?;
    assert_eq!(attached[0]["devname"], UNDERLAY, "{attached}");
    let program = match mode {
        "native" => UNDERLAY_GUARD,
        _ => GENERIC_GUARD,
    };
    let programs = run::checked(format!("bpftool -j prog show name {program}"))?;
    assert!(programs.contains(program), "{programs}");

    are_whole(topology)?;

    let entrance = Socket::open(&nodes[1].namespace, UNDERLAY)?;
    let vtep = nodes[1].underlay_at(family);
    for (what, source, flags, reason) in [
        ("a stranger", stranger(family), VXLAN_FLAGS, "unknown_vtep"),
        ("no I flag", vtep, 0, "invalid_vxlan_header"),
        (
            "a reserved bit",
            vtep,
            VXLAN_FLAGS | 1,
            "invalid_vxlan_header",
        ),
    ] {
        let before = drops(instance, reason)?;
        for _ in 0..10 {
            entrance.send(&frame(nodes, source, flags)?)?;
        }
        assert_eq!(drops(instance, reason)? - before, 10, "{what}");
        let frame = frame(nodes, source, flags)?;
        assert!(!gets_past(instance, &frame, &entrance)?, "{what}");
    }
    assert_eq!(guard.agent(1).plan()?, Vec::<serde_json::Value>::new());
    drop(entrance);
    guard.agent(1).tell(&["down"])?;
    assert_eq!(xdp_on(instance)?, serde_json::json!([]));
    Ok(guard.down()?)
}

/// XDP programs of a namespace, as bpftool tells of them.
fn xdp_on(instance: &str) -> Result<serde_json::Value> {
    let mut attached = run::json(inside(instance, "bpftool -j net show"))?;
    Ok(attached[0]["xdp"].take())
}

/// Whether a frame gets past XDP: a packet socket sees all that does.
fn gets_past(instance: &str, frame: &[u8], entrance: &Socket) -> Result<bool> {
    let behind = Socket::open(instance, UNDERLAY)?;
    entrance.send(frame)?;
    let seen = behind.receive(MOMENT, |seen| seen == frame)?;
    Ok(seen.is_some())
}

/// Where headers are stripped before an skb exists, the same arrives, and is counted.
fn strips(name: &str, over: Families) -> Result<()> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
    let guard = Guard::configured(shape.speaking(over, Families::Both)?, |_, config| {
        config.node.guard = Some("native");
        config.node.rx = Some("xdp");
    })?;
    let topology = guard.topology();
    let before = counters::carried(&topology.nodes[0].namespace)?;
    are_whole(topology)?;
    let carried = counters::carried(&topology.nodes[0].namespace)? - before;
    assert!(carried.sent > 0 && carried.received > 0, "{carried:?}");
    for agent in guard.agents() {
        assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
    }
    Ok(guard.down()?)
}

#[test]
fn stripping_over_ipv4() -> Result<()> {
    strips("tstrip4", Families::V4)
}

#[test]
fn stripping_over_ipv6() -> Result<()> {
    strips("tstrip6", Families::V6)
}

/// A card takes the outer tag off before XDP, and it comes back beside the inner frame.
#[test]
fn stripping_under_priority_tags() -> Result<()> {
    /// `TCX_NEXT`
    const NEXT: i32 = -1;
    if !kernel::has_tcx() {
        println!("not tried: this kernel has no TCX, by which the tags are set");
        return Ok(());
    }
    let shape = Shape::of("tstript", Scenario::Overlay, 2, 1)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.guard = Some("native");
        config.node.rx = Some("xdp");
    })?;
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0], &nodes[1]);
    // As a router does that sets priorities: beside the packet, where a card would put it.
    let tagger = Program::load(&[
        set(2, i32::from(u16::to_be(0x8100))),
        set(3, 3 << 13),
        call(helper::VLAN_PUSH),
        set(0, NEXT),
        EXIT,
    ])?;
    let _tagging = netns::inside(&there.namespace, || -> Result<Link> {
        Ok(tagger.attach(if_nametoindex(UNDERLAY)?, Hook::Egress)?)
    })??;
    let pair = Pair::between(&there.containers[0], &here.containers[0], Family::V4);
    let before = counters::carried(&here.namespace)?;
    let sent = counters::carried(&there.namespace)?.sent;
    pair.icmp(&SIZES)?;
    pair.udp(&SIZES)?;
    let carried = counters::carried(&here.namespace)? - before;
    let sent = counters::carried(&there.namespace)?.sent - sent;
    assert!(sent > 0);
    assert_eq!(carried.received, sent, "{carried:?}");
    pair.tcp(&[1 << 20])?;
    assert_eq!(drops(&here.namespace, "inner_vlan_tag")?, 0);
    Ok(guard.down()?)
}

#[test]
fn generic_over_ipv4() -> Result<()> {
    guards("tguard4", Families::V4, Family::V4, "generic")
}

#[test]
fn generic_over_ipv6() -> Result<()> {
    guards("tguard6", Families::V6, Family::V6, "generic")
}

#[test]
fn native_over_ipv4() -> Result<()> {
    guards("tnative4", Families::V4, Family::V4, "native")
}

#[test]
fn native_over_ipv6() -> Result<()> {
    guards("tnative6", Families::V6, Family::V6, "native")
}

/// Makes the first node's underlay a bridge, with what it was before as its port.
fn put_into_a_bridge(node: &Node) -> Result<()> {
    let address = node.underlay_at(Family::V4);
    for line in [
        "addr flush dev eth1",
        "link set eth1 down",
        "link set eth1 name port0",
        "link add eth1 type bridge",
        "link set port0 master eth1",
        "link set port0 up",
        "link set eth1 up",
        &format!("addr add {address}/24 dev eth1"),
    ] {
        run::checked(format!("ip -n {} {line}", node.namespace))?;
    }
    Ok(())
}

/// Every packet that the other node's programs send is received by this one's, by the fast path.
fn all_is_received(name: &str, kind: &str, mode: &'static str) -> Result<()> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
    let guard = Guard::underlay(shape)?;
    let topology = guard.topology();
    let nodes = &topology.nodes;
    let (here, there) = (&nodes[0], &nodes[1]);
    if kind == "bridge" {
        put_into_a_bridge(here)?;
    }
    let mut script = scenario::containers(topology, &lab::agent_program());
    let mut config = scenario::agents::config(topology, here);
    config.node.guard = Some(mode);
    let file = state::config_file(&topology.shape.name, &here.namespace);
    script.rewrite(&file, &config.to_toml());
    run::script(&topology.shape.name, &script, &mut |_| {})?;

    let so_far = || -> Result<(Carried, Carried)> {
        Ok((
            counters::carried(&here.namespace)?,
            counters::carried(&there.namespace)?,
        ))
    };
    let pair = Pair::between(&there.containers[0], &here.containers[0], Family::V4);
    let before = so_far()?;
    pair.icmp(&SIZES)?;
    pair.udp(&SIZES)?;
    let after = so_far()?;
    let (received, sent) = (
        after.0.received - before.0.received,
        after.1.sent - before.1.sent,
    );
    assert!(sent > 0, "{kind}, {mode}");
    assert_eq!(
        received,
        sent,
        "{kind}, {mode}: by the fast path of what was sent; left to the kernel: {:?}",
        counters::reasons(&here.namespace, PASSES)?
    );
    pair.tcp(&[1 << 20])?;
    let received = counters::carried(&here.namespace)?.received - after.0.received;
    assert!(received > 0, "{kind}, {mode}: of a stream");
    Ok(guard.down()?)
}

#[test]
fn under_each_guard_and_device_the_programs_receive_all() -> Result<()> {
    for mode in ["off", "native", "generic"] {
        all_is_received("tkindv", "veth", mode)?;
    }
    // It has no driver that takes programs.
    for mode in ["off", "generic"] {
        all_is_received("tkindb", "bridge", mode)?;
    }
    Ok(())
}
