//! What leaves a network goes out under the node's address, when that is asked for.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    families::{Families, Family},
    guard::Guard,
    netns::{self, Temporary},
    run,
    script::words,
    shape::{Scenario, Shape},
    traffic::Pair,
};

/// Long enough for a loaded machine; a datagram that is lost is not sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The node's and the outsider's addresses on a cable of their own (RFC 5737, RFC 3849).
const NODE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
const OUTSIDER: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];

/// A host next to the first node that knows nothing of containers.
fn outsider(name: &str, node: &str) -> Result<Temporary> {
    let outsider = Temporary::make(name)?;
    for line in [
        format!("ip link add ext0 netns {node} type veth peer name eth0 netns {name}"),
        format!("ip -n {node} addr add {}/24 dev ext0", NODE[0]),
        format!("ip -n {node} addr add {}/64 dev ext0 nodad", NODE[1]),
        format!("ip -n {name} addr add {}/24 dev eth0", OUTSIDER[0]),
        format!("ip -n {name} addr add {}/64 dev eth0 nodad", OUTSIDER[1]),
        format!("ip -n {node} link set ext0 up"),
        format!("ip -n {name} link set eth0 up"),
        // An answer to an address that it does not know would otherwise leave nowhere,
        // and look as if the question had not arrived.
        format!("ip -n {name} route add default via {}", NODE[0]),
        format!("ip -n {name} route add default via {}", NODE[1]),
    ] {
        run::checked(&words(line))?;
    }
    Ok(outsider)
}

/// Sends a datagram; from whom it is when it arrives.
fn sender_seen(from: &str, to: &str, address: IpAddr) -> Result<IpAddr> {
    let server = netns::inside(to, || UdpSocket::bind((address, 0)))??;
    server.set_read_timeout(Some(PATIENCE))?;
    let port = server.local_addr()?.port();
    let any: IpAddr = match address {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0; 16].into(),
    };
    let client = netns::inside(from, || UdpSocket::bind((any, 0)))??;
    client.send_to(b"who am I?", (address, port))?;
    let (_, sender) = server
        .recv_from(&mut [0; 16])
        .with_context(|| format!("{from} → {address}"))?;
    Ok(sender.ip())
}

fn leaves_as(name: &str, masquerade: bool) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let shape = shape.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.networks[0].masquerade = Some(masquerade);
    })?;
    let nodes = &guard.topology().nodes;
    let (node, here) = (&nodes[0].namespace, &nodes[0].containers[0]);
    let away = format!("{name}-out");
    let _outsider = outsider(&away, node)?;
    for on in [true, false] {
        for agent in guard.agents() {
            agent.fastpath(on)?;
            assert_eq!(agent.plan()?, Vec::<serde_json::Value>::new());
        }
        for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
            let own = here.at(family);
            let outside = if masquerade {
                NODE[index].parse()?
            } else {
                own
            };
            let seen = sender_seen(&here.namespace, &away, OUTSIDER[index].parse()?)?;
            assert_eq!(seen, outside, "to the outsider");
            for there in [&nodes[0].containers[1], &nodes[1].containers[0]] {
                let seen = sender_seen(&here.namespace, &there.namespace, there.at(family))?;
                assert_eq!(seen, own, "to {}", there.namespace);
            }
            // There and back, which takes the connection to be known on the way back.
            let pair = Pair {
                client: &here.namespace,
                server: &away,
                address: OUTSIDER[index].parse()?,
            };
            pair.tcp(&[1 << 20])?;
        }
    }
    Ok(guard.down()?)
}

#[test]
fn with_it_the_outside_sees_the_node() -> Result<()> {
    leaves_as("tmasq", true)
}

#[test]
fn without_it_the_outside_sees_the_container() -> Result<()> {
    leaves_as("tnomasq", false)
}
