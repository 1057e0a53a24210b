//! IPv6 packets behind extension headers, from a container to one of another node: the kernel
//! carries them, as it would without the programs, and the rules for sources hold there.

use std::time::Duration;

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check,
    counters::carried,
    families::{Families, Family},
    frames::{Ip, Mac, ethernet, ethertype, protocol, udp},
    guard::Guard,
    raw::{self, Socket},
    shape::{Scenario, Shape},
};

const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
/// For a packet that arrives, and for one that does not.
const PATIENCE: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(300);
/// That of an ordinary packet, and that of neighbour discovery.
const HOP_LIMITS: [u8; 2] = [64, 255];

/// A header: its kind, and what stands behind the kind of the next one.
type Header = (u8, Vec<u8>);

/// What was sent, what has arrived of it, and what was counted as dropped.
type Outcome = (String, Option<Vec<u8>>, Vec<(String, u64)>);

/// Options that say nothing.
fn padding(kind: u8) -> Header {
    (kind, vec![0, 1, 4, 0, 0, 0, 0])
}

fn chains() -> Vec<(&'static str, Vec<Header>)> {
    const HOP_BY_HOP: u8 = protocol::HOP_BY_HOP;
    const DESTINATION: u8 = protocol::DESTINATION;
    let many = |count: usize| vec![padding(DESTINATION); count];
    // Of a type that nobody knows, with nothing left to visit.
    let routing = (ROUTING, vec![0, 99, 0, 0, 0, 0, 0]);
    let fragment = |more: u8| (protocol::FRAGMENT, vec![0, 0, more, 0, 0, 0x12, 0x34]);
    // Six words of four bytes, of which two are not counted.
    let authentication = (AUTHENTICATION, [&[4, 0, 0][..], &[7; 20]].concat());
    // Routers drop a packet with an option of such a type, if it is one for them.
    let unknown = |kind| (kind, vec![0, 0x5e, 4, 0, 0, 0, 0]);
    vec![
        ("hop-by-hop options", vec![padding(HOP_BY_HOP)]),
        ("an unknown hop-by-hop option", vec![unknown(HOP_BY_HOP)]),
        ("a routing header", vec![routing.clone()]),
        ("destination options", many(1)),
        ("an unknown destination option", vec![unknown(DESTINATION)]),
        ("a fragment that is all", vec![fragment(0)]),
        ("a first fragment", vec![fragment(1)]),
        ("an authentication header", vec![authentication.clone()]),
        ("six headers", many(6)),
        ("eight headers", many(8)),
        ("a hundred headers", many(100)),
        (
            "hop-by-hop options in the middle",
            vec![padding(DESTINATION), padding(HOP_BY_HOP)],
        ),
        (
            "one of each",
            vec![
                padding(HOP_BY_HOP),
                padding(DESTINATION),
                routing,
                fragment(0),
                authentication,
                padding(DESTINATION),
            ],
        ),
        ("a header that ends behind the packet", {
            vec![(DESTINATION, vec![200, 1, 4, 0, 0, 0, 0])]
        }),
        ("nothing behind", vec![(NO_NEXT, Vec::new())]),
    ]
}

/// Two nodes with two containers each.
struct Stand {
    guard: Guard,
    entrance: Socket,
    exit: Socket,
    /// Of the gateway, and of the sender.
    macs: (Mac, Mac),
}

impl Stand {
    fn up(name: &str) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, 2, 2)?;
        let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
        let nodes = &guard.topology().nodes;
        let [from, to] = [0, 1].map(|node: usize| &nodes[node].containers[0].namespace);
        let gateway = nodes[0].gateway_at(Family::V6).context("a gateway")?;
        check::ping(from, gateway)?;
        Ok(Self {
            entrance: Socket::open(from, "eth0")?,
            exit: Socket::open(to, "eth0")?,
            macs: (
                raw::neighbour_of(from, gateway)?,
                raw::mac_of(from, "eth0")?,
            ),
            guard,
        })
    }

    fn agent(&self) -> Agent {
        self.guard.agent(1)
    }

    /// A packet with a chain before its datagram, from a container of the first node.
    fn packet(&self, chain: &[Header], ttl: u8, from: usize) -> Vec<u8> {
        let nodes = &self.guard.topology().nodes;
        let [from, to] = [
            nodes[0].containers[from].at(Family::V6),
            nodes[1].containers[0].at(Family::V6),
        ];
        let kinds = chain.iter().map(|(kind, _)| *kind);
        let mut kinds = kinds.chain([protocol::UDP]);
        let ip = Ip {
            ttl,
            protocol: kinds.next().unwrap_or(protocol::UDP),
            ..Ip::new(from, to)
        };
        let mut payload = Vec::new();
        for ((_, header), next) in chain.iter().zip(kinds) {
            if !header.is_empty() {
                payload.push(next);
                payload.extend(header);
            }
        }
        payload.extend(udp(1000, 9, 0, b"behind others"));
        let packet = ip.around(&payload);
        ethernet(self.macs.0, self.macs.1, ethertype::IPV6, &packet)
    }

    /// What arrives of it, up to a packet that is sent behind.
    fn arrives(&self, frame: &[u8], last: &[u8]) -> Result<Option<Vec<u8>>> {
        self.entrance.send(frame)?;
        // The kernel is asked by another way than the programs: they may overtake it.
        let behind_addresses = &frame[14 + 40..];
        let is_it = |seen: &[u8]| seen.len() == frame.len() && seen[14 + 40..] == *behind_addresses;
        if let Some(seen) = self.exit.receive(MOMENT, is_it)? {
            return Ok(Some(seen));
        }
        self.entrance.send(last)?;
        let length = last.len();
        let came = self.exit.receive(PATIENCE, |seen| seen.len() == length)?;
        came.context("not even a packet without a chain arrives")?;
        Ok(None)
    }

    /// What becomes of each chain, and what is counted as dropped on the way.
    fn outcomes(&self, from: usize) -> Result<Vec<Outcome>> {
        let last = self.packet(&[], 64, 0);
        let mut outcomes = Vec::new();
        for (what, chain) in chains() {
            for ttl in HOP_LIMITS {
                let before = self.agent().drops()?;
                let arrived = self.arrives(&self.packet(&chain, ttl, from), &last)?;
                let dropped = self.agent().drops_since(&before)?;
                outcomes.push((format!("{what}, hop limit {ttl}"), arrived, dropped));
            }
        }
        Ok(outcomes)
    }
}

#[test]
fn chains_of_headers_fare_as_with_the_kernel_alone() -> Result<()> {
    let stand = Stand::up("text")?;
    let mut outcomes = Vec::new();
    for on in [true, false] {
        for node in [1, 2] {
            stand.guard.agent(node).fastpath(on)?;
        }
        let before = carried(&stand.agent().instance)?;
        // Its own address, and then its neighbour's.
        outcomes.push([stand.outcomes(0)?, stand.outcomes(1)?]);
        let sent = carried(&stand.agent().instance)?.sent - before.sent;
        assert_eq!(sent > 0, on, "{sent} by the programs");
    }
    let [[own, foreign], [own_by_kernel, foreign_by_kernel]] = outcomes.as_slice() else {
        unreachable!("two paths")
    };
    for (fast, slow) in own.iter().zip(own_by_kernel) {
        assert_eq!(fast, slow);
        assert!(fast.2.is_empty(), "{}: {:?} drop it", fast.0, fast.2);
    }
    let arrived = own.iter().filter(|(_, arrived, _)| arrived.is_some());
    assert!(arrived.count() >= chains().len(), "{own:?}");
    let spoofed = [("spoofed_source".to_owned(), 1)];
    for (fast, slow) in foreign.iter().zip(foreign_by_kernel) {
        assert_eq!((&fast.1, &fast.2[..]), (&None, &spoofed[..]), "{}", fast.0);
        assert_eq!(fast, slow);
    }
    Ok(stand.guard.down()?)
}
