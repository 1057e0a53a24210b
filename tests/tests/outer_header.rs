//! The fast path's frames beside those of the kernel's device, for the same flow on the same
//! node: the same bytes, but for what is chance (IPv4's identification) or told in the
//! documents (no UDP checksum over IPv6).

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    check::{self, Answer},
    families::{Families, Family},
    frames::{Ip, Mac, ethernet},
    guard::Guard,
    raw::{self, Socket},
    shape::{Scenario, Shape},
    topology::{Container, UNDERLAY},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Begins each payload.
const TAG: &[u8] = b"a flow that is compared";

/// Where an outer IPv4 header's identification and checksum stand.
const CHANCE: [Range<usize>; 2] = [18..20, 24..26];
/// Where UDP's checksum stands behind an IPv6 header.
const CHECKSUM6: Range<usize> = 60..62;

/// What a container sends: any flow, ECN mark and size.
#[derive(Clone, Copy, Debug)]
struct Probe {
    inside: Family,
    source_port: u16,
    tos: u8,
    size: usize,
}

fn probes(inside: Families) -> Vec<Probe> {
    let mut probes = Vec::new();
    for &inside in inside.all() {
        for source_port in 2000..2016 {
            probes.push(Probe {
                inside,
                source_port,
                tos: 0,
                size: 64,
            });
        }
        for tos in [0b01, 0b10, 0b11, 46 << 2, 46 << 2 | 0b11] {
            probes.push(Probe {
                inside,
                source_port: 1000,
                tos,
                size: 1000,
            });
        }
    }
    probes
}

/// What the outer header tells of the inner DSCP.
#[derive(Clone, Copy, PartialEq)]
enum Dscp {
    Zero,
    Copied,
}

impl Dscp {
    /// The outer TOS or traffic class; congestion that was met before the tunnel is told from
    /// what is met inside it (RFC 6040 §4.1, as Linux does it).
    fn around(self, inner: u8) -> u8 {
        let ecn = match inner & 0b11 {
            0b11 => 0b10,
            ecn => ecn,
        };
        match self {
            Self::Zero => ecn,
            Self::Copied => inner & !0b11 | ecn,
        }
    }
}

fn outer_tos(frame: &[u8]) -> u8 {
    match frame[14] >> 4 {
        4 => frame[15],
        _ => frame[14] << 4 | frame[15] >> 4,
    }
}

/// Where probes enter and where they are seen.
struct Path<'a> {
    from: &'a Container,
    to: &'a Container,
    macs: (Mac, Mac),
    entrance: Socket,
    /// MAC of the second node on the underlay.
    receiver: Mac,
    wire: Socket,
}

impl<'a> Path<'a> {
    /// From the first node's container to the second node's underlay.
    fn open(guard: &'a Guard) -> Result<Self> {
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        Ok(Self {
            from,
            to,
            macs: (gateway_mac(guard)?, raw::mac_of(&from.namespace, "eth0")?),
            entrance: Socket::open(&from.namespace, "eth0")?,
            receiver: raw::mac_of(&nodes[1].namespace, UNDERLAY)?,
            wire: Socket::open(&nodes[1].namespace, UNDERLAY)?,
        })
    }

    /// Sends a probe; the frame that leaves the first node.
    fn frame_of(&self, probe: Probe) -> Result<Vec<u8>> {
        let ip = Ip {
            tos: probe.tos,
            ..Ip::new(self.from.at(probe.inside), self.to.at(probe.inside))
        };
        let payload = [TAG, &vec![0x5a; probe.size]].concat();
        let packet = ip.around_udp(probe.source_port, 9, &payload);
        let (to, from) = self.macs;
        self.entrance
            .send(&ethernet(to, from, ip.ethertype(), &packet))?;
        // An ICMP error that quotes it goes the other way.
        let tagged = |frame: &[u8]| {
            frame.starts_with(&self.receiver) && frame.windows(TAG.len()).any(|part| part == TAG)
        };
        self.wire
            .receive(PATIENCE, tagged)?
            .with_context(|| format!("{probe:?} did not arrive"))
    }
}

/// The MAC of the first node's gateway, as its container finds it.
fn gateway_mac(guard: &Guard) -> Result<Mac> {
    let (node, families) = (
        &guard.topology().nodes[0],
        guard.topology().shape.inside.all(),
    );
    let container = &node.containers[0].namespace;
    let gateway = node.gateway_at(families[0]).context("a gateway")?;
    let answer = check::ping(container, gateway)?;
    ensure!(matches!(answer, Answer::Ttl(_)), "{gateway}: {answer:?}");
    Ok(raw::neighbour_of(container, gateway)?)
}

fn are_the_same(name: &str, over: Families, dscp: Dscp) -> Result<()> {
    let inside = Families::Both;
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?.speaking(over, inside)?;
    let guard = Guard::configured(shape, |_, config| {
        config.networks[0].dscp = (dscp == Dscp::Copied).then_some("copy");
    })?;
    let path = Path::open(&guard)?;
    let all = || -> Result<Vec<Vec<u8>>> {
        let probes = probes(inside).into_iter();
        probes.map(|probe| path.frame_of(probe)).collect()
    };
    // What is known of neighbours is known to both.
    all()?;
    let mut ours = all()?;
    guard.agent(1).fastpath(false)?;
    let mut kernels = all()?;
    for ((probe, ours), kernels) in probes(inside).iter().zip(&mut ours).zip(&mut kernels) {
        assert_eq!(outer_tos(ours), dscp.around(probe.tos), "{probe:?}");
        let free: &[Range<usize>] = match over {
            Families::V6 => {
                assert_eq!(ours[CHECKSUM6], [0, 0], "{probe:?}");
                assert_ne!(kernels[CHECKSUM6], [0, 0], "{probe:?}");
                &[CHECKSUM6]
            }
            _ => &CHANCE,
        };
        for range in free {
            ours[range.clone()].fill(0);
            kernels[range.clone()].fill(0);
        }
        assert_eq!(ours, kernels, "{probe:?}");
    }
    drop(path);
    Ok(guard.down()?)
}

#[test]
fn over_ipv4() -> Result<()> {
    are_the_same("tbytes4", Families::V4, Dscp::Zero)
}

#[test]
fn over_ipv6() -> Result<()> {
    are_the_same("tbytes6", Families::V6, Dscp::Zero)
}

#[test]
fn over_ipv4_with_the_inner_dscp() -> Result<()> {
    are_the_same("tdscp4", Families::V4, Dscp::Copied)
}

#[test]
fn over_ipv6_with_the_inner_dscp() -> Result<()> {
    are_the_same("tdscp6", Families::V6, Dscp::Copied)
}
