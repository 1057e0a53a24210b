//! Networks that do not fit.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use overlay_tests::{
    check::{self, Answer},
    config::{Config, Endpoint, Network, Peer},
    counters::Carried,
    families::Families,
};

use crate::stand::Stand;

/// Far more than an answer takes within one machine.
const MOMENT: Duration = Duration::from_millis(300);
/// The second network; the first is the lab's.
const BLUE: &str = "blue";

/// The address of a node's container in the second network.
fn blue(node: u8) -> IpAddr {
    [10, 245, node, 10].into()
}

fn blue_container(stand: &Stand, node: u8) -> String {
    stand.other(&format!("b{node}"))
}

/// A node's configuration with a second network, and a container in it.
fn with_blue(stand: &Stand, node: u8) -> Config {
    let mut config = stand.usual(node);
    let red = &config.networks[0];
    let subnet = |node: u8| vec![format!("10.245.{node}.0/24")];
    let peers = red.peers.iter().map(|peer| Peer {
        subnet: subnet(3 - node),
        ..peer.clone()
    });
    let network = Network {
        name: BLUE.to_owned(),
        vni: 2,
        cidr: vec!["10.245.0.0/16".to_owned()],
        subnet: subnet(node),
        peers: peers.collect(),
        ..red.clone()
    };
    config.networks.push(network);
    let name = blue_container(stand, node);
    config.endpoints.push(Endpoint {
        name: name.clone(),
        network: BLUE.to_owned(),
        netns: Some(name),
        address: vec![blue(node).to_string()],
        ..Endpoint::default()
    });
    config
}

/// All packets that two of them exchange who ask each other.
const FAST: Carried = Carried {
    sent: 2,
    received: 2,
    local: 0,
};

/// What is carried for the second network when a map has too few entries for it.
fn second_network(name: &str, map: &str) -> Result<Carried> {
    let only = (Families::V4, Families::V4);
    let stand = Stand::raise(name, only, 1, &format!("{map}=1"))?;
    for node in [1, 2] {
        stand.configure(node, &with_blue(&stand, node))?;
    }
    for node in [1, 2] {
        stand.tells(node, false, &format!("map {map} is full with 1 entries"))?;
    }
    let [one, two] = [1, 2].map(|node| blue_container(&stand, node));
    let blues = [(one.as_str(), blue(1)), (two.as_str(), blue(2))];
    let nodes = &stand.guard.topology().nodes;
    let reds = [0, 1].map(|node: usize| {
        let container = &nodes[node].containers[0];
        (
            container.namespace.as_str(),
            IpAddr::from(container.address),
        )
    });
    let meet = |[one, other]: [(&str, IpAddr); 2]| {
        stand.meet(one, other, 2)?;
        stand.carries(|| stand.meet(one, other, 2))
    };
    assert_eq!(meet(reds)?, FAST, "the first network goes on");
    let carried = meet(blues)?;
    for red in reds {
        for blue in blues {
            for ((from, _), (_, to)) in [(red, blue), (blue, red)] {
                let answer = check::ping_for(from, to, MOMENT)?;
                assert!(!matches!(answer, Answer::Ttl(_)), "{from} reaches {to}");
            }
        }
    }
    for node in [1, 2] {
        stand.configure(node, &stand.usual(node))?;
        stand.tells(node, true, "")?;
    }
    assert_eq!(meet(reds)?, FAST);
    stand.guard.down()?;
    Ok(carried)
}

#[test]
fn one_that_does_not_fit_is_carried_by_the_kernel_and_kept_apart() -> Result<()> {
    let carried = second_network("tfnet", "NETWORKS")?;
    assert_eq!(
        carried,
        Carried::default(),
        "what does not fit is not in the map"
    );
    Ok(())
}

#[test]
fn one_whose_range_does_not_fit_is_kept_apart_by_the_kernel() -> Result<()> {
    assert_eq!(second_network("tfcidr", "CIDRS")?, FAST);
    Ok(())
}
