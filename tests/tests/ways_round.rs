//! A rule has no way round: what must not enter a network by a tunnel does not, whichever way it
//! comes, and what may still does.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    frames::{self, Ip, Mac, ethernet, ethertype, protocol},
    guard::Guard,
    raw::{self, Socket},
    run,
    script::words,
    shape::{Scenario, Shape},
    topology::{Node, UNDERLAY, VNI},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// As long as a packet that should not come is waited for; its drop was counted before.
const MOMENT: Duration = Duration::from_millis(100);
const FLAGS: u32 = 0x0800_0000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// A card of both nodes that is no underlay.
const OTHER: &str = "eth9";

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
    /// With a priority tag inside.
    InnerPriorityTag,
}

const WAYS: [Way; 7] = [
    Way::Plain,
    Way::Fragments(8),
    Way::Fragments(64),
    Way::Options,
    Way::PriorityTag,
    Way::OtherCard,
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
    here: &'a Node,
    there: &'a Node,
    agent: Agent,
    port: u16,
    underlay: Socket,
    other: Socket,
    macs: BTreeMap<&'static str, (Mac, Mac)>,
    inside: (Mac, Mac),
    exits: BTreeMap<IpAddr, Socket>,
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
    fn of(guard: &'a Guard) -> Result<Self> {
        use overlay_tests::families::Family;
        let topology = guard.topology();
        let (here, there) = (&topology.nodes[0], &topology.nodes[1]);
        let mut macs = BTreeMap::new();
        for device in [UNDERLAY, OTHER] {
            let own = raw::mac_of(&there.namespace, device)?;
            macs.insert(device, (raw::mac_of(&here.namespace, device)?, own));
        }
        let mut exits = BTreeMap::new();
        let container = &here.containers[1];
        for address in [IpAddr::from(container.address), container.address6.into()] {
            exits.insert(address, Socket::open(&container.namespace, "eth0")?);
        }
        Ok(Self {
            here,
            there,
            agent: guard.agent(1),
            port: topology.port(),
            underlay: Socket::open(&there.namespace, UNDERLAY)?,
            other: Socket::open(&there.namespace, OTHER)?,
            macs,
            inside: (
                mac(&here.vtep_mac(Family::V4))?,
                mac(&there.vtep_mac(Family::V4))?,
            ),
            exits,
        })
    }

    fn cases(&self) -> Vec<Case> {
        let known = IpAddr::from(self.there.underlay);
        let stranger: IpAddr = [192, 0, 2, 77].into();
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
        let outer = Ip::new(case.vtep, self.here.underlay.into());
        let (device, socket) = match way {
            Way::OtherCard => (OTHER, &self.other),
            _ => (UNDERLAY, &self.underlay),
        };
        let (to, from) = self.macs[device];
        let packets = match way {
            Way::Fragments(first) => {
                let (head, tail) = datagram.split_at(first);
                let place = u16::try_from(first / 8)?;
                [(MORE_FRAGMENTS, head), (place, tail)]
                    .map(|(flags_and_offset, part)| {
                        Ip {
                            id: 77,
                            flags_and_offset,
                            protocol: protocol::UDP,
                            ..outer
                        }
                        .around(part)
                    })
                    .to_vec()
            }
            Way::Options => vec![with_options(&outer.around(&datagram))],
            _ => vec![outer.around(&datagram)],
        };
        for packet in packets {
            let frame = match way {
                Way::PriorityTag => tagged(to, from, ethertype::IPV4, &packet),
                _ => ethernet(to, from, ethertype::IPV4, &packet),
            };
            socket.send(&frame)?;
        }
        Ok(())
    }

    fn arrives(&self, to: IpAddr, payload: &[u8], within: Duration) -> Result<bool> {
        let contains = |frame: &[u8]| frame.windows(payload.len()).any(|part| part == payload);
        Ok(self.exits[&to].receive(within, contains)?.is_some())
    }

    fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let stats = self.agent.json(&["stats"])?;
        let drops = stats["drops"].as_array().context("drops")?;
        let count = |reason: &serde_json::Value| {
            let name = reason["reason"].as_str().unwrap_or_default().to_owned();
            (name, reason["packets"].as_u64().unwrap_or_default())
        };
        let drops: BTreeMap<_, _> = drops.iter().map(count).collect();
        let of_programs = stats["programs"].as_array().context("programs")?.iter();
        let sum: u64 = of_programs
            .filter_map(|program| program["dropped"]["packets"].as_u64())
            .sum();
        assert_eq!(sum, drops.values().sum::<u64>(), "{stats}");
        Ok(drops)
    }

    fn moved(&self, before: &BTreeMap<String, u64>) -> Result<Vec<(String, u64)>> {
        let more = |(name, count): (String, u64)| {
            let more = count - before.get(&name).copied().unwrap_or_default();
            (more > 0).then_some((name, more))
        };
        Ok(self.drops()?.into_iter().filter_map(more).collect())
    }

    fn fares(&self, state: &str) -> Result<()> {
        for (number, case) in self.cases().iter().enumerate() {
            for way in WAYS {
                let what = format!("{}, {way:?}, {state}", case.name);
                let payload = format!("<{number} {way:?} {state}>").into_bytes();
                let before = self.drops()?;
                self.send(way, case, &payload)?;
                if case.reason.is_none() {
                    assert!(self.arrives(case.to, &payload, PATIENCE)?, "{what}: lost");
                } else {
                    assert!(!self.arrives(case.to, &payload, MOMENT)?, "{what}: arrived");
                }
                let reason = case.reason.map(|reason| (reason.to_owned(), 1));
                assert_eq!(
                    self.moved(&before)?,
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
        let gateway = self.here.gateway.context("a gateway")?;
        overlay_tests::check::ping(&own.namespace, gateway)?;
        let to_gateway = raw::neighbour_of(&own.namespace, gateway.into())?;
        let from = raw::mac_of(&own.namespace, "eth0")?;
        let target = IpAddr::from(self.here.containers[1].address);
        let inner = Ip::new(self.there.containers[0].address.into(), target);
        for end in [
            self.here.underlay.into(),
            IpAddr::from(gateway),
            self.there.underlay.into(),
        ] {
            let payload = format!("<out to {end} {state}>").into_bytes();
            let frame = ethernet(
                self.inside.0,
                self.inside.1,
                ethertype::IPV4,
                &inner.around_udp(1000, 9, &payload),
            );
            let vxlan = frames::vxlan(FLAGS, VNI << 8, &frame);
            let outer = Ip::new(own.address.into(), end);
            let packet = outer.around(&frames::udp(50000, self.port, 0, &vxlan));
            let before = self.drops()?;
            entrance.send(&ethernet(to_gateway, from, ethertype::IPV4, &packet))?;
            assert!(
                !self.arrives(target, &payload, MOMENT)?,
                "{end}, {state}: arrived"
            );
            let expected = [("tunnel_from_endpoint".to_owned(), 1)];
            assert_eq!(self.moved(&before)?, expected, "to {end}, {state}");
        }
        Ok(())
    }
}

fn tagged(to: Mac, from: Mac, kind: u16, packet: &[u8]) -> Vec<u8> {
    let tag = [&[0, 0][..], &kind.to_be_bytes(), packet].concat();
    ethernet(to, from, ethertype::VLAN, &tag)
}

/// The packet with four bytes of IPv4 options that say nothing.
fn with_options(packet: &[u8]) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    let mut header = [&packet[..20], &[NO_OPERATION; 4]].concat();
    header[0] = 0x46;
    let length = u16::from_be_bytes([header[2], header[3]]) + 4;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[10..12].fill(0);
    let sum = frames::checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &packet[20..]].concat()
}

fn lab(name: &str) -> Result<Guard> {
    use overlay_tests::families::Families;
    let shape = Shape::usual(name, Scenario::Overlay)?.speaking(Families::V4, Families::Both)?;
    let guard = Guard::up(shape)?;
    let [here, there] = [0, 1].map(|node: usize| guard.topology().nodes[node].namespace.clone());
    for command in [
        format!("ip -n {here} link add {OTHER} type veth peer name {OTHER} netns {there}"),
        format!("ip -n {here} link set {OTHER} up"),
        format!("ip -n {there} link set {OTHER} up"),
        format!("ip netns exec {here} sysctl -qw net.ipv4.conf.{OTHER}.rp_filter=0"),
        format!("ip netns exec {here} sysctl -qw net.ipv4.conf.all.rp_filter=0"),
        // Strangers have a way back, or the kernel would not take them for neighbours.
        format!("ip -n {here} route add 192.0.2.0/24 dev {UNDERLAY}"),
        format!("ip -n {here} route add 198.51.100.0/24 dev {UNDERLAY}"),
    ] {
        run::checked(&words(command))?;
    }
    Ok(guard)
}

#[test]
fn no_packet_gets_round_a_rule() -> Result<()> {
    let guard = lab("tways")?;
    let stand = Stand::of(&guard)?;
    stand.fares("fast")?;
    stand.containers_cannot("fast")?;
    stand.agent.fastpath(false)?;
    stand.fares("slow")?;
    stand.containers_cannot("slow")?;
    drop(stand);
    Ok(guard.down()?)
}

#[test]
fn the_guard_is_repaired_and_follows_its_peers() -> Result<()> {
    let guard = lab("twaysfix")?;
    let stand = Stand::of(&guard)?;
    let namespace = &stand.here.namespace;
    let agent = &stand.agent;
    let table = format!("guard.overlay-{namespace}");
    for damage in [
        format!("delete table inet {table}"),
        format!("flush set inet {table} vteps4"),
        format!("insert rule inet {table} input accept"),
        format!("flush chain inet {table} tunnel"),
    ] {
        run::checked(&words(format!("ip netns exec {namespace} nft {damage}")))?;
        guard.is_whole(agent, &damage)?;
    }
    let stranger = &stand.cases()[3];
    let before = stand.drops()?;
    stand.send(Way::Fragments(64), stranger, b"<after the repair>")?;
    assert!(!stand.arrives(stranger.to, b"<after the repair>", MOMENT)?);
    assert_eq!(stand.moved(&before)?, [("unknown_vtep".to_owned(), 1)]);
    drop(stand);
    Ok(guard.down()?)
}
