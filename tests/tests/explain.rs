//! What `explain` says, against what then happens.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use overlay_common::maps::{DROPS, PASSES};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters,
    families::{Families, Family},
    frames::{Ip, ethernet},
    guard::Guard,
    raw::{self, Socket},
    run,
    script::{inside, words},
    shape::{Scenario, Shape},
};
use serde_json::Value;

/// What was said, node by node.
struct Explained {
    hops: Vec<Value>,
    good: bool,
}

impl Explained {
    /// The verdict of a node's last program: its action and its reason.
    fn verdict(&self, hop: usize) -> Option<(&str, Option<&str>)> {
        let verdict = &self.hops.get(hop)?["stages"].as_array()?.last()?["verdict"];
        Some((verdict["action"].as_str()?, verdict["reason"].as_str()))
    }

    fn steps(&self, hop: usize) -> Vec<&str> {
        let stages = self.hops[hop]["stages"].as_array();
        let decisions = stages
            .into_iter()
            .flatten()
            .flat_map(|stage| stage["decisions"].as_array().into_iter().flatten());
        decisions
            .filter_map(|decision| decision["step"].as_str())
            .collect()
    }

    /// TTL with which it is delivered.
    fn ttl(&self) -> Option<u64> {
        self.hops.last()?["end"]["delivered"]["ttl"].as_u64()
    }

    fn kernel(&self) -> String {
        let hops = self.hops.iter();
        let sentences = hops.flat_map(|hop| hop["kernel"].as_array().into_iter().flatten());
        let sentences: Vec<&str> = sentences.filter_map(Value::as_str).collect();
        sentences.join("\n")
    }
}

fn explain(agent: &Agent, arguments: &[&str]) -> Result<Explained> {
    let arguments = [&["explain"], arguments, &["--output", "json"]].concat();
    let out = agent.ask(&arguments)?;
    ensure!(
        matches!(out.code, Some(0 | 1)),
        "{arguments:?}: {}{}",
        out.stdout,
        out.stderr
    );
    let hops: Vec<Value> = serde_json::from_str(&out.stdout)
        .with_context(|| format!("{arguments:?}: {}{}", out.stdout, out.stderr))?;
    Ok(Explained {
        hops,
        good: out.success,
    })
}

/// Packets by reason.
type Reasons = Vec<(String, u64)>;

/// Everything that a node counts.
fn counted(instance: &str) -> Result<(Reasons, Reasons, counters::Carried)> {
    Ok((
        counters::reasons(instance, DROPS)?,
        counters::reasons(instance, PASSES)?,
        counters::carried(instance)?,
    ))
}

fn count(counts: &[(String, u64)], reason: &str) -> u64 {
    let known = counts.iter().find(|(name, _)| name == reason);
    known.map_or(0, |&(_, packets)| packets)
}

/// One question of a sender whose stack gets its TTL as it is told, and the answer's reason.
fn ping(from: &str, to: IpAddr, options: &str) -> Result<run::Output> {
    let line = format!("ping -n -c 1 -W 5 {options} {to}");
    Ok(run::output(&words(inside(from, line)))?)
}

fn lab(name: &str, over: Families) -> Result<Guard> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(over, Families::Both)?;
    let guard = Guard::up(shape)?;
    // Neighbours are known from here on.
    let matrix = check::all_pairs(guard.topology())?;
    assert_eq!(matrix.faults(), Vec::<String>::new(), "\n{matrix}");
    Ok(guard)
}

/// Explained deliveries arrive, with the TTL that was said, through the programs that are
/// attached.
fn delivers(guard: &Guard) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let agent = guard.agent(1);
    let (from, near, far) = (
        &nodes[0].containers[0],
        &nodes[0].containers[1],
        &nodes[1].containers[0],
    );
    for family in [Family::V4, Family::V6] {
        for (to, nodes) in [(near, 1), (far, 2)] {
            let address = to.at(family).to_string();
            for protocol in ["icmp", "udp", "tcp"] {
                let said = explain(&agent, &[&from.namespace, &address, "--proto", protocol])?;
                assert!(said.good && said.hops.len() == nodes, "{:#?}", said.hops);
                let end = &said.hops[nodes - 1]["end"]["delivered"];
                assert_eq!(end["endpoint"], Value::from(to.namespace.as_str()));
                for stage in said.hops.iter().filter_map(|hop| hop["stages"].as_array()) {
                    for stage in stage {
                        assert_eq!(stage["attached"], "same", "{stage:#}");
                        assert!(stage["ns"].as_u64().is_some_and(|ns| ns > 0));
                    }
                }
                // What explain says is left is what arrives with: one less kills it.
                let spent = 64 - said.ttl().context("a TTL")?;
                check::routers_on_the_way(&from.namespace, &address, u8::try_from(spent)?)?;
            }
        }
        // By names, and the other's address is found on this machine.
        let said = explain(&agent, &[&from.namespace, &far.namespace])?;
        assert!(said.good && said.hops.len() == 2);
    }
    Ok(())
}

#[test]
fn what_is_said_to_be_delivered_arrives_over_ipv4() -> Result<()> {
    let guard = lab("texpok4", Families::V4)?;
    delivers(&guard)?;
    let said = explain(&guard.agent(1), &["texpok4-n1c1", "texpok4-n2c1"])?;
    assert_eq!(
        said.steps(0),
        [
            "port",
            "own_mac",
            "own_address",
            "unicast",
            "plain",
            "peer",
            "right_mac",
            "ttl",
            "fits",
            "encapsulated",
            "to_neighbour"
        ]
    );
    let steps = said.steps(1);
    assert!(steps.starts_with(&["ours", "valid", "sender"]), "{steps:?}");
    assert!(steps.ends_with(&["stripped", "delivered"]), "{steps:?}");
    Ok(guard.down()?)
}

#[test]
fn what_is_said_to_be_delivered_arrives_over_ipv6() -> Result<()> {
    let guard = lab("texpok6", Families::V6)?;
    delivers(&guard)?;
    Ok(guard.down()?)
}

#[test]
fn nothing_is_counted_and_nothing_is_left() -> Result<()> {
    let guard = lab("texpcnt", Families::V4)?;
    let agent = guard.agent(1);
    let far = guard.topology().nodes[1].containers[0].address.to_string();
    let instance = agent.instance.clone();
    let pins = || counters::pins(&std::path::Path::new("/sys/fs/bpf/overlay").join(&instance));
    let pinned = pins()?;
    for arguments in [
        &["texpcnt-n1c1", &far][..],
        &["texpcnt-n1c1", &far, "--source", "10.244.9.9"],
        &["texpcnt-n1c1", &far, "--ttl", "1"],
        &["texpcnt-n1c1", "texpcnt-n1c2"],
    ] {
        let before: Vec<_> = guard
            .topology()
            .instances()
            .map(counted)
            .collect::<Result<_, _>>()?;
        explain(&agent, arguments)?;
        let after: Vec<_> = guard
            .topology()
            .instances()
            .map(counted)
            .collect::<Result<_, _>>()?;
        // Passes go on: neighbours ask each other, and the underlay is not ours alone.
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.0, before.2), (&after.0, after.2), "{arguments:?}");
            for reason in ["ttl_expired", "too_big"] {
                assert_eq!(count(&before.1, reason), count(&after.1, reason));
            }
        }
    }
    assert_eq!(pins()?, pinned);
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(guard.down()?)
}

#[test]
fn what_is_said_to_be_dropped_is_counted_under_that_reason() -> Result<()> {
    let guard = lab("texpdrop", Families::V4)?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().nodes.as_slice() else {
        anyhow::bail!("two nodes were asked for");
    };
    let (from, other, to) = (
        &here.containers[0],
        &here.containers[1],
        &there.containers[0],
    );
    let mac = raw::mac_of(&from.namespace, "eth0")?;
    let gateway = raw::neighbour_of(&from.namespace, here.gateway.context("a gateway")?.into())?;
    let entrance = Socket::open(&from.namespace, "eth0")?;
    for family in [Family::V4, Family::V6] {
        let (false_source, destination) = (other.at(family), to.at(family));
        let said = explain(
            &agent,
            &[
                &from.namespace,
                &destination.to_string(),
                "--proto",
                "udp",
                "--source",
                &false_source.to_string(),
            ],
        )?;
        assert!(!said.good);
        let (action, reason) = said.verdict(0).context("a verdict")?;
        assert_eq!((action, reason), ("dropped", Some("spoofed_source")));
        let cure = &said.hops[0]["stages"][0]["verdict"]["cure"];
        assert!(cure.as_str().is_some_and(|cure| !cure.is_empty()));

        let before = counters::reasons(&agent.instance, DROPS)?;
        let ip = Ip::new(false_source, destination);
        let packet = ip.around_udp(1000, 9, b"as somebody else");
        entrance.send(&ethernet(gateway, mac, ip.ethertype(), &packet))?;
        let after = counters::reasons(&agent.instance, DROPS)?;
        let reason = "spoofed_source";
        assert_eq!(count(&after, reason), count(&before, reason) + 1);
    }
    drop(entrance);
    Ok(guard.down()?)
}

#[test]
fn what_the_kernel_gets_fares_as_is_said() -> Result<()> {
    let guard = lab("texpkern", Families::V4)?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().nodes.as_slice() else {
        anyhow::bail!("two nodes were asked for");
    };
    let (from, to) = (&here.containers[0].namespace, &there.containers[0]);
    for family in [Family::V4, Family::V6] {
        let gateway = here.gateway_at(family).context("a gateway")?.to_string();
        let far = to.at(family);

        let said = explain(&agent, &[from, &far.to_string(), "--ttl", "1"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("ttl_expired"))));
        assert!(
            !said.good && said.kernel().contains(&gateway),
            "{}",
            said.kernel()
        );
        let real = ping(from, far, "-t 1")?;
        assert!(
            real.stdout.contains(&format!("From {gateway}")),
            "{}",
            real.stdout
        );

        let said = explain(&agent, &[from, &far.to_string(), "--size", "1451", "--df"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("too_big"))));
        assert!(
            !said.good && said.kernel().contains("MTU 1450"),
            "{}",
            said.kernel()
        );

        // Of the container's own link, and nobody's.
        let absent = match family {
            Family::V4 => here.subnet.host(200).to_string(),
            Family::V6 => here.subnet6.host(200).to_string(),
        };
        let said = explain(&agent, &[from, &absent])?;
        assert!(
            !said.good && said.kernel().contains(&absent),
            "{}",
            said.kernel()
        );
        let real = check::ping_for(from, absent.parse()?, std::time::Duration::from_secs(1))?;
        assert!(matches!(real, Answer::None(_)), "{real:?}");

        // The node itself, and from the node.
        let said = explain(
            &agent,
            &[
                from,
                "node",
                "--source",
                &here.containers[0].at(family).to_string(),
            ],
        )?;
        assert!(said.good, "{:#?}", said.hops);
        assert_eq!(said.verdict(0), Some(("passed", Some("no_route"))));
        let said = explain(&agent, &["node", &far.to_string()])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
        assert_eq!(said.hops[0]["stages"][0]["program"], "from_host");
        let spent = 64 - said.ttl().context("a TTL")?;
        check::routers_on_the_way(&here.namespace, &far.to_string(), u8::try_from(spent)?)?;
    }
    // Without the flag, the node fragments IPv4.
    let said = explain(&agent, &[from, &to.address.to_string(), "--size", "1451"])?;
    assert!(
        said.good && said.kernel().contains("fragments"),
        "{}",
        said.kernel()
    );

    let gateway = here.gateway.context("a gateway")?.to_string();
    for (target, good) in [(gateway.as_str(), true), ("10.244.1.200", false)] {
        let said = explain(&agent, &[from, target, "--proto", "arp"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("not_ip"))));
        assert_eq!(said.good, good, "{}", said.kernel());
    }

    // Out of the overlay: the node has no route there.
    let said = explain(&agent, &[from, "198.51.100.7"])?;
    assert!(
        !said.good && said.kernel().contains("no route"),
        "{}",
        said.kernel()
    );
    let real = ping(from, "198.51.100.7".parse()?, "")?;
    assert!(real.stdout.contains("nreachable"), "{}", real.stdout);
    Ok(guard.down()?)
}

#[test]
fn another_state_of_the_programs_is_told() -> Result<()> {
    let guard = lab("texpoff", Families::V4)?;
    let agent = guard.agent(1);
    let question = ["texpoff-n1c1", "texpoff-n2c1"];
    agent.tell(&["log-level", "debug"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "watched");
    agent.tell(&["log-level", "off"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "same");
    agent.fastpath(false)?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "nothing");
    Ok(guard.down()?)
}

#[test]
fn what_cannot_be_asked_is_bad_input() -> Result<()> {
    let guard = Guard::overlay("texpbad")?;
    let agent = guard.agent(1);
    for (arguments, says) in [
        (&["nobody", "10.244.2.10"][..], "endpoint list"),
        (&["texpbad-n1c1", "nobody"], "address"),
        (&["texpbad-n1c1", "fd00::1"], "family"),
        (&["texpbad-n1c1", "10.244.2.10", "--size", "12"], "headers"),
        (
            &["texpbad-n1c1", "10.244.2.10", "--size", "60000"],
            "at most",
        ),
    ] {
        let out = agent.ask(&[&["explain"], arguments].concat())?;
        assert_eq!(out.code, Some(2), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(says), "{arguments:?}: {}", out.stderr);
    }
    Ok(guard.down()?)
}

#[test]
fn the_guard_is_asked_before_the_stack() -> Result<()> {
    for (name, rx, programs) in [
        ("texpgt", None, &["underlay_guard", "from_underlay"][..]),
        ("texpgx", Some("xdp"), &["underlay_guard"]),
    ] {
        let shape = Shape::new(name.parse()?, Scenario::Overlay, Some(2), Some(1))?;
        let guard = Guard::configured(shape, |_, config| {
            config.node.guard = Some("native");
            config.node.rx = rx;
        })?;
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
        let said = explain(&guard.agent(1), &[&from.namespace, &to.address.to_string()])?;
        assert!(said.good, "{:#?}", said.hops);
        let stages = said.hops[1]["stages"].as_array().context("stages")?;
        let met: Vec<_> = stages.iter().map(|stage| &stage["program"]).collect();
        assert_eq!(met, programs);
        assert_eq!(said.ttl(), Some(62));
        guard.down()?;
    }
    Ok(())
}

#[test]
fn the_next_node_can_be_named() -> Result<()> {
    let guard = lab("texppeer", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let far = nodes[1].containers[0].address.to_string();
    let from = &nodes[0].containers[0].namespace;
    let socket = format!("/run/overlay/{}/api.sock", nodes[1].namespace);
    for peer in [nodes[1].namespace.as_str(), &socket] {
        let said = explain(&agent, &[from, &far, "--peer", peer])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
    }
    // The wrong one says so, and nobody is no node.
    let wrong = agent.ask(&["explain", from, &far, "--peer", &agent.instance])?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains("no underlay device"),
        "{}",
        wrong.stderr
    );
    let nobody = agent.ask(&["explain", from, &far, "--peer", "nobody"])?;
    assert_eq!(nobody.code, Some(1), "{}", nobody.stderr);
    Ok(guard.down()?)
}
