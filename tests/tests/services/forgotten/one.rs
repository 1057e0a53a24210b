//! Connection tracking forgets one connection (`conntrack -D`), or the rule goes that translates it,
//! while it goes on. Who asks or is answered then gets what the kernel alone would give him.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    counters::passed,
    families::{Families, Family},
    guard::Guard,
    netns,
    shape::{Scenario, Shape},
};

use crate::{
    bridge_filters,
    cases::{LOCAL, PORT, REMOTE, rules, service},
    nft,
};

/// For what arrives on a loaded machine, and for what does not arrive.
const PATIENCE: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The client asks and is answered,
    Asks,
    /// or cannot be.
    AsksInVain,
    /// The server says something by itself, which arrives,
    Tells,
    /// or does not.
    TellsInVain,
    /// `conntrack -D` with the client's addresses and ports.
    IsForgotten,
    /// What is known of the connection stays.
    RulesGo,
}

use Step::{Asks, AsksInVain, IsForgotten, RulesGo, Tells, TellsInVain};

/// As it is with the kernel alone.
const STORIES: [(&str, &[Step], &[Step]); 4] = [
    (
        "the client asks again",
        &[Asks, IsForgotten, Asks, Tells],
        &[Asks, IsForgotten, Asks, Tells],
    ),
    (
        "the server tells something",
        // Nobody knows whom it is for, but who asks from another port is translated.
        &[Asks, IsForgotten, TellsInVain, Asks, Tells],
        // It is refused.
        &[Asks, IsForgotten, TellsInVain, AsksInVain],
    ),
    (
        "no rule is left",
        &[Asks, RulesGo, Asks, Tells, Asks],
        &[Asks, RulesGo, Asks, Tells, Asks],
    ),
    (
        "neither rule nor connection is left",
        &[Asks, RulesGo, IsForgotten, AsksInVain, TellsInVain],
        &[Asks, RulesGo, IsForgotten, AsksInVain, TellsInVain],
    ),
];

enum Line {
    Datagrams(UdpSocket, UdpSocket, SocketAddr),
    Stream(TcpStream, TcpStream),
}

impl Line {
    fn datagrams(ends: &Ends<'_>) -> Result<Self> {
        let server = netns::inside(ends.server, || UdpSocket::bind(ends.backend))??;
        let any: IpAddr = match ends.at {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        let client = netns::inside(ends.client, || UdpSocket::bind((any, 0)))??;
        client.connect(ends.at)?;
        Ok(Self::Datagrams(client, server, ends.at))
    }

    fn stream(ends: &Ends<'_>) -> Result<Self> {
        let listener = netns::inside(ends.server, || TcpListener::bind(ends.backend))??;
        let connect = || TcpStream::connect_timeout(&ends.at, PATIENCE);
        let client = netns::inside(ends.client, connect)??;
        let (server, _) = listener.accept()?;
        Ok(Self::Stream(client, server))
    }

    fn client(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Datagrams(client, ..) => client.local_addr(),
            Self::Stream(client, _) => client.local_addr(),
        }
    }

    fn protocol(&self) -> u8 {
        match self {
            Self::Datagrams(..) => 17,
            Self::Stream(..) => 6,
        }
    }

    fn wait(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Datagrams(one, other, _) => {
                one.set_read_timeout(Some(patience))?;
                other.set_read_timeout(Some(patience))
            }
            Self::Stream(one, other) => {
                one.set_read_timeout(Some(patience))?;
                other.set_read_timeout(Some(patience))
            }
        }
    }

    fn asks(&mut self) -> io::Result<()> {
        let mut word = [0; 4];
        match self {
            Self::Datagrams(client, server, from) => {
                // An error about what was sent before is told once.
                client.send(b"word").or_else(|_| client.send(b"word"))?;
                (_, *from) = match server.recv_from(&mut word) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        server.recv_from(&mut word)?
                    }
                    other => other?,
                };
                server.send_to(&word, *from)?;
                client.recv(&mut word)?;
            }
            Self::Stream(client, server) => {
                client.write_all(b"word")?;
                server.read_exact(&mut word)?;
                server.write_all(&word)?;
                client.read_exact(&mut word)?;
            }
        }
        Ok(())
    }

    fn tells(&mut self) -> io::Result<()> {
        let mut word = [0; 4];
        match self {
            Self::Datagrams(client, server, from) => {
                server.send_to(b"late", *from)?;
                client.recv(&mut word).map(drop)
            }
            Self::Stream(client, server) => {
                server.write_all(b"late")?;
                client.read_exact(&mut word)
            }
        }
    }
}

/// Who asks where, and who answers.
struct Ends<'a> {
    client: &'a str,
    at: SocketAddr,
    server: &'a str,
    backend: SocketAddr,
}

/// Has the kernel forget one connection of a namespace, which must be there.
fn forget(namespace: &str, protocol: u8, from: SocketAddr, to: SocketAddr) -> Result<()> {
    const NESTED: u16 = 1 << 15;
    let attribute = |kind: u16, body: &[u8]| -> Result<Vec<u8>> {
        let length = u16::try_from(4 + body.len())?;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes)
    };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // `CTA_IP_V4_SRC` and so on, and the family.
    let (kinds, family) = if to.is_ipv4() {
        ([1, 2], 2)
    } else {
        ([3, 4], 10)
    };
    let addresses = [
        attribute(kinds[0], &octets(from.ip()))?,
        attribute(kinds[1], &octets(to.ip()))?,
    ];
    let ports = [
        attribute(1, &[protocol])?,
        attribute(2, &from.port().to_be_bytes())?,
        attribute(3, &to.port().to_be_bytes())?,
    ];
    let tuple = [
        attribute(1 | NESTED, &addresses.concat())?,
        attribute(2 | NESTED, &ports.concat())?,
    ];
    let tuple = attribute(1 | NESTED, &tuple.concat())?;
    let deleted = super::delete(namespace, [family, 0, 0, 0], &tuple);
    deleted.with_context(|| format!("from {from} to {to}"))
}

fn goes(ends: &Ends<'_>, node: &str, mut line: Line, story: &[Step]) -> Result<()> {
    for (place, step) in story.iter().enumerate() {
        let is_right = match step {
            Asks | Tells => {
                line.wait(PATIENCE)?;
                let done = if *step == Asks {
                    line.asks()
                } else {
                    line.tells()
                };
                done.with_context(|| format!("step {place}, {step:?}"))?;
                true
            }
            AsksInVain | TellsInVain => {
                line.wait(MOMENT)?;
                let asks = *step == AsksInVain;
                let done = if asks { line.asks() } else { line.tells() };
                done.is_err()
            }
            IsForgotten => {
                forget(node, line.protocol(), line.client()?, ends.at)?;
                true
            }
            RulesGo => {
                // Without the chains nobody would translate any more, rule or not.
                nft(node, "flush chain inet svc translate")?;
                true
            }
        };
        anyhow::ensure!(is_right, "step {place}, {step:?}");
    }
    Ok(())
}

#[test]
fn one_connection_is_forgotten_as_without_the_fast_path() -> Result<()> {
    let shape = Shape::usual("tsvco", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let topology = guard.topology();
    let node = &topology.nodes[0].namespace;
    let client = &topology.nodes[0].containers[0];
    let filters = bridge_filters(node, true)?;
    let backends = [
        (REMOTE, &topology.nodes[1].containers[0]),
        (LOCAL, &topology.nodes[0].containers[1]),
    ];
    for on in [false, true] {
        guard.agent(1).fastpath(on)?;
        for (number, backend) in backends
            .iter()
            .filter(|(number, _)| *number == REMOTE || filters)
        {
            for family in [Family::V4, Family::V6] {
                let ends = Ends {
                    client: &client.namespace,
                    at: SocketAddr::new(service(*number, family), PORT),
                    server: &backend.namespace,
                    backend: SocketAddr::new(backend.at(family), PORT),
                };
                for (name, by_datagram, by_stream) in STORIES {
                    let what = || format!("{name}: service {number}, {family:?}, fast path {on}");
                    for (story, is_stream) in [(by_datagram, false), (by_stream, true)] {
                        nft(node, &rules(topology))?;
                        let line = if is_stream {
                            Line::stream(&ends)
                        } else {
                            Line::datagrams(&ends)
                        };
                        let outcome = line.and_then(|line| goes(&ends, node, line, story));
                        nft(node, "delete table inet svc")?;
                        super::forget(node, None)?;
                        outcome
                            .with_context(what)
                            .with_context(|| format!("TCP: {is_stream}"))?;
                    }
                }
            }
        }
    }
    assert_ne!(passed(node, "translated")?, 0, "the kernel has carried it");
    Ok(guard.down()?)
}
