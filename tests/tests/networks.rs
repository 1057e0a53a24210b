//! Two networks on the same nodes: each is whole, and neither reaches the other.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use overlay_common::{maps::DROPS, wire::IANA_PORT};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::{Config, Network, Peer},
    counters,
    families::{Families, Family},
    guard::Guard,
    run,
    script::inside,
    shape::{Scenario, Shape},
    topology::{FLANNEL_PORT, Node},
};

/// Far more than an answer takes within one machine.
const MOMENT: Duration = Duration::from_millis(300);
/// The second network; the first is the lab's.
const BLUE: &str = "blue";
const BLUE_VNI: u32 = 2;

/// A node's share of the second network.
fn blue_subnets(node: u8) -> Vec<String> {
    vec![
        format!("10.245.{node}.0/24"),
        format!("fd00:245:0:{node}::/64"),
    ]
}

/// The address in the second network of a node's second container.
fn blue(node: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 245, node, 10].into(),
        Family::V6 => [0xfd00, 0x245, 0, node.into(), 0, 0, 0, 10].into(),
    }
}

/// Puts the second container of each node into a second network.
fn divide(node: &Node, port: u16, config: &mut Config) {
    let lab = &config.networks[0];
    let peers = lab.peers.iter().map(|peer| Peer {
        subnet: blue_subnets(3 - node.number),
        ..peer.clone()
    });
    let network = Network {
        name: BLUE.to_owned(),
        vni: BLUE_VNI,
        port,
        cidr: vec!["10.245.0.0/16".to_owned(), "fd00:245::/48".to_owned()],
        subnet: blue_subnets(node.number),
        peers: peers.collect(),
        ..lab.clone()
    };
    config.networks.push(network);
    let second = &mut config.endpoints[1];
    BLUE.clone_into(&mut second.network);
    second.address = [Family::V4, Family::V6]
        .map(|family| blue(node.number, family).to_string())
        .to_vec();
}

fn raise(name: &str, port: u16, change: impl Fn(&mut Config)) -> Result<Guard> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
    Ok(Guard::configured(shape, |node, config| {
        divide(node, port, config);
        change(config);
    })?)
}

/// Whether an address answers; for what is expected there is more patience.
fn answers(from: &str, to: IpAddr, expected: bool) -> Result<bool> {
    let answer = if expected {
        check::ping(from, to)?
    } else {
        check::ping_for(from, to, MOMENT)?
    };
    Ok(matches!(answer, Answer::Ttl(_)))
}

/// From the containers of the first node, one in each network, to those of both nodes.
struct Reach {
    own: bool,
    other: bool,
}

/// Asserts what each container reaches of its own network and of the other.
fn reach(guard: &Guard, expected: &Reach) -> Result<()> {
    let nodes = &guard.topology().nodes;
    for family in [Family::V4, Family::V6] {
        let (red, in_blue) = (&nodes[0].containers[0], &nodes[0].containers[1]);
        for node in nodes {
            let (to_red, to_blue) = (node.containers[0].at(family), blue(node.number, family));
            for (from, to, reaches) in [
                (red, to_red, expected.own),
                (in_blue, to_blue, expected.own),
                (red, to_blue, expected.other),
                (in_blue, to_red, expected.other),
            ] {
                let answers = answers(&from.namespace, to, reaches)?;
                assert_eq!(
                    answers,
                    reaches,
                    "{} → {to}\n{}",
                    from.namespace,
                    guard.agent(1).log()?
                );
            }
        }
    }
    Ok(())
}

fn dropped_between_networks(agent: &Agent) -> Result<u64> {
    let drops = counters::reasons(&agent.instance, DROPS)?;
    let count = drops.iter().find(|(name, _)| name == "other_network");
    Ok(count.map_or(0, |&(_, packets)| packets))
}

/// The same, by whomever it was done.
fn dropped_between_networks_by_all(agent: &Agent) -> Result<u64> {
    let drops = agent.drops()?;
    Ok(drops.get("other_network").copied().unwrap_or_default())
}

/// The first node has the other network's gateway address itself, and does not answer there.
fn gateways_are_apart(guard: &Guard) -> Result<()> {
    let red = &guard.topology().nodes[0].containers[0];
    for gateway in ["10.245.1.1", "fd00:245:0:1::1"] {
        assert!(
            !answers(&red.namespace, gateway.parse()?, false)?,
            "{gateway}"
        );
    }
    Ok(())
}

fn are_apart(name: &str, port: u16) -> Result<()> {
    let guard = raise(name, port, |_| {})?;
    let apart = Reach {
        own: true,
        other: false,
    };
    let agent = guard.agent(1);
    reach(&guard, &apart)?;
    // Two containers, each to both containers of the other network, in two families.
    assert_eq!(dropped_between_networks(&agent)?, 8);
    gateways_are_apart(&guard)?;
    assert_eq!(dropped_between_networks_by_all(&agent)?, 10);
    for agent in guard.agents() {
        assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
        agent.fastpath(false)?;
        assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
    }
    reach(&guard, &apart)?;
    gateways_are_apart(&guard)?;
    assert_eq!(dropped_between_networks(&agent)?, 10, "by the programs");
    assert_eq!(dropped_between_networks_by_all(&agent)?, 20);
    Ok(guard.down()?)
}

#[test]
fn on_the_same_port_they_are_apart() -> Result<()> {
    are_apart("tnetone", IANA_PORT)
}

#[test]
fn on_different_ports_they_are_apart() -> Result<()> {
    are_apart("tnettwo", FLANNEL_PORT)
}

#[test]
fn when_both_accept_the_other_they_are_routed() -> Result<()> {
    let guard = raise("tnetopen", IANA_PORT, |config| {
        for network in &mut config.networks {
            network.security.insert("other_networks", "accept");
            // On another node it arrives in a network that its source is not of.
            network.security.insert("inner_source", "accept");
        }
    })?;
    let open = Reach {
        own: true,
        other: true,
    };
    reach(&guard, &open)?;
    guard.fastpath(false)?;
    reach(&guard, &open)?;
    Ok(guard.down()?)
}

#[test]
fn down_takes_the_rules_along() -> Result<()> {
    let guard = raise("tnetdown", IANA_PORT, |_| {})?;
    let agent = guard.agent(1);
    let rules = || {
        let line = inside(&agent.instance, "nft list ruleset");
        run::checked(line)
    };
    let table = format!("overlay-{}", agent.instance);
    assert!(rules()?.contains(&table), "{}", rules()?);
    agent.tell(&["down"])?;
    assert_eq!(rules()?.trim(), "");
    Ok(guard.down()?)
}
