//! A rule has no way round: what must not enter a network by a tunnel does not, whichever way it
//! comes, and what may still does.

mod packets;

use std::{cell::Cell, collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    families::{Families, Family},
    frames::{self, Ip, Mac, ethernet},
    guard::Guard,
    raw::{self, Socket},
    run,
    shape::{Scenario, Shape},
    topology::{Node, UNDERLAY, VNI},
};

use crate::packets::{fragments, tagged, with_options};

const PATIENCE: Duration = Duration::from_secs(5);
/// Time given to a packet that should not come; its drop was counted before.
const MOMENT: Duration = Duration::from_millis(50);
const FLAGS: u32 = 0x0800_0000;
/// A card of both nodes that is no underlay.
const OTHER: &str = "eth9";
/// A second MAC of the attacked node on its underlay, with a device of its own.
const SECOND: &str = "mv9";
/// A device without Ethernet headers, as a tunnel of somebody else is.
const BARE: &str = "tun9";

/// How a packet gets to the other node's tunnel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Plain,
    /// In two fragments, of which the first has so many bytes behind the IP header.
    Fragments(usize),
    Options,
    PriorityTag,
    /// By a card that no program is attached to.
    OtherCard,
    /// To another MAC of the node, a macvlan's, on the underlay.
    OtherMac,
    /// By a device without Ethernet headers.
    Bare,
    /// With a priority tag inside.
    InnerPriorityTag,
}

const WAYS: [Way; 9] = [
    Way::Plain,
    Way::Fragments(8),
    Way::Fragments(64),
    Way::Options,
    Way::PriorityTag,
    Way::OtherCard,
    Way::OtherMac,
    Way::Bare,
    Way::InnerPriorityTag,
];

/// Who claims to send what.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    vtep: IpAddr,
    source: IpAddr,
    to: IpAddr,
    /// Why it is dropped; `None` for what is legal.
    reason: Option<&'static str>,
}

struct Stand<'a> {
    over: Family,
    here: &'a Node,
    there: &'a Node,
    agent: Agent,
    port: u16,
    sockets: BTreeMap<&'static str, Socket>,
    macs: BTreeMap<&'static str, (Mac, Mac)>,
    inside: (Mac, Mac),
    exits: BTreeMap<IpAddr, Socket>,
    /// Of fragments: those of a packet whose first one was dropped wait for it.
    next_id: Cell<u16>,
}

fn mac(text: &str) -> Result<Mac> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    bytes?.try_into().ok().context("six bytes")
}

impl<'a> Stand<'a> {
    /// The first node is attacked, from where the second one is.
    fn of(guard: &'a Guard, over: Family) -> Result<Self> {
        let topology = guard.topology();
        let (here, there) = (&topology.nodes[0], &topology.nodes[1]);
        let mut macs = BTreeMap::new();
        let mut sockets = BTreeMap::new();
        for (to, from) in [(UNDERLAY, UNDERLAY), (OTHER, OTHER), (SECOND, UNDERLAY)] {
            let own = raw::mac_of(&there.namespace, from)?;
            macs.insert(to, (raw::mac_of(&here.namespace, to)?, own));
            sockets.insert(to, Socket::open(&there.namespace, from)?);
        }
        sockets.insert(BARE, Socket::tun(&here.namespace, BARE)?);
        for command in taken_in(&here.namespace, BARE) {
            run::checked(command)?;
        }
        let mut exits = BTreeMap::new();
        let container = &here.containers[1];
        for address in [IpAddr::from(container.address), container.address6.into()] {
            exits.insert(address, Socket::open(&container.namespace, "eth0")?);
        }
        Ok(Self {
            over,
            here,
            there,
            agent: guard.agent(1),
            port: topology.port(),
            sockets,
            macs,
            inside: (mac(&here.vtep_mac(over))?, mac(&there.vtep_mac(over))?),
            exits,
            next_id: Cell::new(1),
        })
    }

    fn outer_of(&self, node: &Node) -> IpAddr {
        match self.over {
            Family::V4 => node.underlay.into(),
            Family::V6 => node.underlay6.into(),
        }
    }

    /// Why a packet is dropped that comes in such a way. Of IPv6 the kernel has not put fragments
    /// together where it is judged: what does not tell who sends what is dropped for that.
    fn reason(&self, way: Way, case: &Case) -> Option<&'static str> {
        match (self.over, way) {
            (Family::V6, Way::Fragments(8)) => Some("malformed"),
            _ => case.reason,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let known = self.outer_of(self.there);
        let stranger: IpAddr = match self.over {
            Family::V4 => [192, 0, 2, 77].into(),
            Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77].into(),
        };
        let container = &self.there.containers[0];
        let (local, target) = (&self.here.containers[0], &self.here.containers[1]);
        let case = |name, vtep, source: IpAddr, reason| Case {
            name,
            vtep,
            source,
            to: if source.is_ipv4() {
                target.address.into()
            } else {
                target.address6.into()
            },
            reason,
        };
        let behind = Some("source_not_behind_vtep");
        let martian = Some("martian_source");
        vec![
            case("legal", known, container.address.into(), None),
            case("legal 6", known, container.address6.into(), None),
            case("own address", known, known, None),
            case(
                "stranger",
                stranger,
                container.address.into(),
                Some("unknown_vtep"),
            ),
            case(
                "stranger 6",
                stranger,
                container.address6.into(),
                Some("unknown_vtep"),
            ),
            case(
                "stranger, own address",
                stranger,
                stranger,
                Some("unknown_vtep"),
            ),
            case("a local source", known, local.address.into(), behind),
            case("a local source 6", known, local.address6.into(), behind),
            case("nobody's", known, [198, 51, 100, 1].into(), behind),
            case("loopback", known, [127, 0, 0, 1].into(), martian),
            case("multicast", known, [224, 0, 0, 9].into(), martian),
            case(
                "mapped",
                known,
                "::ffff:10.0.0.1".parse::<IpAddr>().unwrap_or(known),
                martian,
            ),
        ]
    }

    fn send(&self, way: Way, case: &Case, payload: &[u8]) -> Result<()> {
        let inner = Ip::new(case.source, case.to);
        let packet = inner.around_udp(1000, 9, payload);
        let (to, from) = self.inside;
        let frame = match way {
            Way::InnerPriorityTag => tagged(to, from, inner.ethertype(), &packet),
            _ => ethernet(to, from, inner.ethertype(), &packet),
        };
        let datagram = frames::udp(50000, self.port, 0, &frames::vxlan(FLAGS, VNI << 8, &frame));
        let outer = Ip::new(case.vtep, self.outer_of(self.here));
        let device = match way {
            Way::OtherCard => OTHER,
            Way::OtherMac => SECOND,
            Way::Bare => BARE,
            _ => UNDERLAY,
        };
        let packets = match way {
            Way::Fragments(first) => {
                let id = self.next_id.get();
                self.next_id.set(id + 1);
                fragments(Ip { id, ..outer }, &datagram, first)?.to_vec()
            }
            Way::Options => vec![with_options(outer, &datagram)],
            _ => vec![outer.around(&datagram)],
        };
        let socket = &self.sockets[device];
        for packet in packets {
            let Some(&(to, from)) = self.macs.get(device) else {
                socket.send(&packet)?;
                continue;
            };
            let frame = match way {
                Way::PriorityTag => tagged(to, from, outer.ethertype(), &packet),
                _ => ethernet(to, from, outer.ethertype(), &packet),
            };
            socket.send(&frame)?;
        }
        Ok(())
    }

    fn arrives(&self, to: IpAddr, payload: &[u8], within: Duration) -> Result<bool> {
        let contains = |frame: &[u8]| frame.windows(payload.len()).any(|part| part == payload);
        Ok(self.exits[&to].receive(within, contains)?.is_some())
    }

    fn fares(&self, state: &str) -> Result<()> {
        for (number, case) in self.cases().iter().enumerate() {
            for way in WAYS {
                let what = format!("{}, {way:?}, {state}", case.name);
                let payload = format!("<{number} {way:?} {state}>").into_bytes();
                let before = self.agent.drops()?;
                self.send(way, case, &payload)?;
                let reason = self.reason(way, case);
                if reason.is_none() {
                    assert!(self.arrives(case.to, &payload, PATIENCE)?, "{what}: lost");
                } else {
                    assert!(!self.arrives(case.to, &payload, MOMENT)?, "{what}: arrived");
                }
                let reason = reason.map(|reason| (reason.to_owned(), 1));
                assert_eq!(
                    self.agent.drops_since(&before)?,
                    reason.into_iter().collect::<Vec<_>>(),
                    "{what}"
                );
            }
        }
        Ok(())
    }

    /// A container of this node speaks VXLAN to ends of tunnels.
    fn containers_cannot(&self, state: &str) -> Result<()> {
        let own = &self.here.containers[0];
        let entrance = Socket::open(&own.namespace, "eth0")?;
        let gateway = self.here.gateway_at(self.over).context("a gateway")?;
        overlay_tests::check::ping(&own.namespace, gateway)?;
        let to_gateway = raw::neighbour_of(&own.namespace, gateway)?;
        let from = raw::mac_of(&own.namespace, "eth0")?;
        let target = IpAddr::from(self.here.containers[1].address);
        let inner = Ip::new(self.there.containers[0].address.into(), target);
        let source = match self.over {
            Family::V4 => own.address.into(),
            Family::V6 => own.address6.into(),
        };
        for end in [self.outer_of(self.here), gateway, self.outer_of(self.there)] {
            let payload = format!("<out to {end} {state}>").into_bytes();
            let frame = ethernet(
                self.inside.0,
                self.inside.1,
                inner.ethertype(),
                &inner.around_udp(1000, 9, &payload),
            );
            let vxlan = frames::vxlan(FLAGS, VNI << 8, &frame);
            let outer = Ip::new(source, end);
            let packet = outer.around(&frames::udp(50000, self.port, 0, &vxlan));
            let before = self.agent.drops()?;
            entrance.send(&ethernet(to_gateway, from, outer.ethertype(), &packet))?;
            assert!(
                !self.arrives(target, &payload, MOMENT)?,
                "{end}, {state}: arrived"
            );
            let expected = [("tunnel_from_endpoint".to_owned(), 1)];
            assert_eq!(
                self.agent.drops_since(&before)?,
                expected,
                "to {end}, {state}"
            );
        }
        Ok(())
    }
}

/// Commands after which a node takes what a device receives, whatever its source.
fn taken_in(node: &str, device: &str) -> [String; 2] {
    [
        format!("ip -n {node} link set {device} up"),
        format!("ip netns exec {node} sysctl -qw net.ipv4.conf.{device}.rp_filter=0"),
    ]
}

fn lab(name: &str, over: Family) -> Result<Guard> {
    let outside = match over {
        Family::V4 => Families::V4,
        Family::V6 => Families::V6,
    };
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(outside, Families::Both)?;
    let guard = Guard::up(shape)?;
    let nodes = &guard.topology().nodes;
    let [here, there] = [0, 1].map(|node: usize| nodes[node].namespace.as_str());
    let mut commands = vec![
        format!("ip -n {here} link add {OTHER} type veth peer name {OTHER} netns {there}"),
        format!("ip -n {here} link add {SECOND} link {UNDERLAY} type macvlan mode bridge"),
        format!("ip -n {there} link set {OTHER} up"),
        format!("ip netns exec {here} sysctl -qw net.ipv4.conf.all.rp_filter=0"),
    ];
    for device in [OTHER, SECOND] {
        commands.extend(taken_in(here, device));
    }
    // Strangers have a way back, or the kernel would not take them for neighbours.
    for range in ["192.0.2.0/24", "198.51.100.0/24"] {
        commands.push(format!("ip -n {here} route add {range} dev {UNDERLAY}"));
    }
    for command in commands {
        run::checked(command)?;
    }
    Ok(guard)
}

fn nothing_gets_round(name: &str, over: Family) -> Result<()> {
    let guard = lab(name, over)?;
    let stand = Stand::of(&guard, over)?;
    stand.fares("fast")?;
    stand.containers_cannot("fast")?;
    stand.agent.fastpath(false)?;
    stand.fares("slow")?;
    stand.containers_cannot("slow")?;
    drop(stand);
    Ok(guard.down()?)
}

#[test]
fn no_packet_gets_round_a_rule_over_ipv4() -> Result<()> {
    nothing_gets_round("tways", Family::V4)
}

#[test]
fn no_packet_gets_round_a_rule_over_ipv6() -> Result<()> {
    nothing_gets_round("tways6", Family::V6)
}

#[test]
fn the_guard_is_repaired_and_follows_its_peers() -> Result<()> {
    let guard = lab("twaysfix", Family::V4)?;
    let stand = Stand::of(&guard, Family::V4)?;
    let namespace = &stand.here.namespace;
    let agent = &stand.agent;
    let table = format!("guard.overlay-{namespace}");
    for damage in [
        format!("delete table inet {table}"),
        format!("flush set inet {table} vteps4"),
        format!("insert rule inet {table} input accept"),
        format!("flush chain inet {table} to_tunnel"),
    ] {
        run::checked(format!("ip netns exec {namespace} nft {damage}"))?;
        guard.is_whole(agent, &damage)?;
    }
    let stranger = &stand.cases()[3];
    let before = stand.agent.drops()?;
    stand.send(Way::Fragments(64), stranger, b"<after the repair>")?;
    assert!(!stand.arrives(stranger.to, b"<after the repair>", MOMENT)?);
    assert_eq!(
        stand.agent.drops_since(&before)?,
        [("unknown_vtep".to_owned(), 1)]
    );
    drop(stand);
    Ok(guard.down()?)
}
