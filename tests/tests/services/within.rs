//! The node translates what containers ask each other by their own addresses, or drops it between
//! neighbours: it is so on either path, and over when the rule goes.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
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

/// A namespace and its address.
type Who<'a> = (&'a str, IpAddr);

/// Those of both nodes, in one family.
struct All<'a> {
    own: Who<'a>,
    neighbour: Who<'a>,
    remote: Who<'a>,
    another: Who<'a>,
    /// The first node, wherever it is asked.
    host: Who<'a>,
    ip: &'static str,
    /// Matches for what is asked.
    ports: String,
}

fn case<'a>(
    name: &'static str,
    rule: (&'static str, String),
    client: Who<'a>,
    at: IpAddr,
    (server, backend): Who<'a>,
    port: u16,
) -> Case<'a> {
    Case {
        name,
        rule,
        client: client.0,
        at,
        server,
        backend: SocketAddr::new(backend, port),
    }
}

fn cases(topology: &Topology, family: Family) -> Vec<Case<'_>> {
    let [node, other] = topology.two_nodes();
    let [own, neighbour] = &node.containers[..] else {
        panic!("two containers")
    };
    let [remote, another] = &other.containers[..] else {
        panic!("two containers")
    };
    let [own, neighbour, remote, another] =
        [own, neighbour, remote, another].map(|one| (&*one.namespace, one.at(family)));
    let (ip, any): (_, IpAddr) = match family {
        Family::V4 => ("ip", [0; 4].into()),
        Family::V6 => ("ip6", [0; 16].into()),
    };
    let all = All {
        own,
        neighbour,
        remote,
        another,
        host: (&*node.namespace, any),
        ip,
        ports: format!("meta l4proto {{ tcp, udp }} th dport {PORT}"),
    };
    let mut cases = all.destinations();
    cases.extend(all.to_the_node());
    cases.extend(all.sources());
    cases.extend(all.apart());
    cases
}

impl<'a> All<'a> {
    fn destinations(&self) -> Vec<Case<'a>> {
        let Self {
            own,
            neighbour,
            remote,
            another,
            ip,
            ref ports,
            ..
        } = *self;
        let to = |(_, at): Who<'_>, (_, whom): Who<'_>| {
            let rule = format!("{ip} daddr {at} {ports} dnat {ip} to {whom}");
            (PREROUTING, rule)
        };
        let by_device = format!("iifname ovlbr1 {ports} dnat {ip} to {}", remote.1);
        let map = format!("{{ {} : {} }}", another.1, remote.1);
        let in_map = format!("dnat {ip} to {ip} daddr map {map}");
        vec![
            case(
                "a peer's for another",
                to(another, remote),
                own,
                another.1,
                remote,
                PORT,
            ),
            case(
                "a peer's for a neighbour",
                to(another, neighbour),
                own,
                another.1,
                neighbour,
                PORT,
            ),
            case(
                "a neighbour for a peer's",
                to(neighbour, remote),
                own,
                neighbour.1,
                remote,
                PORT,
            ),
            case(
                "by a device",
                (PREROUTING, by_device),
                own,
                another.1,
                remote,
                PORT,
            ),
            case(
                "in a map",
                (PREROUTING, in_map),
                own,
                another.1,
                remote,
                PORT,
            ),
            case(
                "what comes from a peer",
                to(neighbour, own),
                remote,
                neighbour.1,
                own,
                PORT,
            ),
        ]
    }

    fn to_the_node(&self) -> [Case<'a>; 2] {
        let (ip, ports, at) = (self.ip, &self.ports, self.remote.1);
        let by_address = format!("{ip} daddr {at} {ports} redirect to :{OWN_PORT}");
        let by_device = format!("iifname ovlbr1 {ports} redirect to :{OWN_PORT}");
        [
            ("to the node", by_address),
            ("to the node, by a port", by_device),
        ]
        .map(|(name, rule)| case(name, (PREROUTING, rule), self.own, at, self.host, OWN_PORT))
    }

    fn sources(&self) -> [Case<'a>; 5] {
        let (ip, own, remote) = (self.ip, self.own, self.remote);
        let from = format!("{ip} saddr {}", own.1);
        let neighbour = format!("{from} snat {ip} to {}", self.neighbour.1);
        let there = [
            ("another source", format!("{from} masquerade")),
            ("a neighbour's source", neighbour),
            ("the tunnel's source", "oifname ovl1 masquerade".to_owned()),
            ("everybody's source", "masquerade".to_owned()),
        ];
        let [one, two, three, four] =
            there.map(|(name, rule)| case(name, (POSTROUTING, rule), own, remote.1, remote, PORT));
        let back = (POSTROUTING, "oifname ovlbr1 masquerade".to_owned());
        let back = case("the source of what comes", back, remote, own.1, own, PORT);
        [one, two, three, four, back]
    }

    fn apart(&self) -> [Case<'a>; 2] {
        let to = self.neighbour;
        let devices = "iifname ovlbr1 oifname ovlbr1 drop".to_owned();
        [
            ("neighbours apart", devices),
            ("neighbours apart at a port", format!("{} drop", self.ports)),
        ]
        .map(|(name, rule)| case(name, (FORWARD, rule), self.own, to.1, to, PORT))
    }
}

fn within(name: &str, rx: Option<&'static str>) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
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
            poll::until(|| kube::is_fast(&guard, family), |it| *it)
                .with_context(|| format!("fast again after {}", what()))?;
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
