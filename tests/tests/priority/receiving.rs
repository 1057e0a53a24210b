//! What a packet brings into a container besides its bytes: nothing of what it was given on the
//! node, on either path.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use overlay_common::maps::PASSES;
use overlay_tests::{
    assembly::{EXIT, STACK, add, call, copy, helper, load, set, skip_if_no_more, store},
    bpf::{Hook, Link, Program},
    check,
    counters::{carried, reasons},
    families::{Families, Family},
    frames::{Ip, ethernet},
    guard::Guard,
    kernel, netns,
    raw::{self, Socket},
    run,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};

use super::{MARK, PATIENCE, PRIORITY, TCX_NEXT, services, stamp};

/// Where `struct __sk_buff` has its length.
const LENGTH: i16 = 0;
/// A device inside of the container to which its program shows packets.
const SHOWN: &str = "shown";
/// Payload that makes a packet longer than anything else that comes by.
const LONG: usize = 1000;

/// Priority and mark of a packet.
type Metadata = [u32; 2];

/// By whence it came, its family and its type of service.
type Table = BTreeMap<(&'static str, &'static str, u8), Metadata>;

/// Shows what comes into a container: over the first bytes of its Ethernet header a packet has its
/// priority and its mark.
fn shown(container: &str) -> Result<(Link, Socket)> {
    const CONTEXT: u8 = 6;
    const REDIRECT: i32 = 23;
    for line in ["add {} type bridge", "set {} up"] {
        let line = line.replace("{}", SHOWN);
        run::checked(format!("ip -n {container} link {line}"))?;
    }
    let device = netns::inside(container, || if_nametoindex(SHOWN))??;
    let program = Program::load(&[
        copy(CONTEXT, 1),
        load(3, CONTEXT, LENGTH),
        set(4, i32::try_from(LONG)?),
        skip_if_no_more(3, 4, 15),
        load(2, CONTEXT, PRIORITY),
        store(STACK, -8, 2),
        load(2, CONTEXT, MARK),
        store(STACK, -4, 2),
        copy(1, CONTEXT),
        set(2, 0),
        copy(3, STACK),
        add(3, -8),
        set(4, 8),
        set(5, 0),
        call(helper::STORE_BYTES),
        set(1, i32::try_from(device)?),
        set(2, 0),
        call(REDIRECT),
        // Behind the redirection, or for what is not shown.
        EXIT,
        set(0, TCX_NEXT),
        EXIT,
    ])?;
    let link = netns::inside(container, || -> Result<Link> {
        Ok(program.attach(if_nametoindex("eth0")?, Hook::Ingress)?)
    })??;
    Ok((link, Socket::open(container, SHOWN)?))
}

struct Stand {
    guard: Guard,
    shown: Socket,
    _shower: Link,
}

impl Stand {
    fn up(name: &str, rx: Option<&'static str>) -> Result<Self> {
        let shape =
            Shape::of(name, Scenario::Overlay, 2, 2)?.speaking(Families::V4, Families::Both)?;
        let guard = Guard::configured(shape, |_, config| {
            config.node.rx = rx;
            // What strips stands in the driver.
            config.node.guard = rx.map(|_| "native");
        })?;
        let to = guard.topology().nodes[1].containers[0].namespace.clone();
        let (shower, shown) = shown(&to)?;
        Ok(Self {
            guard,
            shown,
            _shower: shower,
        })
    }

    /// Of what one container sends to the second node's first one.
    fn received(&self, from: (usize, usize), family: Family) -> Result<Vec<(u8, Metadata)>> {
        let nodes = &self.guard.topology().nodes;
        let (near, to) = (&nodes[from.0].containers[from.1], &nodes[1].containers[0]);
        let gateway = nodes[from.0].gateway_at(Family::V4).context("a gateway")?;
        check::ping(&near.namespace, gateway)?;
        let gateway = raw::neighbour_of(&near.namespace, gateway)?;
        let own = raw::mac_of(&near.namespace, "eth0")?;
        let entrance = Socket::open(&near.namespace, "eth0")?;
        let mut seen = Vec::new();
        for tos in services() {
            let ip = Ip {
                tos,
                ..Ip::new(near.at(family), to.at(family))
            };
            let payload = vec![tos; LONG];
            let packet = ip.around_udp(2000, 9, &payload);
            entrance.send(&ethernet(gateway, own, ip.ethertype(), &packet))?;
            let frame = self
                .shown
                .receive(PATIENCE, |frame| frame.ends_with(&payload))?;
            let frame = frame.with_context(|| format!("{family:?} with {tos:#x} is lost"))?;
            let word = |place: usize| frame[place..place + 4].try_into().map(u32::from_ne_bytes);
            seen.push((tos, [word(0)?, word(4)?]));
        }
        Ok(seen)
    }

    fn table(&self) -> Result<Table> {
        let mut table = Table::new();
        for (whence, from) in [("a peer", (0, 0)), ("a neighbour", (1, 1))] {
            for (name, family) in [("IPv4", Family::V4), ("IPv6", Family::V6)] {
                for (tos, metadata) in self.received(from, family)? {
                    table.insert((whence, name, tos), metadata);
                }
            }
        }
        Ok(table)
    }

    /// Where what comes from a peer, and from the neighbour, enters the second node.
    fn stamped(&self, given: Metadata) -> Result<[Link; 2]> {
        let status = self.guard.agent(2).json(&["status"])?;
        let device = status["endpoints"][1]["device"].as_str();
        let veth = device.context("the neighbour has no device")?;
        let node = &self.guard.topology().nodes[1].namespace;
        Ok([stamp(node, UNDERLAY, given)?, stamp(node, veth, given)?])
    }

    /// Both paths bring the same, whatever others have given the packets before.
    fn compare(self) -> Result<()> {
        let instance = self.guard.agent(2).instance;
        for given in [[0, 0], [5, 0], [5, 7]] {
            // Programs of ours that are attached later would come first.
            self.guard.agent(2).fastpath(true)?;
            let _stamps = self.stamped(given)?;
            let before = carried(&instance)?;
            let fast = self.table()?;
            let by_programs = carried(&instance)? - before;
            if given[1] == 0 {
                let each = (fast.len() / 2) as u64;
                assert!(
                    by_programs.received >= each && by_programs.local >= each,
                    "{by_programs:?}: {:?}",
                    reasons(&instance, PASSES)?
                );
            }
            self.guard.agent(2).fastpath(false)?;
            assert_eq!(fast, self.table()?, "given {given:?}");
        }
        Ok(self.guard.down()?)
    }
}

#[test]
fn a_container_gets_packets_with_the_kernel_s_priority() -> Result<()> {
    if !kernel::has_tcx() {
        return Ok(());
    }
    Stand::up("tprior", None)?.compare()
}

#[test]
fn it_gets_them_from_the_driver_s_program_as_well() -> Result<()> {
    if !kernel::has_tcx() {
        return Ok(());
    }
    Stand::up("tpriorx", Some("xdp"))?.compare()
}
