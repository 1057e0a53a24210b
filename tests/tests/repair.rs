//! What others break is repaired; what is not ours is never touched.

use std::path::Path;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters,
    guard::Guard,
    poll, run,
    script::{inside, words},
    snapshot::Snapshot,
};

/// Runs a command in the agent's node that must succeed.
fn on_node(agent: &Agent, command: &str) -> Result<String> {
    Ok(run::checked(&words(inside(&agent.instance, command)))?)
}

/// The only device of a kind on the node.
fn device(agent: &Agent, kind: &str) -> Result<String> {
    let text = on_node(agent, &format!("ip -brief link show type {kind}"))?;
    let name = text
        .split_whitespace()
        .next()
        .with_context(|| format!("no {kind} device"))?;
    Ok(name.split('@').next().unwrap_or(name).to_owned())
}

/// The node's side of a container's veth.
fn veth(agent: &Agent, endpoint: &str) -> Result<String> {
    let status = agent.json(&["status"])?;
    let endpoints = status["endpoints"]
        .as_array()
        .context("no endpoints in the status")?;
    let found = endpoints
        .iter()
        .find(|candidate| candidate["name"] == endpoint);
    let device = found.and_then(|endpoint| endpoint["device"].as_str());
    Ok(device
        .with_context(|| format!("no device of {endpoint} in {status}"))?
        .to_owned())
}

/// None when nothing is to be repaired and everybody answers.
fn complaint(guard: &Guard, agent: &Agent) -> Option<String> {
    let ask = || -> Result<Option<String>> {
        let plan = agent.plan()?;
        if !plan.is_empty() {
            return Ok(Some(format!("still to be done: {plan:?}")));
        }
        let nodes = &guard.topology().nodes;
        let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        for (from, to) in [
            (&here.namespace, there.address),
            (&there.namespace, here.address),
            (&nodes[0].namespace, there.address),
            (&here.namespace, nodes[0].containers[1].address),
        ] {
            if let Answer::None(why) = check::ping(from, to)? {
                return Ok(Some(format!("{from} → {to}: {why}")));
            }
        }
        Ok(None)
    };
    ask().unwrap_or_else(|error| Some(format!("{error:#}")))
}

/// Breaks something by a command and waits until it is whole again.
fn is_repaired_after(guard: &Guard, agent: &Agent, damage: &str) -> Result<()> {
    on_node(agent, damage)?;
    let repaired = poll::until_well(|| complaint(guard, agent));
    assert_eq!(repaired, Ok(()), "after `{damage}`\n{}", agent.log()?);
    Ok(())
}

#[test]
fn what_is_deleted_or_altered_comes_back() -> Result<()> {
    let guard = Guard::overlay("trepair")?;
    let agent = guard.agent(1);
    let (bridge, vxlan) = (device(&agent, "bridge")?, device(&agent, "vxlan")?);
    let endpoint = &guard.topology().nodes[0].containers[0].namespace;
    let veth = veth(&agent, endpoint)?;

    let neighbour = on_node(&agent, &format!("ip neigh show nud permanent dev {vxlan}"))?;
    let neighbour = neighbour
        .split_whitespace()
        .next()
        .context("no permanent neighbour")?
        .to_owned();
    let damages = [
        "ip route del 10.244.2.0/24".to_owned(),
        format!("ip neigh del {neighbour} dev {vxlan}"),
        format!("ip neigh replace {neighbour} lladdr 02:00:00:00:00:01 dev {vxlan}"),
        format!("bridge fdb del 02:4f:c0:a8:38:0c dev {vxlan}"),
        format!("ip addr del 10.244.1.1/24 dev {bridge}"),
        format!("ip link set {bridge} down"),
        format!("ip link set {vxlan} mtu 1300"),
        format!("ip link set {veth} nomaster"),
        format!("ip link set {veth} down"),
        format!("ip link del {veth}"),
        format!("ip link del {vxlan}"),
        format!("ip link del {bridge}"),
        "sysctl -qw net.ipv4.ip_forward=0".to_owned(),
    ];
    for damage in damages {
        is_repaired_after(&guard, &agent, &damage)?;
    }
    let matrix = check::all_pairs(guard.topology())?;
    assert_eq!(matrix.faults(), Vec::<String>::new(), "\n{matrix}");
    Ok(guard.down()?)
}

#[test]
fn what_is_altered_inside_a_container_comes_back() -> Result<()> {
    let guard = Guard::overlay("tinside")?;
    let agent = guard.agent(1);
    let container = guard.topology().nodes[0].containers[0].clone();
    for damage in [
        "ip route del default".to_owned(),
        format!("ip addr del {}/24 dev eth0", container.address),
        "ip link set eth0 down".to_owned(),
        "ip link set eth0 mtu 1200".to_owned(),
        "ip link del eth0".to_owned(),
    ] {
        run::checked(&words(inside(&container.namespace, &damage)))?;
        let repaired = poll::until_well(|| complaint(&guard, &agent));
        assert_eq!(
            repaired,
            Ok(()),
            "after `{damage}` in the container\n{}",
            agent.log()?
        );
    }
    Ok(guard.down()?)
}

#[test]
fn a_detached_program_is_attached_again() -> Result<()> {
    let guard = Guard::overlay("tdetach")?;
    let agent = guard.agent(1);
    let bpftool = |line: String| run::output(&words(format!("bpftool {line}")));
    let mut links = Vec::new();
    for pin in counters::pins(&Path::new("/sys/fs/bpf/overlay").join(&agent.instance))? {
        if bpftool(format!("link show pinned {}", pin.display()))?.success {
            links.push(pin);
        }
    }
    assert!(!links.is_empty(), "no links are pinned");
    for pin in links {
        let out = bpftool(format!("link detach pinned {}", pin.display()))?;
        assert!(out.success, "detach {}: {}", pin.display(), out.stderr);
        let repaired = poll::until_well(|| complaint(&guard, &agent));
        assert_eq!(
            repaired,
            Ok(()),
            "after {} was detached\n{}",
            pin.display(),
            agent.log()?
        );
    }
    let nodes = &guard.topology().nodes;
    let before = counters::carried(&agent.instance)?;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    let carried = counters::carried(&agent.instance)? - before;
    assert_eq!(
        (carried.sent, carried.received),
        (1, 1),
        "the programs are back in the path"
    );
    Ok(guard.down()?)
}

#[test]
fn a_route_of_somebody_else_in_place_of_ours_is_reported_and_left() -> Result<()> {
    let guard = Guard::overlay("tusurp")?;
    let agent = guard.agent(1);
    on_node(&agent, "ip route replace 10.244.2.0/24 via 192.168.56.12")?;
    let reported = poll::until_well(|| match agent.ask(&["status"]) {
        Ok(out) if out.code == Some(1) && out.stdout.contains("10.244.2.0/24") => None,
        Ok(out) => Some(out.stdout + &out.stderr),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(reported, Ok(()), "{}", agent.log()?);
    let route = on_node(&agent, "ip route show 10.244.2.0/24")?;
    assert!(route.contains("via 192.168.56.12 dev eth1"), "{route}");

    is_repaired_after(&guard, &agent, "ip route del 10.244.2.0/24")?;
    Ok(guard.down()?)
}

/// Texts that only lines about the user's own objects contain.
const FOREIGN: [&str; 4] = ["user0", "10.99.", "clsact", "pref 99"];

fn foreign(namespace: &str) -> Result<Vec<String>> {
    let snapshot = Snapshot::of(namespace)?;
    // A device's settings follow net.ipv4.ip_forward, which is the agent's to set and restore.
    let of_the_user =
        |line: &&str| FOREIGN.iter().any(|mark| line.contains(mark)) && !line.starts_with("net.");
    Ok(snapshot
        .lines()
        .filter(of_the_user)
        .map(str::to_owned)
        .collect())
}

#[test]
fn what_is_not_ours_is_never_touched() -> Result<()> {
    let guard = Guard::overlay("tforeign")?;
    let agent = guard.agent(1);
    let bridge = device(&agent, "bridge")?;
    for command in [
        "ip link add user0 type bridge".to_owned(),
        "ip addr add 10.99.1.1/24 dev user0".to_owned(),
        "ip link set user0 up".to_owned(),
        "ip route add 10.99.2.0/24 via 192.168.56.12".to_owned(),
        "tc qdisc add dev eth1 clsact".to_owned(),
        "tc filter add dev eth1 ingress pref 99 protocol all u32 match u32 0 0 flowid 1:1"
            .to_owned(),
    ] {
        on_node(&agent, &command)?;
    }
    let before = foreign(&agent.instance)?;
    assert!(before.len() >= 5, "{before:?}");

    for damage in [
        "ip route del 10.244.2.0/24".to_owned(),
        format!("ip link del {bridge}"),
    ] {
        is_repaired_after(&guard, &agent, &damage)?;
    }
    agent.fastpath(false)?;
    agent.fastpath(true)?;
    assert_eq!(foreign(&agent.instance)?, before);

    agent.tell(&["down"])?;
    assert_eq!(foreign(&agent.instance)?, before, "after down");
    Ok(guard.down()?)
}
