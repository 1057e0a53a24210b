//! The lab, what is shot at in it, and what is seen to arrive.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_common::{
    maps::{DROPS, PASSES, PEER_STATS},
    wire::{vtep_mac, vtep6_mac},
};
use overlay_tests::{
    agent::Agent,
    counters,
    families::{Families, Family},
    frames::Ip,
    guard::Guard,
    netns,
    raw::{self, Socket},
    run,
    script::inside,
    shape::{Scenario, Shape},
    topology::{Node, UNDERLAY},
};

use crate::{
    cases::{Case, Shows},
    shot::{Checksum, LISTENING, Shot, TAG},
};

/// Long enough for a loaded machine; the marker always arrives.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ends the payload of the frame after which nothing of a case is still on its way.
const MARKER: &[u8] = b"and this is the marker";
/// Counters that move by themselves: neighbour discovery, multicast listeners, ARP.
const NOISE: [&str; 4] = [
    "PASSES.not_ours",
    "PASSES.not_ip",
    "PASSES.not_unicast",
    "PASSES.ip_options",
];
/// The counter of the markers.
const OF_MARKERS: &str = "PASSES.unverified_checksum";

pub(crate) struct Stand {
    guard: Guard,
    over: Family,
    sender: Socket,
    targets: [Target; 2],
}

/// A node that is shot at.
struct Target {
    node: Node,
    arrivals: Socket,
    /// Takes the datagrams, so that no ICMP error answers them.
    _listener: UdpSocket,
}

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) case: String,
    pub(crate) over: Family,
    pub(crate) kernel: String,
    pub(crate) ours: String,
    /// The counters that moved.
    pub(crate) counters: BTreeSet<String>,
    /// Whether both containers got the same bytes, where both got something.
    pub(crate) same_bytes: bool,
}

impl Seen {
    /// Those that explain the case: the ones of noise only where nothing else does.
    pub(crate) fn counter(&self) -> String {
        let (noise, told): (Vec<&str>, Vec<&str>) = self
            .counters
            .iter()
            .map(String::as_str)
            .partition(|name| NOISE.contains(name));
        if told.is_empty() { noise } else { told }.join(", ")
    }
}

impl Stand {
    pub(crate) fn raise(name: &str, over: Family) -> Result<Self> {
        let families = match over {
            Family::V4 => Families::V4,
            Family::V6 => Families::V6,
        };
        let shape = Shape::of(name, Scenario::Mixed, 3, 1)?;
        let guard = Guard::up(shape.speaking(families, Families::Both)?)?;
        let nodes = &guard.topology().nodes;
        as_plain_as_a_cable(&guard)?;
        // Sources are judged by VXLAN alone, not by whether there is a way back to them.
        set(&nodes[1].namespace, "net.ipv4.conf.all.rp_filter=0")?;
        let target = |node: &Node| -> Result<Target> {
            let container = &node.containers[0].namespace;
            let listen = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, LISTENING));
            Ok(Target {
                node: node.clone(),
                arrivals: Socket::open(container, "eth0")?,
                _listener: netns::inside(container, listen)??,
            })
        };
        Ok(Self {
            sender: Socket::open(&nodes[2].namespace, UNDERLAY)?,
            targets: [target(&nodes[0])?, target(&nodes[1])?],
            guard,
            over,
        })
    }

    pub(crate) fn agent(&self) -> Agent {
        self.guard.agent(1)
    }

    pub(crate) fn down(self) -> Result<()> {
        Ok(self.guard.down()?)
    }

    /// Sends a case's frames to both nodes; which counter moved, if the fast path is on.
    pub(crate) fn shoot(&self, case: &Case, is_fast: bool) -> Result<Seen> {
        let [ours, kernel] = &self.targets;
        let counters = || {
            if is_fast {
                self.counters()
            } else {
                Ok(Vec::new())
            }
        };
        let by_kernel = self.fire(kernel, case)?;
        let before = counters()?;
        let by_ours = self.fire(ours, case)?;
        let bursts = u64::try_from(by_ours.len())?;
        let counters = moved(&before, &counters()?, bursts);
        let same_bytes = by_ours.iter().zip(&by_kernel).all(|pair| match pair {
            (Some(ours), Some(kernel)) => what_is_common(ours) == what_is_common(kernel),
            _ => true,
        });
        Ok(Seen {
            case: case.name.clone(),
            over: self.over,
            kernel: told(&by_kernel, case.shows),
            ours: told(&by_ours, case.shows),
            counters,
            same_bytes,
        })
    }

    /// Sends each of a case's bursts, and what arrived of each.
    fn fire(&self, target: &Target, case: &Case) -> Result<Vec<Option<Vec<u8>>>> {
        let plain = self.plain(target, case.inner)?;
        let marker = Shot {
            payload: [TAG, MARKER].concat(),
            // The kernel's to verify: it takes the slow path, which nothing overtakes.
            checksum: Checksum::Right,
            ..self.plain(target, Family::V4)?
        };
        let mut arrived = Vec::new();
        for burst in (case.frames)(&plain) {
            for frame in &burst {
                self.sender.send(frame)?;
            }
            self.sender.send(&marker.frame())?;
            let mut seen = None;
            let ended = target.arrivals.receive(PATIENCE, |frame| {
                if contains(frame, MARKER) {
                    return true;
                }
                if contains(frame, TAG) || is_from(frame, plain.inner.source) {
                    seen = Some(frame.to_vec());
                }
                false
            })?;
            ended.with_context(|| format!("{}: the marker did not arrive", case.name))?;
            arrived.push(seen);
        }
        Ok(arrived)
    }

    /// A frame that arrives.
    fn plain(&self, target: &Target, inner: Family) -> Result<Shot> {
        let (sender, node) = (&self.guard.topology().nodes[2], &target.node);
        let mac = |node: &Node| raw::mac_of(&node.namespace, UNDERLAY);
        let macs = (mac(node)?, mac(sender)?);
        let vtep = |node: &Node| match self.over {
            Family::V4 => vtep_mac(node.underlay.octets()),
            Family::V6 => vtep6_mac(node.underlay6.octets()),
        };
        Ok(Shot::new(
            macs,
            Ip::new(sender.underlay_at(self.over), node.underlay_at(self.over)),
            (vtep(node), vtep(sender)),
            Ip::new(sender.containers[0].at(inner), node.containers[0].at(inner)),
        ))
    }

    /// Packets by counter of our node.
    fn counters(&self) -> Result<Vec<(String, u64)>> {
        let instance = &self.targets[0].node.namespace;
        let mut all = Vec::new();
        for map in [DROPS, PASSES] {
            let reasons = counters::reasons(instance, map)?.into_iter();
            all.extend(reasons.map(|(reason, count)| (format!("{map}.{reason}"), count)));
        }
        let received = counters::carried(instance)?.received;
        all.push((format!("{PEER_STATS}.rx"), received));
        Ok(all)
    }
}

/// As a row of the document.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = match self.over {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let Self {
            case, kernel, ours, ..
        } = self;
        let counter = self.counter();
        write!(f, "| {case} | {over} | {kernel} | {ours} | `{counter}` | |")
    }
}

/// The counters that moved, but for the markers', one a burst.
fn moved(before: &[(String, u64)], after: &[(String, u64)], bursts: u64) -> BTreeSet<String> {
    let was = |name: &str| {
        let known = before.iter().find(|(known, _)| known == name);
        known.map_or(0, |&(_, count)| count)
    };
    let of_markers = |name: &str| {
        if name == OF_MARKERS { bursts } else { 0 }
    };
    let moved = after
        .iter()
        .filter(|(name, count)| *count > was(name) + of_markers(name));
    moved.map(|(name, _)| name.clone()).collect()
}

/// One word for all bursts of a case, which must fare alike.
fn told(arrived: &[Option<Vec<u8>>], shows: Shows) -> String {
    let mut words: Vec<String> = arrived
        .iter()
        .map(|frame| match (frame, shows) {
            (None, _) => "dropped".to_owned(),
            (Some(_), Shows::Arrival) => "delivered".to_owned(),
            (Some(frame), Shows::Ecn) => format!("ECN {:02b}", ecn(frame)),
        })
        .collect();
    words.dedup();
    words.join(" or ")
}

fn ecn(frame: &[u8]) -> u8 {
    match frame[14] >> 4 {
        4 => frame[15] & 0b11,
        _ => frame[15] >> 4 & 0b11,
    }
}

/// A delivered packet without what belongs to the one container, addresses and the checksums
/// over them: the head of its IP header, and its payload, to the end of the frame.
fn what_is_common(frame: &[u8]) -> Vec<u8> {
    let packet = &frame[14..];
    let before = match packet[0] >> 4 {
        4 => 10,
        _ => 8,
    };
    let payload = packet.windows(TAG.len()).position(|part| part == TAG);
    [
        &packet[..before],
        &packet[payload.unwrap_or(packet.len())..],
    ]
    .concat()
}

/// Whether an IP packet has this source, also when nothing but its header is left.
fn is_from(frame: &[u8], source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => frame.get(26..30) == Some(&source.octets()),
        IpAddr::V6(source) => frame.get(22..38) == Some(&source.octets()),
    }
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

/// Keeps a firewall for bridges, where there is one, from judging frames on the underlay.
fn as_plain_as_a_cable(guard: &Guard) -> Result<()> {
    let switch = guard
        .topology()
        .switch()
        .context("three nodes have a switch")?;
    for table in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{table}");
        if Path::new(&path).exists() {
            set(&switch, &format!("net.bridge.bridge-nf-call-{table}=0"))?;
        }
    }
    Ok(())
}

fn set(namespace: &str, setting: &str) -> Result<()> {
    run::checked(inside(namespace, format!("sysctl -qw {setting}")))?;
    Ok(())
}
