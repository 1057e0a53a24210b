//! Networks.

use std::{collections::BTreeMap, ops::Range as Span};

use overlay_common::{
    maps::MAX_PREFIX_LENGTHS,
    wire::{IANA_PORT, OVERHEAD_V4},
};
use toml::Spanned;

use super::{
    Report,
    error::Fault,
    peers::{self, Own},
    plain::Plain,
    raw,
    subnets::{self, Claim, overlaps},
};
use crate::model::{Family, FastPath, MIN_IPV6_MTU, Name, Network, Peers, Vni, WireGuard};

/// Smallest datagram that every IPv4 host must take (RFC 791); less is a mistake.
const MIN_MTU: u16 = 576;

pub(super) fn validate(
    raw: &[Spanned<raw::Network>],
    plain: &Plain<'_>,
    node: Own<'_>,
    report: &mut Report<'_>,
) -> Vec<Network> {
    let mut names = BTreeMap::new();
    let mut vnis = BTreeMap::new();
    let mut cidrs = Vec::new();
    let mut networks: Vec<Network> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let field = format!("networks[{index}]");
        let raw = raw.get_ref();
        unique(
            &mut names,
            raw.name.get_ref().clone(),
            "network name",
            raw.name.span(),
            format!("{field}.name"),
            report,
        );
        unique(
            &mut vnis,
            *raw.vni.get_ref(),
            "VNI",
            raw.vni.span(),
            format!("{field}.vni"),
            report,
        );
        if let Some(network) = network(raw, (plain, index), &field, node, report) {
            cidrs.extend(network.ranges.iter().map(|range| Claim {
                subnet: range.cidr,
                place: raw.cidr.span().start,
                owner: (index, network.name.clone()),
            }));
            networks.push(network);
        }
    }
    let describe = |(index, name): &(usize, Name)| {
        (format!("network {name}"), format!("networks[{index}].cidr"))
    };
    overlaps(cidrs, describe, report);
    check_ports(raw, report);
    networks.sort_by_key(|network| network.vni);
    networks
}

fn network(
    raw: &raw::Network,
    plain: (&Plain<'_>, usize),
    field: &str,
    node: Own<'_>,
    report: &mut Report<'_>,
) -> Option<Network> {
    let name = report.value(&raw.name, format!("{field}.name"));
    let vni = Vni::try_from(*raw.vni.get_ref())
        .map_err(|error| report.add(raw.vni.span(), format!("{field}.vni"), error.into()))
        .ok();
    let port = raw.port.as_ref().map_or(IANA_PORT, |port| *port.get_ref());
    if let Some(raw) = raw.port.as_ref().filter(|port| *port.get_ref() == 0) {
        report.add(raw.span(), format!("{field}.port"), Fault::PortZero);
    }
    let ranges = subnets::ranges(raw, field, report);
    if ranges.is_empty() {
        return None;
    }
    let (plain, index) = plain;
    let list = peers::List {
        parsed: &raw.peers,
        plain: plain.of_network(index),
        subnet: raw.subnet.span().start,
        encrypted: raw.encryption == raw::Encryption::WireGuard,
        left_out: None,
    };
    let (_, peers) = peers::validate(&list, field, &ranges, node, report);
    let peers = Peers::from(peers);
    if let Some(fault) = check_lengths(&peers, raw.fastpath) {
        report.add(raw.name.span(), format!("{field}.peers"), fault);
    }
    let mut network = Network {
        name: name?,
        vni: vni?,
        port,
        ranges,
        mtu: None,
        fastpath: raw.fastpath,
        masquerade: raw.masquerade,
        dscp: raw.dscp,
        security: raw.security,
        wireguard: wireguard(raw.encrypted(), field, report),
        peers,
    };
    network.mtu = mtu(raw, field, network.has_ipv6(), report);
    Some(network)
}

/// A section's settings for encryption.
pub(super) fn wireguard(
    raw: raw::Encrypted<'_>,
    field: &str,
    report: &mut Report<'_>,
) -> Option<WireGuard> {
    let given = [
        ("wireguard_port", raw.port),
        ("wireguard_next_port", raw.next_port),
    ];
    for (key, port) in given {
        let Some(port) = port else { continue };
        let field = format!("{field}.{key}");
        if raw.encryption == raw::Encryption::Off {
            report.add(port.span(), field, Fault::NotEncrypted);
        } else if *port.get_ref() == 0 {
            let what = "is not a port".to_owned();
            let fault = Fault::WireGuardPort { port: 0, what, key };
            report.add(port.span(), field, fault);
        }
    }
    (raw.encryption != raw::Encryption::Off).then(|| {
        let [port, next] = given.map(|(_, port)| port.map(|port| *port.get_ref()));
        let port = port.unwrap_or(WireGuard::USUAL_PORT);
        let next_port = next.unwrap_or_else(|| WireGuard::usual_next_port(port));
        WireGuard { port, next_port }
    })
}

/// Reports ports of `WireGuard` that are also a tunnel's, or another network's. The next ports, which hardly
/// anybody ever needs, are looked at where they are given.
fn check_ports(raw: &[Spanned<raw::Network>], report: &mut Report<'_>) {
    let mut seen: BTreeMap<u16, &str> = BTreeMap::new();
    let encrypted = raw.iter().map(Spanned::get_ref).enumerate();
    let encrypted = encrypted.filter(|(_, network)| network.encryption != raw::Encryption::Off);
    let in_use = encrypted.clone().map(|(index, network)| {
        let given = network.wireguard_port.as_ref();
        let port = given.map_or(WireGuard::USUAL_PORT, |port| *port.get_ref());
        (index, network, port, given, "wireguard_port")
    });
    let next = encrypted.filter_map(|(index, network)| {
        let given = network.wireguard_next_port.as_ref()?;
        let port = *given.get_ref();
        Some((index, network, port, Some(given), "wireguard_next_port"))
    });
    for (index, network, port, given, key) in in_use.chain(next) {
        let mut others = raw.iter().map(Spanned::get_ref);
        let of_tunnel = others.find(|other| {
            let tunnel = other.port.as_ref();
            tunnel.map_or(IANA_PORT, |port| *port.get_ref()) == port
        });
        let what = match (of_tunnel, seen.insert(port, network.name.get_ref())) {
            (Some(other), _) => format!("is that of network {}", other.name.get_ref()),
            (None, Some(other)) => format!("is that of WireGuard for network {other}"),
            (None, None) => continue,
        };
        let span = given.map_or_else(|| network.name.span(), Spanned::span);
        let field = format!("networks[{index}].{key}");
        report.add(span, field, Fault::WireGuardPort { port, what, key });
    }
}

fn mtu(raw: &raw::Network, field: &str, ipv6: bool, report: &mut Report<'_>) -> Option<u16> {
    let raw = raw.mtu.as_ref()?;
    let raw::Mtu::Bytes(bytes) = *raw.get_ref() else {
        return None;
    };
    if !(MIN_MTU..=u16::MAX - OVERHEAD_V4).contains(&bytes) {
        report.add(raw.span(), format!("{field}.mtu"), Fault::Mtu(bytes));
    } else if ipv6 && bytes < MIN_IPV6_MTU {
        report.add(raw.span(), format!("{field}.mtu"), Fault::MtuForIpv6(bytes));
    }
    Some(bytes)
}

/// Each different length costs the data plane a look-up.
pub(super) fn check_lengths(peers: &Peers, fastpath: FastPath) -> Option<Fault> {
    if fastpath == FastPath::Off {
        return None;
    }
    let lengths = Family::ALL.map(|family| (family, peers.prefix_lengths(family).len()));
    let mut lengths = lengths.into_iter();
    let (family, lengths) = lengths.find(|(_, lengths)| *lengths > MAX_PREFIX_LENGTHS)?;
    Some(Fault::PrefixLengths { family, lengths })
}

/// Reports a value that was seen before; remembers the field of the first use.
pub(super) fn unique<K: Ord + std::fmt::Display>(
    seen: &mut BTreeMap<K, String>,
    value: K,
    what: &'static str,
    span: Span<usize>,
    field: String,
    report: &mut Report<'_>,
) {
    if let Some(first) = seen.get(&value) {
        let fault = Fault::Duplicate {
            what,
            value: value.to_string(),
            first: first.clone(),
        };
        report.add(span, field, fault);
    } else {
        seen.insert(value, field);
    }
}
