//! What leaves a network goes out under the node's address, when that is asked for.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    families::{Families, Family},
    guard::Guard,
    netns::{self, Temporary},
    run,
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
        run::checked(line)?;
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
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
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

/// A node that speaks from its underlay address has its answers rewritten, and the rest of a
/// connection refused, unless connection tracking sees both directions or neither.
#[test]
fn a_node_is_answered_at_its_underlay_address() -> Result<()> {
    let shape = Shape::usual("tnode", Scenario::Overlay)?;
    let guard = Guard::configured(shape, |_, config| {
        config.networks[0].masquerade = Some(true);
    })?;
    let nodes = &guard.topology().nodes;
    for node in nodes {
        let rules = "table inet strict { chain forward {
            type filter hook forward priority 0;
            ct state invalid drop
            }
            }";
        let nft = [
            "nsenter",
            &format!("--net=/run/netns/{}", node.namespace),
            "nft",
            rules,
        ];
        run::checked(nft.map(str::to_owned))?;
    }
    for on in [true, false] {
        guard.fastpath(on)?;
        for [from, to] in [[&nodes[0], &nodes[1]], [&nodes[1], &nodes[0]]] {
            let (container, underlay) = (&to.containers[0], IpAddr::from(from.underlay));
            echo(
                &from.namespace,
                underlay,
                &container.namespace,
                container.address.into(),
            )?;
            // The other way round, too.
            let source = container.address.into();
            echo(&container.namespace, source, &from.namespace, underlay)?;
        }
    }
    Ok(guard.down()?)
}

/// A connection between two addresses over which something is sent there and back.
fn echo(from: &str, source: IpAddr, to: &str, address: IpAddr) -> Result<()> {
    let what = format!("{source} in {from} to {address} in {to}");
    let server = netns::inside(to, || TcpListener::bind((address, 0)))??;
    let port = server.local_addr()?.port();
    let answer = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = server.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut word = [0; 4];
        stream.read_exact(&mut word)?;
        stream.write_all(&word)
    });
    let connect = format!("socat -T5 - TCP:{address}:{port},bind={source},connect-timeout=5");
    let line = format!("echo word | nsenter --net=/run/netns/{from} {connect}");
    let said = run::checked(&["sh".to_owned(), "-c".to_owned(), line]).context(what.clone())?;
    assert_eq!(said.trim(), "word", "{what}");
    answer
        .join()
        .map_err(|_| anyhow::anyhow!("the server has panicked"))?
        .context(what)
}

#[test]
fn with_it_the_outside_sees_the_node() -> Result<()> {
    leaves_as("tmasq", true)
}

#[test]
fn without_it_the_outside_sees_the_container() -> Result<()> {
    leaves_as("tnomasq", false)
}
