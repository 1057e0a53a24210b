//! The queueing disciplines of the underlay see the same `skb->priority`, whichever path a packet
//! takes: a container's voice leaves before its bulk, as from a router without the programs. And
//! into a container a packet brings what the kernel would let it bring.

mod bands;
mod receiving;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{setsockopt, sockopt::Ipv4Tos},
};
use overlay_tests::{
    assembly::{EXIT, STACK, add, call, copy, helper, load, set, store},
    bpf::{Hook, Link, Program},
    check,
    counters::carried,
    families::{Families, Family},
    frames::{Ip, Mac, ethernet},
    guard::Guard,
    netns, poll,
    raw::{self, Socket},
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// What somebody else's program gives packets: priority and mark.
const GIVEN: [u32; 2] = [5, 0];
const TAG: &[u8] = b"a packet with a priority";
/// `TCX_NEXT` of `linux/bpf.h`: whoever is next decides.
const TCX_NEXT: i32 = -1;
/// Whether forwarding sets it, below `/proc/sys`.
const UPDATE_PRIORITY: &str = "net/ipv4/ip_forward_update_priority";
/// Where `struct __sk_buff` has `priority` and `mark`.
const PRIORITY: i16 = 32;
const MARK: i16 = 8;

/// What the router of a node makes of each precedence and type of service, over both families.
type Priorities = BTreeMap<(&'static str, u8), u16>;

/// Every value of the field that tells packets of different importance apart, ECN left out.
fn services() -> impl Iterator<Item = u8> {
    (0..=0xff).step_by(4)
}

/// A program at the end of the first node's underlay, where its queueing discipline is, that
/// writes the priority of a tunnel's packets over their outer UDP source port.
fn priority_writer(node: &str, source_port: usize) -> Result<Link> {
    const CONTEXT: u8 = 6;
    let program = Program::load(&[
        copy(CONTEXT, 1),
        load(2, CONTEXT, PRIORITY),
        store(STACK, -8, 2),
        copy(1, CONTEXT),
        set(2, i32::try_from(source_port)?),
        copy(3, STACK),
        add(3, -8),
        set(4, 2),
        set(5, 0),
        call(helper::STORE_BYTES),
        set(0, TCX_NEXT),
        EXIT,
    ])?;
    netns::inside(node, || -> Result<Link> {
        Ok(program.attach(if_nametoindex(UNDERLAY)?, Hook::Egress)?)
    })?
}

/// A program before those that are at a device of a node, which gives packets a priority and a mark.
fn stamp(node: &str, device: &str, [priority, mark]: [u32; 2]) -> Result<Link> {
    let program = Program::load(&[
        set(2, i32::try_from(priority)?),
        store(1, PRIORITY, 2),
        set(2, i32::try_from(mark)?),
        store(1, MARK, 2),
        set(0, TCX_NEXT),
        EXIT,
    ])?;
    netns::inside(node, || -> Result<Link> {
        Ok(program.attach_first(if_nametoindex(device)?, Hook::Ingress)?)
    })?
}

/// Where the outer UDP header's source port stands.
const fn source_port(outer: Family) -> usize {
    match outer {
        Family::V4 => 14 + 20,
        Family::V6 => 14 + 40,
    }
}

/// Sends raw frames from the first node's container to the second one's.
struct Sender<'a> {
    guard: &'a Guard,
    entrance: Socket,
    macs: (Mac, Mac),
    /// MAC of the second node on the underlay.
    receiver: Mac,
    wire: Socket,
    source_port: usize,
}

impl<'a> Sender<'a> {
    fn open(guard: &'a Guard, outer: Family) -> Result<Self> {
        let nodes = &guard.topology().nodes;
        let container = &nodes[0].containers[0].namespace;
        let gateway = nodes[0].gateway_at(Family::V4).context("a gateway")?;
        check::ping(container, gateway)?;
        Ok(Self {
            guard,
            entrance: Socket::open(container, "eth0")?,
            macs: (
                raw::neighbour_of(container, gateway)?,
                raw::mac_of(container, "eth0")?,
            ),
            receiver: raw::mac_of(&nodes[1].namespace, UNDERLAY)?,
            wire: Socket::open(&nodes[1].namespace, UNDERLAY)?,
            source_port: source_port(outer),
        })
    }

    /// A container's datagram.
    fn send(&self, family: Family, tos: u8) -> Result<u16> {
        self.put(family, tos, TAG)?;
        self.seen(TAG)
            .with_context(|| format!("{family:?} with {tos:#x}"))
    }

    /// A container's datagram, without waiting for it.
    fn put(&self, family: Family, tos: u8, payload: &[u8]) -> Result<()> {
        let nodes = &self.guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        let ip = Ip {
            tos,
            ..Ip::new(from.at(family), to.at(family))
        };
        let packet = ip.around_udp(2000, 9, payload);
        let (to, from) = self.macs;
        let frame = ethernet(to, from, ip.ethertype(), &packet);
        Ok(self.entrance.send(&frame)?)
    }

    /// The node's own datagram, from a socket with this type of service.
    fn send_from_node(&self, tos: u8) -> Result<u16> {
        let nodes = &self.guard.topology().nodes;
        let to = nodes[1].containers[0].at(Family::V4);
        netns::inside(&nodes[0].namespace, || -> Result<()> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            setsockopt(&socket, Ipv4Tos, &tos.into())?;
            socket.send_to(TAG, (to, 9))?;
            Ok(())
        })??;
        self.seen(TAG)
            .with_context(|| format!("the node with {tos:#x}"))
    }

    /// Whether a frame on the wire has this payload.
    fn has_sent(&self, frame: &[u8], payload: &[u8]) -> bool {
        frame.starts_with(&self.receiver)
            && frame.windows(payload.len()).any(|part| part == payload)
    }

    /// The priority that a packet with this payload had when it left the first node.
    fn seen(&self, payload: &[u8]) -> Result<u16> {
        let frame = self
            .wire
            .receive(PATIENCE, |frame| self.has_sent(frame, payload))?;
        let frame = frame.context("nothing arrived")?;
        Ok(u16::from_ne_bytes([
            frame[self.source_port],
            frame[self.source_port + 1],
        ]))
    }
}

fn of_containers(sender: &Sender) -> Result<Priorities> {
    let mut priorities = Priorities::new();
    for (name, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
        for tos in services() {
            priorities.insert((name, tos), sender.send(family, tos)?);
        }
    }
    Ok(priorities)
}

/// The node's own packets have the priority of their socket already.
fn of_the_node(sender: &Sender) -> Result<Vec<u16>> {
    services().map(|tos| sender.send_from_node(tos)).collect()
}

/// The programs' priorities are the kernel's, over an underlay of a family.
fn compare(name: &str, outer: Families) -> Result<()> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
    let guard = Guard::up(shape.speaking(outer, Families::Both)?)?;
    let outer = outer.all()[0];
    let _writer = priority_writer(&guard.topology().nodes[0].namespace, source_port(outer))?;
    let sender = Sender::open(&guard, outer)?;

    let status = guard.agent(1).json(&["status"])?;
    let veth = status["endpoints"][0]["device"].as_str();
    let veth = veth.context("the container has no device")?;
    let node = &guard.topology().nodes[0].namespace;
    let stand = Paths {
        guard: &guard,
        sender: &sender,
        veth,
    };
    let by_dscp = stand.compare()?;
    assert_ne!(by_dscp[&("IPv4", 0x10)], by_dscp[&("IPv4", 0x08)]);
    // Where forwarding is told to leave the priority alone.
    netns::inside(node, || {
        fs::write(format!("/proc/sys/{UPDATE_PRIORITY}"), "0")
    })??;
    let followed = poll::until_well(|| match sender.send(Family::V4, 0x10) {
        Ok(0) => None,
        other => Some(format!("{other:?}")),
    });
    assert_eq!(followed, Ok(()));
    let kept = stand.compare()?;
    assert!(kept.values().all(|priority| *priority == 0), "{kept:?}");
    drop(sender);
    Ok(guard.down()?)
}

/// The two ways out of the first node.
struct Paths<'a> {
    guard: &'a Guard,
    sender: &'a Sender<'a>,
    veth: &'a str,
}

impl Paths<'_> {
    /// The priorities of either, which are the same.
    fn compare(&self) -> Result<Priorities> {
        let Self {
            guard,
            sender,
            veth,
        } = self;
        let agent = guard.agent(1);
        let instance = &agent.instance;
        let node = &guard.topology().nodes[0].namespace;
        agent.fastpath(true)?;
        let before = carried(instance)?;
        let fast = of_containers(sender)?;
        let given = stamp(node, veth, GIVEN)?;
        let fast_given = of_containers(sender)?;
        drop(given);
        let fast_node = of_the_node(sender)?;
        let by_programs = carried(instance)?.sent - before.sent;
        let sent = (2 * fast.len() + fast_node.len()) as u64;
        assert!(by_programs >= sent, "{by_programs} of {sent}");

        agent.fastpath(false)?;
        let before = carried(instance)?;
        assert_eq!(fast, of_containers(sender)?);
        let given = stamp(node, veth, GIVEN)?;
        assert_eq!(fast_given, of_containers(sender)?);
        drop(given);
        assert_eq!(fast_node, of_the_node(sender)?);
        assert_eq!(carried(instance)?.sent, before.sent, "not the kernel's");
        agent.fastpath(true)?;
        Ok(fast)
    }
}

#[test]
fn the_fast_path_sets_the_kernel_s_priority() -> Result<()> {
    compare("tprio", Families::V4)
}

#[test]
fn the_fast_path_sets_it_over_ipv6() -> Result<()> {
    compare("tprio6", Families::V6)
}
