//! The guard's table as a script of nft. JSON cannot say `typeof`, which a set needs that holds
//! fields of an inner header.
//!
//! ```text
//! chain input:  to a tunnel's port → chain to_tunnel: from a device of a network → drop
//!               tunnel_from_endpoint; then by VNI to the rules of that network
//! chain forward: to a tunnel's port → chain ends: from a device of a network to a node → drop,
//!               likewise; then to the chain leaving
//! chain output: for a tunnel of an encrypted network, by another device than what encrypts it
//!               → drop unencrypted
//! chain nowhere: from a device of a network to another one's range → drop other_network
//! ```
//!
//! Every packet of the kernel's path passes the chains at hooks, several times. So they ask first what is
//! cheap and true of few: comparing the name of a device takes a few hundred instructions.
//!
//! Offsets count bits from the UDP header. The kernel has put fragments of IPv4 together and
//! has parsed options; of IPv6 it judges the first fragment, without which nothing arrives:
//! where that is too short to be judged, it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use ipnet::IpNet;
use overlay_core::{
    model::{IfName, Security, Verdict},
    objects::{GuardRules, IN_THE_CLEAR, Length, TUNNEL_FROM_ENDPOINT, UNREACHABLE},
};

use super::{
    commands::{chain, counters, devices},
    elements::{key_of, set_of, version, width},
    leaving,
};

/// Reasons with a counter each, as they are called in `stats`.
pub(super) const REASONS: [&str; 11] = [
    TUNNEL_FROM_ENDPOINT,
    IN_THE_CLEAR,
    UNREACHABLE,
    OTHER_NETWORK,
    UNENCRYPTED,
    "invalid_vxlan_header",
    "unknown_vtep",
    "inner_vlan_tag",
    "source_not_behind_vtep",
    "martian_source",
    "malformed",
];

const OTHER_NETWORK: &str = "other_network";
const UNENCRYPTED: &str = "unencrypted";
pub(super) const VNI: &str = "@th,96,24";
const INNER_TYPE: u32 = 224;
const INNER_HEADER: u32 = 240;
/// Bits of an 802.1Q tag.
const TAG: u32 = 32;
/// Just before the rules of everybody else: what they accept has been looked at.
const PRIORITY: i32 = -5;
/// Behind `dstnat`.
const AFTER_TRANSLATION: i32 = -90;

/// What a network drops, as far as the guard can tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Strictness {
    unknown_vtep: bool,
    inner_source: bool,
    martians: bool,
}

impl Strictness {
    fn of(security: Security) -> Self {
        let drops = |verdict| verdict == Verdict::Drop;
        Self {
            unknown_vtep: drops(security.unknown_vtep),
            inner_source: drops(security.inner_source),
            martians: drops(security.martians),
        }
    }

    fn name(self) -> String {
        let bit = u8::from;
        format!(
            "{}{}{}",
            bit(self.unknown_vtep),
            bit(self.inner_source),
            bit(self.martians)
        )
    }
}

/// Everything but the elements of the sets of senders: what nothing passes, and the chains at hooks,
/// by which packets get there. `counts` go on from what they were.
pub(super) fn skeleton(
    table: &str,
    rules: &GuardRules,
    counts: impl Fn(&str) -> (u64, u64),
) -> (String, String) {
    let of_table = &format!("inet {table}");
    let mut text = counters(of_table, &REASONS, counts);
    for set in sets(&rules.senders.lengths) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "add set {of_table} {set}");
    }
    let levels: BTreeSet<Strictness> = rules
        .networks
        .values()
        .copied()
        .map(Strictness::of)
        .collect();
    for level in levels {
        for (name, rules) in chains(level, &rules.senders.lengths) {
            text += &chain(of_table, &name, None, rules);
        }
    }
    let list = |items: Vec<String>| items.join(", ");
    let ports = list(rules.ports.iter().map(u16::to_string).collect());
    let inside = devices(&rules.inside);
    let networks = list(
        rules
            .networks
            .iter()
            .map(|(vni, security)| {
                format!("{vni} : goto rules{}", Strictness::of(*security).name())
            })
            .collect(),
    );
    let refused = format!("counter name {TUNNEL_FROM_ENDPOINT} drop");
    let mut hooked = String::new();
    for (name, hook) in leaving::CHAINS {
        let text = if hook.is_some() {
            &mut hooked
        } else {
            &mut text
        };
        *text += &chain(of_table, name, hook, []);
    }
    for (name, hook, rules) in [
        (
            "to_tunnel",
            None,
            std::iter::once(format!("iifname {{ {inside} }} {refused}"))
                .chain(unencrypted(rules, "iifname"))
                .chain([
                    format!("{VNI} vmap {{ {networks} }}"),
                    // A VNI that is not ours, or an empty datagram: neither gets into a network of ours.
                    format!("{VNI} 0-0xffffff accept"),
                    "udp length 1-15 accept".to_owned(),
                    "counter name malformed drop".to_owned(),
                ])
                .collect(),
        ),
        (
            "ends",
            None,
            ["ip daddr @ends4", "ip6 daddr @ends6"]
                .map(|end| format!("iifname {{ {inside} }} {end} {refused}"))
                .into(),
        ),
        (
            "input",
            Some(("input", PRIORITY)),
            vec![format!("udp dport {{ {ports} }} goto to_tunnel")],
        ),
        (
            "forward",
            Some(("forward", PRIORITY)),
            vec![
                format!("udp dport {{ {ports} }} jump ends"),
                "goto leaving".to_owned(),
            ],
        ),
        (
            "nowhere",
            Some(("prerouting", AFTER_TRANSLATION)),
            apart(&rules.apart)
                .chain(leaving::nowhere(&rules.leaving))
                .collect(),
        ),
    ] {
        let text = if hook.is_some() {
            &mut hooked
        } else {
            &mut text
        };
        *text += &chain(of_table, name, hook, rules);
    }
    // Elsewhere nothing that leaves passes one.
    if !rules.encrypted.is_empty() {
        let output = Some(("output", PRIORITY));
        hooked += &chain(of_table, "output", output, unencrypted(rules, "oifname"));
    }
    (text, hooked + &leaving::fill(table, rules))
}

/// Rules that keep what is in the clear from passing for an encrypted network's, either way.
fn unencrypted(rules: &GuardRules, by: &str) -> impl Iterator<Item = String> {
    let networks = rules.encrypted.iter();
    networks.map(move |(vni, (port, encrypting))| {
        let encrypting = devices(encrypting);
        format!("{by} != {{ {encrypting} }} udp dport {port} {VNI} {vni} counter name {UNENCRYPTED} drop")
    })
}

/// Rules that keep what comes by some devices from addresses of other networks, whoever has them.
fn apart(apart: &BTreeMap<BTreeSet<IfName>, BTreeSet<IpNet>>) -> impl Iterator<Item = String> {
    apart.iter().flat_map(|(inside, ranges)| {
        let inside = devices(inside);
        ranges.iter().map(move |range| {
            let protocol = if range.addr().is_ipv4() { "ip" } else { "ip6" };
            format!(
                "iifname {{ {inside} }} {protocol} daddr {range} counter name {OTHER_NETWORK} drop"
            )
        })
    })
}

/// The sets, without elements.
fn sets(lengths: &BTreeSet<Length>) -> Vec<String> {
    let vteps = OUTER.map(|(outer, saddr)| format!("vteps{outer} {{ typeof {saddr} . {VNI} ; }}"));
    let sources = lengths.iter().map(|length| {
        let whole = Length {
            bits: width(length.inner),
            ..*length
        };
        format!("{} {{ typeof {} ; }}", set_of(*length), key_of(whole, 0))
    });
    let ends = [("ends4", "ipv4_addr"), ("ends6", "ipv6_addr")]
        .map(|(set, kind)| format!("{set} {{ type {kind} ; }}"));
    vteps.into_iter().chain(sources).chain(ends).collect()
}

const OUTER: [(u8, &str); 2] = [(4, "ip saddr"), (6, "ip6 saddr")];

/// The inner source address behind so many bits of tags.
pub(super) fn source(family: u8, tags: u32) -> String {
    let (offset, bits) = place(family, tags);
    format!("@th,{offset},{bits}")
}

fn place(family: u8, tags: u32) -> (u32, u32) {
    let header = INNER_HEADER + tags;
    if family == 4 {
        (header + 96, 32)
    } else {
        (header + 64, 128)
    }
}

/// The chains of networks that are equally strict; each comes after those it leads to.
fn chains(level: Strictness, lengths: &BTreeSet<Length>) -> Vec<(String, Vec<String>)> {
    let name = level.name();
    let mut chains = Vec::new();
    for tags in [0, TAG] {
        for family in [4, 6] {
            chains.push((
                format!("inner{name}_{family}_{tags}"),
                inner(level, lengths, family, tags),
            ));
        }
    }
    let by_type = |offset: u32, tags: u32| {
        [(4, "0x0800"), (6, "0x86dd")].map(|(family, kind)| {
            format!("@th,{offset},16 {kind} goto inner{name}_{family}_{tags}")
        })
    };
    let rest = |offset: u32| {
        [
            // Not IP, or too short to tell.
            format!("@th,{offset},16 != 0x0800 accept"),
            "counter name malformed drop".to_owned(),
        ]
    };
    let tagged = INNER_TYPE + TAG;
    let mut rules = vec![format!(
        "@th,{INNER_HEADER},16 & 0x0fff != 0 counter name inner_vlan_tag drop"
    )];
    rules.extend(by_type(tagged, TAG));
    rules.push(format!(
        "@th,{tagged},16 {{ 0x8100, 0x88a8 }} counter name inner_vlan_tag drop"
    ));
    rules.extend(rest(tagged));
    chains.push((format!("tagged{name}"), rules));
    let mut rules = vec![
        "@th,64,32 != 0x08000000 counter name invalid_vxlan_header drop".to_owned(),
        "@th,120,8 != 0 counter name invalid_vxlan_header drop".to_owned(),
    ];
    if level.unknown_vtep {
        let strangers = OUTER.map(|(outer, saddr)| {
            format!("{saddr} . {VNI} != @vteps{outer} counter name unknown_vtep drop")
        });
        rules.extend(strangers);
    }
    rules.extend(by_type(INNER_TYPE, 0));
    rules.push(format!(
        "@th,{INNER_TYPE},16 {{ 0x8100, 0x88a8 }} goto tagged{name}"
    ));
    rules.extend(rest(INNER_TYPE));
    chains.push((format!("rules{name}"), rules));
    chains
}

fn inner(level: Strictness, lengths: &BTreeSet<Length>, family: u8, tags: u32) -> Vec<String> {
    let (offset, bits) = place(family, tags);
    let source = source(family, tags);
    let mut rules = Vec::new();
    let martian = "counter name martian_source drop";
    match family {
        4 if level.martians => rules.push(format!(
            "{source} {{ 0-0x00ffffff, 0x7f000000-0x7fffffff, 0xe0000000-0xefffffff, 0xffffffff }} {martian}"
        )),
        6 if level.martians => rules.extend([
            format!("@th,{offset},8 0xff {martian}"),
            format!("@th,{offset},96 0xffff {martian}"),
            format!("{source} {{ 0, 1 }} {martian}"),
        ]),
        _ => {}
    }
    if family == 6 {
        // On the link that the tunnel is, for the node itself.
        rules.push(format!("@th,{offset},16 & 0xffc0 == 0xfe80 accept"));
    }
    let verdict = if level.inner_source {
        // Most are of a peer's subnet, which is shorter than its own address.
        let lengths = lengths
            .iter()
            .filter(|length| version(length.inner) == family);
        rules.extend(
            lengths.map(|length| format!("{} @{} accept", key_of(*length, tags), set_of(*length))),
        );
        if !level.unknown_vtep {
            // Whoever is no peer has nothing behind it to compare with.
            rules.extend(
                OUTER.map(|(outer, saddr)| format!("{saddr} . {VNI} != @vteps{outer} accept")),
            );
        }
        "counter name source_not_behind_vtep drop"
    } else {
        "accept"
    };
    let last = offset + bits - 8;
    rules.extend([
        format!("@th,{last},8 0 {verdict}"),
        format!("@th,{last},8 != 0 {verdict}"),
        // Too short to have a source.
        "counter name malformed drop".to_owned(),
    ]);
    rules
}
