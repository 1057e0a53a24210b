//! Who may send, as elements of the table's sets, and how a rule asks for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_core::{
    model::{Family, Vni},
    objects::{GuardRules, GuardSenders, Length},
};

use super::script::{VNI, source};

/// Commands that add senders to the sets, or delete them.
pub(super) fn change<'a>(
    table: &str,
    command: &str,
    vteps: impl Iterator<Item = &'a (Vni, IpAddr)>,
    sources: impl Iterator<Item = &'a (Vni, IpAddr, IpNet)>,
) -> String {
    let mut text = String::new();
    let mut sets: BTreeMap<String, String> = BTreeMap::new();
    let mut note = |set: String, element: String| {
        let elements = sets.entry(set).or_default();
        if !elements.is_empty() {
            elements.push_str(", ");
        }
        elements.push_str(&element);
    };
    for (vni, vtep) in vteps {
        note(
            format!("vteps{}", version(Family::of(*vtep))),
            format!("{vtep} . {vni}"),
        );
    }
    for (vni, vtep, net) in sources {
        let length = Length {
            outer: Family::of(*vtep),
            inner: Family::of(net.addr()),
            bits: net.prefix_len(),
        };
        note(set_of(length), format!("{vtep} . {vni} . {}", number(*net)));
    }
    for (set, elements) in sets {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{command} element inet {table} {set} {{ {elements} }}"
        );
    }
    text
}

/// Commands that add ends of tunnels, or delete them.
pub(super) fn change_ends<'a>(
    table: &str,
    command: &str,
    ends: impl Iterator<Item = &'a IpAddr>,
) -> String {
    let (v4, v6): (Vec<_>, Vec<_>) = ends.partition(|end| end.is_ipv4());
    let mut text = String::new();
    for (set, ends) in [("ends4", v4), ("ends6", v6)] {
        if !ends.is_empty() {
            let ends: Vec<String> = ends.into_iter().map(IpAddr::to_string).collect();
            let _ = writeln!(
                text,
                "{command} element inet {table} {set} {{ {} }}",
                ends.join(", ")
            );
        }
    }
    text
}

/// All ends of tunnels, of this node and of others.
pub(super) fn ends<'a>(rules: &'a GuardRules, senders: &'a GuardSenders) -> BTreeSet<&'a IpAddr> {
    let peers = senders.vteps.iter().map(|(_, vtep)| vtep);
    peers.chain(&rules.own).collect()
}

pub(super) const fn version(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// Name of the set of sources that are compared over so many bits.
pub(super) fn set_of(length: Length) -> String {
    let [outer, inner] = [length.outer, length.inner].map(version);
    format!("sources{outer}{inner}_{}", length.bits)
}

/// Who sends what, as that set is asked.
pub(super) fn key_of(length: Length, tags: u32) -> String {
    let [outer, inner] = [length.outer, length.inner].map(version);
    let saddr = if outer == 4 { "ip saddr" } else { "ip6 saddr" };
    let source = source(inner, tags);
    let width = width(length.inner);
    if length.bits == width {
        return format!("{saddr} . {VNI} . {source}");
    }
    let mask = match length.inner {
        Family::V4 => format!("{:#x}", u32::MAX << (width - length.bits)),
        Family::V6 => format!("{:#x}", u128::MAX << (width - length.bits)),
    };
    format!("{saddr} . {VNI} . ({source} & {mask})")
}

/// Bits of an address.
pub(super) const fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// A prefix as a number: that is what fields of an inner header are to nft.
fn number(net: IpNet) -> String {
    match net {
        IpNet::V4(net) => format!("{:#x}", net.network().to_bits()),
        IpNet::V6(net) => format!("{:#x}", net.network().to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{model::Family, objects::Length};

    use super::{key_of, number, set_of};

    #[test]
    fn a_prefix_is_a_number() {
        for (net, expected) in [
            ("10.244.2.0/24", "0xaf40200"),
            ("255.255.255.255/32", "0xffffffff"),
            ("fd00:10::/64", "0xfd000010000000000000000000000000"),
            ("::1/128", "0x1"),
        ] {
            assert_eq!(number(net.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_length_has_a_set_and_a_mask() {
        let length = |inner, bits| Length {
            outer: Family::V6,
            inner,
            bits,
        };
        assert_eq!(set_of(length(Family::V4, 25)), "sources64_25");
        for (length, tags, key) in [
            (length(Family::V4, 25), 0, "(@th,336,32 & 0xffffff80)"),
            (length(Family::V4, 32), 32, "@th,368,32"),
            (
                length(Family::V6, 56),
                0,
                "(@th,304,128 & 0xffffffffffffff000000000000000000)",
            ),
            (length(Family::V6, 128), 0, "@th,304,128"),
        ] {
            assert_eq!(
                key_of(length, tags),
                format!("ip6 saddr . @th,96,24 . {key}")
            );
        }
    }
}
