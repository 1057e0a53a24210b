//! What stands behind a packet in its frame, because the frame was too short or for no reason, goes
//! exactly as far as with the kernel alone: each frame that arrives is compared, byte by byte, with
//! the one that arrives while the fast path is off.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use overlay_common::wire::{IANA_PORT, VXLAN_FLAGS, vtep_mac, vtep6_mac};
use overlay_tests::{
    check, counters,
    families::{Families, Family},
    frames::{Ip, Mac, ethernet, udp, vxlan},
    guard::Guard,
    raw::{self, Socket},
    run,
    script::inside,
    shape::{Scenario, Shape},
    topology::{Container, Node, UNDERLAY, VNI},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of somebody's own behind a packet.
const REST: [u8; 20] = [0xaa; 20];
/// What network cards fill frames up to, with zeros (IEEE 802.3, without the checksum).
const SHORTEST: usize = 60;

/// Puts something behind a packet in its frame.
type Pad = fn(&[u8]) -> Vec<u8>;
const PADDINGS: [(&str, Pad); 2] = [("<short>", filled), ("<rest>", followed)];

/// What was seen of each frame that was sent.
type Seen = BTreeMap<String, Vec<u8>>;

/// From a container to another one.
#[derive(Clone, Copy)]
struct Way<'a> {
    name: &'static str,
    from: (&'a Node, &'a Container),
    to: (&'a Node, &'a Container),
    /// Sent to the receiver itself, not to the gateway.
    is_bridged: bool,
}

fn ways(nodes: &[Node]) -> Vec<Way<'_>> {
    let place = |node: usize, container: usize| (&nodes[node], &nodes[node].containers[container]);
    let way = |name, from, to, is_bridged| Way {
        name,
        from,
        to,
        is_bridged,
    };
    vec![
        way("there", place(0, 0), place(1, 0), false),
        way("back", place(1, 0), place(0, 0), false),
        way("to a neighbour", place(0, 0), place(0, 1), false),
        way("bridged", place(0, 0), place(0, 1), true),
    ]
}

impl Way<'_> {
    fn is_between_nodes(&self) -> bool {
        self.from.0.number != self.to.0.number
    }

    /// A packet of a few bytes, told from all others by its payload.
    fn packet(&self, family: Family, tag: &str) -> (Ip, Vec<u8>) {
        let ip = Ip::new(self.from.1.at(family), self.to.1.at(family));
        (ip, ip.around_udp(1000, 9, tag.as_bytes()))
    }

    /// Sends a frame from the container; what arrives at the other one, and inside of what leaves
    /// the node.
    fn send(&self, frame: &[u8], tag: &str, overhead: usize) -> Result<[Vec<u8>; 2]> {
        let (arrivals, own) = receiver(self.to.1)?;
        let wire = Socket::open(&self.from.0.namespace, UNDERLAY)?;
        Socket::open(&self.from.1.namespace, "eth0")?.send(frame)?;
        let arrived = arrivals.receive(PATIENCE, |frame| is_to(frame, own, tag))?;
        let arrived = arrived.with_context(|| format!("{tag} does not arrive"))?;
        if !self.is_between_nodes() {
            return Ok([arrived, Vec::new()]);
        }
        let sent = wire.receive(PATIENCE, |frame| contains(frame, tag))?;
        let sent = sent.with_context(|| format!("{tag} does not leave"))?;
        Ok([arrived, sent[overhead..].to_vec()])
    }

    /// The frame in the tunnel around a packet.
    fn tunnelled(&self, over: Family, frame: &[u8]) -> Result<Vec<u8>> {
        let mac = |node: &Node| raw::mac_of(&node.namespace, UNDERLAY);
        let outer = Ip::new(self.from.0.underlay_at(over), self.to.0.underlay_at(over));
        let datagram = udp(50_000, IANA_PORT, 0, &vxlan(VXLAN_FLAGS, VNI << 8, frame));
        Ok(ethernet(
            mac(self.to.0)?,
            mac(self.from.0)?,
            outer.ethertype(),
            &outer.around(&datagram),
        ))
    }
}

fn receiver(container: &Container) -> Result<(Socket, Mac)> {
    let own = raw::mac_of(&container.namespace, "eth0")?;
    Ok((Socket::open(&container.namespace, "eth0")?, own))
}

/// Not one that the container sends, such as an error about it.
fn is_to(frame: &[u8], mac: Mac, tag: &str) -> bool {
    frame.starts_with(&mac) && contains(frame, tag)
}

fn contains(frame: &[u8], tag: &str) -> bool {
    frame.windows(tag.len()).any(|part| part == tag.as_bytes())
}

fn vtep(node: &Node, over: Family) -> Mac {
    match over {
        Family::V4 => vtep_mac(node.underlay.octets()),
        Family::V6 => vtep6_mac(node.underlay6.octets()),
    }
}

/// As a card sends a frame that is too short.
fn filled(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// With more behind it than it needs.
fn followed(frame: &[u8]) -> Vec<u8> {
    [frame, &REST].concat()
}

/// A bridge trims nothing unless it asks the packet filter of IP.
fn bridges_plainly(node: &str) -> Result<()> {
    for family in ["ip", "ip6"] {
        let setting = format!("net.bridge.bridge-nf-call-{family}tables");
        if Path::new("/proc/sys")
            .join(setting.replace('.', "/"))
            .exists()
        {
            let command = format!("sysctl -qw {setting}=0");
            run::checked(inside(node, command))?;
        }
    }
    Ok(())
}

/// What becomes of what containers send. The kernel trims where it routes.
fn from_containers(way: Way, over: Family) -> Result<Seen> {
    let mut seen = Seen::new();
    let (sender, own) = (
        &way.from.1.namespace,
        raw::mac_of(&way.from.1.namespace, "eth0")?,
    );
    for family in [Family::V4, Family::V6] {
        let gateway = way.from.0.gateway_at(family).context("a gateway")?;
        check::ping(sender, gateway)?;
        let next = if way.is_bridged {
            raw::mac_of(&way.to.1.namespace, "eth0")?
        } else {
            raw::neighbour_of(sender, gateway)?
        };
        for (tag, pad) in PADDINGS {
            let (ip, packet) = way.packet(family, tag);
            let frame = ethernet(next, own, ip.ethertype(), &packet);
            let padded = pad(&frame);
            let overhead = 50 + usize::from(over.header() - Family::V4.header());
            let [arrived, sent] = way.send(&padded, tag, overhead)?;
            let kept = if way.is_bridged { &padded } else { &frame };
            let name = format!("{}, {family:?}, {tag}", way.name);
            assert_eq!(arrived.len(), kept.len(), "{name}");
            if way.is_between_nodes() {
                assert_eq!(sent.len(), frame.len(), "{name}, on the wire");
                seen.insert(format!("{name}, on the wire"), sent);
            }
            seen.insert(name, arrived);
        }
    }
    Ok(seen)
}

/// What becomes of what stands behind packets in the tunnel, and behind the tunnel's own.
fn from_the_tunnel(way: Way, over: Family) -> Result<Seen> {
    let mut seen = Seen::new();
    let (arrivals, own) = receiver(way.to.1)?;
    let underlay = Socket::open(&way.from.0.namespace, UNDERLAY)?;
    for family in [Family::V4, Family::V6] {
        for (number, (inner, outer)) in [(&REST[..], &[][..]), (&[], &REST), (&REST, &REST)]
            .into_iter()
            .enumerate()
        {
            let tag = format!("<tunnel {number}>");
            let (ip, packet) = way.packet(family, &tag);
            let macs = (vtep(way.to.0, over), vtep(way.from.0, over));
            let frame = ethernet(macs.0, macs.1, ip.ethertype(), &packet);
            let tunnelled = way.tunnelled(over, &[&frame, inner].concat())?;
            underlay.send(&[&tunnelled, outer].concat())?;
            let arrived = arrivals.receive(PATIENCE, |frame| is_to(frame, own, &tag))?;
            let name = format!("{}, {family:?}, {tag}", way.name);
            let arrived = arrived.with_context(|| format!("{name} does not arrive"))?;
            assert_eq!(arrived.len(), frame.len(), "{name}");
            seen.insert(name, arrived);
        }
    }
    Ok(seen)
}

fn compares(name: &str, over: Family, rx: Option<&'static str>) -> Result<()> {
    let families = match over {
        Family::V4 => Families::V4,
        Family::V6 => Families::V6,
    };
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(families, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.node.rx = rx;
        config.node.guard = rx.map(|_| "native");
    })?;
    let nodes = &guard.topology().nodes;
    for node in nodes {
        bridges_plainly(&node.namespace)?;
    }
    let mut seen = Vec::new();
    for on in [true, false] {
        guard.fastpath(on)?;
        let instance = &nodes[0].namespace;
        let mut all = Seen::new();
        for way in ways(nodes) {
            let before = counters::carried(instance)?;
            all.extend(from_containers(way, over)?);
            let carried = counters::carried(instance)? - before;
            let by_programs = carried.sent + carried.received + carried.local;
            assert_eq!(by_programs >= 4, on, "{}, {on}: {carried:?}", way.name);
            if way.is_between_nodes() {
                all.extend(from_the_tunnel(way, over)?);
            }
        }
        seen.push(all);
    }
    assert_eq!(seen[0], seen[1]);
    Ok(guard.down()?)
}

#[test]
fn padding_ends_where_it_ends_with_the_kernel_over_ipv4() -> Result<()> {
    compares("tpad4", Family::V4, None)
}

#[test]
fn padding_ends_where_it_ends_with_the_kernel_over_ipv6() -> Result<()> {
    compares("tpad6", Family::V6, None)
}

#[test]
fn padding_ends_where_it_ends_with_the_kernel_with_xdp_over_ipv4() -> Result<()> {
    compares("tpadx4", Family::V4, Some("xdp"))
}

#[test]
fn padding_ends_where_it_ends_with_the_kernel_with_xdp_over_ipv6() -> Result<()> {
    compares("tpadx6", Family::V6, Some("xdp"))
}
