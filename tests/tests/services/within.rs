//! The node translates what containers ask each other by their own addresses, or drops it between
//! neighbours: it is so on either path, and over when the rule goes.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::Result;
use overlay_tests::{
    families::{Families, Family},
    guard::Guard,
    netns, poll,
    shape::{Scenario, Shape},
    topology::Topology,
};

use crate::{bridge_filters, cases::PORT, kube, nft};

/// Long enough for what arrives on a machine that is not busy; what does not is asked again.
const MOMENT: Duration = Duration::from_millis(400);
/// Where the node itself listens.
const OWN_PORT: u16 = 9_090;

const PREROUTING: &str = "type nat hook prerouting priority dstnat";
const POSTROUTING: &str = "type nat hook postrouting priority srcnat";
const FORWARD: &str = "type filter hook forward priority filter";

struct Case<'a> {
    name: &'static str,
    /// Of a base chain: where it is, and its rule.
    rule: (&'static str, String),
    client: &'a str,
    at: IpAddr,
    /// Who is to answer, and at which address and port.
    server: &'a str,
    backend: SocketAddr,
}

/// The source with which a question arrives, by UDP and by TCP; `None` where no answer comes.
type Seen = [Option<IpAddr>; 2];

impl Case<'_> {
    fn table(&self) -> String {
        let (chain, rule) = &self.rule;
        format!("table inet within {{ chain c {{ {chain}; {rule}; }}; }}")
    }

    fn seen(&self) -> Result<Seen> {
        Ok([self.by_datagram()?, self.by_stream()?])
    }

    fn by_datagram(&self) -> Result<Option<IpAddr>> {
        let server = netns::inside(self.server, || UdpSocket::bind(self.backend))??;
        let any: IpAddr = match self.at {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => [0; 16].into(),
        };
        let client = netns::inside(self.client, || UdpSocket::bind((any, 0)))??;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(MOMENT))?;
        }
        let ask = || {
            client.connect((self.at, PORT))?;
            client.send(b"word")?;
            let (_, from) = server.recv_from(&mut [0; 4])?;
            server.send_to(b"word", from)?;
            client.recv(&mut [0; 4])?;
            Ok::<_, std::io::Error>(from.ip())
        };
        Ok(ask().ok())
    }

    fn by_stream(&self) -> Result<Option<IpAddr>> {
        let server = netns::inside(self.server, || TcpListener::bind(self.backend))??;
        server.set_nonblocking(true)?;
        let at = SocketAddr::new(self.at, PORT);
        let client = netns::inside(self.client, || TcpStream::connect_timeout(&at, MOMENT))?;
        let Ok(mut client) = client else {
            return Ok(None);
        };
        client.set_read_timeout(Some(MOMENT))?;
        let accepted = thread::spawn(move || -> std::io::Result<IpAddr> {
            let (mut stream, from) = server.accept()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(MOMENT))?;
            let mut word = [0; 4];
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
            Ok(from.ip())
        });
        let word = client
            .write_all(b"word")
            .and_then(|()| client.read_exact(&mut [0; 4]));
        let from = accepted.join();
        let from = from.map_err(|_| anyhow::anyhow!("the server has panicked"))?;
        Ok(word.and(from).ok())
    }
}

fn cases<'a>(topology: &'a Topology, family: Family) -> Vec<Case<'a>> {
    let [node, other] = &topology.nodes[..] else {
        panic!("two nodes")
    };
    let [client, near] = &node.containers[..] else {
        panic!("two containers")
    };
    let [far, farther] = &other.containers[..] else {
        panic!("two containers")
    };
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let [own, neighbour, remote, another] =
        [client, near, far, farther].map(|one| (&*one.namespace, one.at(family)));
    let any: IpAddr = match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0; 16].into(),
    };
    let host = (&*node.namespace, any);
    let ports = format!("meta l4proto {{ tcp, udp }} th dport {PORT}");
    let case =
        |name, rule, (client, _): (&'a str, IpAddr), at, server: (&'a str, IpAddr), port| Case {
            name,
            rule,
            client,
            at,
            server: server.0,
            backend: SocketAddr::new(server.1, port),
        };
    let to = |at: IpAddr, rule: String| (PREROUTING, format!("{ip} daddr {at} {ports} {rule}"));
    let dnat = |at, to_whom: IpAddr| to(at, format!("dnat {ip} to {to_whom}"));
    let (from, back) = ((POSTROUTING, format!("{ip} saddr {}", own.1)), own.1);
    let source = |rule: &str| (from.0, format!("{} {rule}", from.1));
    let by = |chain, rule: &str| (chain, rule.to_owned());
    vec![
        case(
            "a peer's for another",
            dnat(another.1, remote.1),
            own,
            another.1,
            remote,
            PORT,
        ),
        case(
            "a peer's for a neighbour",
            dnat(another.1, neighbour.1),
            own,
            another.1,
            neighbour,
            PORT,
        ),
        case(
            "a neighbour for a peer's",
            dnat(neighbour.1, remote.1),
            own,
            neighbour.1,
            remote,
            PORT,
        ),
        case(
            "by a device",
            (
                PREROUTING,
                format!("iifname ovlbr1 {ports} dnat {ip} to {}", remote.1),
            ),
            own,
            another.1,
            remote,
            PORT,
        ),
        case(
            "in a map",
            (
                PREROUTING,
                format!(
                    "dnat {ip} to {ip} daddr map {{ {} : {} }}",
                    another.1, remote.1
                ),
            ),
            own,
            another.1,
            remote,
            PORT,
        ),
        case(
            "what comes from a peer",
            dnat(neighbour.1, back),
            remote,
            neighbour.1,
            own,
            PORT,
        ),
        case(
            "to the node",
            to(remote.1, format!("redirect to :{OWN_PORT}")),
            own,
            remote.1,
            host,
            OWN_PORT,
        ),
        case(
            "to the node, by a port",
            (
                PREROUTING,
                format!("iifname ovlbr1 {ports} redirect to :{OWN_PORT}"),
            ),
            own,
            remote.1,
            host,
            OWN_PORT,
        ),
        case(
            "another source",
            source("masquerade"),
            own,
            remote.1,
            remote,
            PORT,
        ),
        case(
            "a neighbour's source",
            source(&format!("snat {ip} to {}", neighbour.1)),
            own,
            remote.1,
            remote,
            PORT,
        ),
        case(
            "the tunnel's source",
            by(POSTROUTING, "oifname ovl1 masquerade"),
            own,
            remote.1,
            remote,
            PORT,
        ),
        case(
            "everybody's source",
            by(POSTROUTING, "masquerade"),
            own,
            remote.1,
            remote,
            PORT,
        ),
        case(
            "the source of what comes",
            by(POSTROUTING, "oifname ovlbr1 masquerade"),
            remote,
            back,
            own,
            PORT,
        ),
        case(
            "neighbours apart",
            by(FORWARD, "iifname ovlbr1 oifname ovlbr1 drop"),
            own,
            neighbour.1,
            neighbour,
            PORT,
        ),
        case(
            "neighbours apart at a port",
            (FORWARD, format!("{ports} drop")),
            own,
            neighbour.1,
            neighbour,
            PORT,
        ),
    ]
}

fn within(name: &str, rx: Option<&'static str>) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?;
    let shape = shape.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.rx = rx;
        config.node.guard = rx.map(|_| "native");
    })?;
    let topology = guard.topology();
    let node = &topology.nodes[0].namespace;
    let agent = guard.agent(1);
    bridge_filters(node, true)?;
    for family in [Family::V4, Family::V6] {
        for case in cases(topology, family) {
            let what = || format!("{}, {family:?}", case.name);
            agent.fastpath(false)?;
            nft(node, &case.table())?;
            let without = case.seen()?;
            nft(node, "delete table inet within")?;
            agent.fastpath(true)?;
            nft(node, &case.table())?;
            let outcome = poll::until_well(|| match case.seen() {
                Ok(seen) if seen == without => None,
                other => Some(format!("{other:?}, and {without:?} without the fast path")),
            });
            assert_eq!(outcome, Ok(()), "{}", what());
            nft(node, "delete table inet within")?;
            let outcome = poll::until_well(|| match kube::is_fast(&guard, family) {
                Ok(true) => None,
                other => Some(format!("{other:?}")),
            });
            assert_eq!(outcome, Ok(()), "fast again after {}", what());
        }
    }
    Ok(guard.down()?)
}

#[test]
fn what_is_translated_or_kept_apart_in_the_network_is_so_beside_the_fast_path() -> Result<()> {
    within("tsvcw", None)
}

#[test]
fn what_is_translated_or_kept_apart_in_the_network_is_so_with_xdp() -> Result<()> {
    within("tsvcwx", Some("xdp"))
}
