//! A container that speaks as somebody else: dropped, under the one right counter, with a
//! switch that allows it; by the programs, and without them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    check::{self, Answer},
    families::{Families, Family},
    frames::{self, Ip, Mac, ethernet, ethertype, protocol, udp},
    guard::Guard,
    netns::Temporary,
    raw::{self, Socket},
    run,
    script::inside,
    shape::{Scenario, Shape},
};

const SOMEBODY: Mac = [0x02, 0, 0, 0, 0, 0x77];
const BROADCAST: Mac = [0xff; 6];
/// All nodes of a link, by Ethernet (RFC 2464 §7).
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// What a container may say of itself.
struct Own {
    mac: Mac,
    gateway: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// Another container of its node.
    other4: Ipv4Addr,
    other6: Ipv6Addr,
    remote4: Ipv4Addr,
    remote6: Ipv6Addr,
}

impl Own {
    fn of(guard: &Guard) -> Result<Self> {
        let nodes = &guard.topology().nodes;
        let (here, other, remote) = (
            &nodes[0].containers[0],
            &nodes[0].containers[1],
            &nodes[1].containers[0],
        );
        for family in [Family::V4, Family::V6] {
            let answer = check::ping(&here.namespace, remote.at(family))?;
            assert_eq!(answer, Answer::Ttl(62));
        }
        let gateway = nodes[0].gateway.context("a gateway")?;
        Ok(Self {
            mac: raw::mac_of(&here.namespace, "eth0")?,
            gateway: raw::neighbour_of(&here.namespace, gateway.into())?,
            v4: here.address,
            v6: here.address6,
            other4: other.address,
            other6: other.address6,
            remote4: remote.address,
            remote6: remote.address6,
        })
    }

    /// A datagram to a remote container.
    fn datagram(&self, mac: Mac, source: IpAddr) -> Vec<u8> {
        let destination = match source {
            IpAddr::V4(_) => IpAddr::V4(self.remote4),
            IpAddr::V6(_) => IpAddr::V6(self.remote6),
        };
        let ip = Ip::new(source, destination);
        ethernet(
            self.gateway,
            mac,
            ip.ethertype(),
            &ip.around_udp(1000, 9, b"who is this?"),
        )
    }

    /// An ARP message (RFC 826) from this container's MAC.
    fn arp(&self, operation: u8, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
        let message = [
            &[0, 1, 8, 0, 6, 4, 0, operation][..],
            &sender.0,
            &sender.1.octets(),
            &[0; 6],
            &target.octets(),
        ]
        .concat();
        ethernet(BROADCAST, self.mac, ethertype::ARP, &message)
    }

    /// A neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4).
    fn discovery(&self, kind: u8, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        self.hidden(0, kind, source, target)
    }

    /// The same behind so many extension headers.
    fn hidden(&self, headers: usize, kind: u8, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        const SOLICITATION: u8 = 135;
        // The option tells the link-layer address: its source's, or its target's.
        let option = if kind == SOLICITATION { 1 } else { 2 };
        let mut message = [
            &[kind, 0, 0, 0, 0x20, 0, 0, 0][..],
            &target.octets(),
            &[option, 1],
            &self.mac,
        ]
        .concat();
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let ip = Ip {
            ttl: 255,
            protocol: first(headers, protocol::ICMPV6),
            ..Ip::new(source.into(), all_nodes.into())
        };
        let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
        let pseudo = [
            &source.octets()[..],
            &all_nodes.octets(),
            &[0, 0, 0, length, 0, 0, 0, protocol::ICMPV6],
            &message,
        ]
        .concat();
        message[2..4].copy_from_slice(&frames::checksum(&pseudo).to_be_bytes());
        let payload = [options(headers, protocol::ICMPV6), message].concat();
        ethernet(ALL_NODES, self.mac, ethertype::IPV6, &ip.around(&payload))
    }

    /// A datagram to a remote container behind so many extension headers, with the hop limit that
    /// messages of discovery have.
    fn extended(&self, headers: usize, source: Ipv6Addr) -> Vec<u8> {
        let ip = Ip {
            ttl: 255,
            protocol: first(headers, protocol::UDP),
            ..Ip::new(source.into(), self.remote6.into())
        };
        let datagram = udp(1000, 9, 0, b"who is this?");
        let payload = [options(headers, protocol::UDP), datagram].concat();
        ethernet(
            self.gateway,
            self.mac,
            ethertype::IPV6,
            &ip.around(&payload),
        )
    }
}

/// Extension headers without anything that a receiver would have to do.
fn options(headers: usize, last: u8) -> Vec<u8> {
    let left = (0..headers).rev();
    let each = left.map(|left| [first(left, last), 0, 1, 4, 0, 0, 0, 0]);
    each.flatten().collect()
}

/// The kind of the first of so many headers, or of what is behind them.
fn first(headers: usize, last: u8) -> u8 {
    if headers == 0 {
        last
    } else {
        protocol::DESTINATION
    }
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Extension headers.
const MANY: usize = 40;

/// A frame, and the counter of drops that it moves, if any.
type Case = (&'static str, Vec<u8>, Option<&'static str>);

fn cases(own: &Own) -> Vec<Case> {
    const SOURCE: Option<&str> = Some("spoofed_source");
    const NEIGHBOUR: Option<&str> = Some("spoofed_neighbour");
    let strange4 = Ipv4Addr::new(198, 51, 100, 7).into();
    let strange6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into();
    vec![
        ("its own IPv4", own.datagram(own.mac, own.v4.into()), None),
        ("its own IPv6", own.datagram(own.mac, own.v6.into()), None),
        (
            "another MAC, IPv4",
            own.datagram(SOMEBODY, own.v4.into()),
            SOURCE,
        ),
        (
            "another MAC, IPv6",
            own.datagram(SOMEBODY, own.v6.into()),
            SOURCE,
        ),
        (
            "a neighbour's IPv4",
            own.datagram(own.mac, own.other4.into()),
            SOURCE,
        ),
        (
            "a neighbour's IPv6",
            own.datagram(own.mac, own.other6.into()),
            SOURCE,
        ),
        ("a stranger's IPv4", own.datagram(own.mac, strange4), SOURCE),
        ("a stranger's IPv6", own.datagram(own.mac, strange6), SOURCE),
        (
            "a request as itself",
            own.arp(REQUEST, (own.mac, own.v4), own.other4),
            None,
        ),
        (
            "a probe",
            own.arp(REQUEST, (own.mac, Ipv4Addr::UNSPECIFIED), own.other4),
            None,
        ),
        (
            "a request as a neighbour",
            own.arp(REQUEST, (own.mac, own.other4), own.v4),
            NEIGHBOUR,
        ),
        (
            "a reply as a neighbour",
            own.arp(REPLY, (own.mac, own.other4), own.v4),
            NEIGHBOUR,
        ),
        (
            "a reply with another MAC",
            own.arp(REPLY, (SOMEBODY, own.v4), own.other4),
            NEIGHBOUR,
        ),
        (
            "a solicitation as itself",
            own.discovery(SOLICITATION, own.v6, own.other6),
            None,
        ),
        (
            "an advertisement as itself",
            own.discovery(ADVERTISEMENT, own.v6, own.v6),
            None,
        ),
        (
            "an advertisement for a neighbour",
            own.discovery(ADVERTISEMENT, own.v6, own.other6),
            NEIGHBOUR,
        ),
        (
            "a solicitation as a neighbour",
            own.discovery(SOLICITATION, own.other6, own.v6),
            SOURCE,
        ),
        (
            "one that is hidden behind a header",
            own.hidden(1, ADVERTISEMENT, own.v6, own.other6),
            NEIGHBOUR,
        ),
        (
            "one that is hidden behind more than a program reads",
            own.hidden(MANY, ADVERTISEMENT, own.v6, own.other6),
            NEIGHBOUR,
        ),
        ("a header", own.extended(1, own.v6), None),
        ("many headers", own.extended(MANY, own.v6), None),
        (
            "many headers from a stranger",
            own.extended(MANY, own.other6),
            SOURCE,
        ),
    ]
}

/// Sends every case and compares the drops that were counted.
fn fares(name: &str, accept: bool) -> Result<()> {
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        if accept {
            config.networks[0]
                .security
                .insert("endpoint_source", "accept");
        }
    })?;
    let node = &guard.topology().nodes[0];
    let own = Own::of(&guard)?;
    let entrance = Socket::open(&node.containers[0].namespace, "eth0")?;
    let agent = guard.agent(1);
    for on in [true, false] {
        agent.fastpath(on)?;
        guard.is_whole(&agent, "the switch")?;
        for (what, frame, expected) in cases(&own) {
            let before = agent.drops()?;
            entrance.send(&frame)?;
            let moved = agent.drops_since(&before)?;
            let expected: Vec<(String, u64)> = expected
                .filter(|_| !accept)
                .map(|name| (name.to_owned(), 1))
                .into_iter()
                .collect();
            assert_eq!(moved, expected, "{what}, fast path {on}");
        }
    }
    drop(entrance);
    Ok(guard.down()?)
}

#[test]
fn is_dropped_and_counted() -> Result<()> {
    fares("tspoof", false)
}

#[test]
fn is_let_through_where_that_is_asked_for() -> Result<()> {
    fares("tspoofok", true)
}

/// Nobody who is told that a container is attached finds it unjudged, and nothing stays of one that
/// is detached; with and without addresses behind it, which are kept as ranges.
#[test]
fn the_guard_knows_a_container_when_its_owner_hears_of_it() -> Result<()> {
    let guard = Guard::overlay("tguards")?;
    let agent = guard.agent(1);
    let _place = Temporary::make("tguards-more")?;
    let known = || {
        let list = "nft -j list table bridge guard.overlay-tguards-n1";
        run::checked(inside(&agent.instance, list))
    };
    let behind = ["--forwarding", "--allowed-source", "10.9.0.0/16"];
    for (round, more) in [&[][..], &behind].into_iter().cycle().take(6).enumerate() {
        let address = format!("10.244.1.{}", 200 + round);
        let add = ["endpoint", "add", "more", "--network", "lab", "--netns"];
        let of = ["tguards-more", "--address", &address];
        agent.tell(&[&add[..], &of, more].concat())?;
        let table = known()?;
        ensure!(table.contains(&address), "{address} is not in {table}");
        ensure!(table.contains("10.9.0.0") != more.is_empty(), "{table}");
        // One of a series gets its programs later, and its rows say so until then.
        let later = ["set_endpoint", "set_port", "attach"];
        let mut left = agent.plan()?;
        left.retain(|step| !later.iter().any(|later| step["step"] == *later));
        ensure!(left.is_empty(), "after it came: {left:?}");
        agent.tell(&["endpoint", "del", "more"])?;
        let table = known()?;
        ensure!(!table.contains(&address), "{address} is left in {table}");
        ensure!(!table.contains("10.9.0.0"), "{table}");
        let left = agent.plan()?;
        ensure!(left.is_empty(), "after it went: {left:?}");
    }
    Ok(guard.down()?)
}
