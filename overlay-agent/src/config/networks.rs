//! Networks and their peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};

use ipnet::{IpNet, Ipv4Net};
use overlay_common::{
    maps::MAX_PREFIX_LENGTHS,
    wire::{IANA_PORT, OVERHEAD_V4, vtep_mac},
};
use toml::Spanned;

use super::{Report, error::Fault, raw};
use crate::model::{FastPath, Mac, Network, Peer, Vni};

/// Smallest datagram that every IPv4 host must take (RFC 791); less is a mistake.
const MIN_MTU: u16 = 576;

pub(super) fn validate(
    raw: &[Spanned<raw::Network>],
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Vec<Network> {
    let mut names = BTreeMap::new();
    let mut vnis = BTreeMap::new();
    let mut cidrs: Vec<Claim> = Vec::new();
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
        if let Some(network) = network(raw, &field, own_vtep, report) {
            cidrs.push(Claim {
                subnet: network.cidr,
                owner: format!("network {}", network.name),
                span: raw.cidr.span(),
                field: format!("{field}.cidr"),
            });
            networks.push(network);
        }
    }
    overlaps(cidrs, report);
    networks.sort_by_key(|network| network.vni);
    networks
}

fn network(
    raw: &raw::Network,
    field: &str,
    own_vtep: Option<IpAddr>,
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
    if let Some(raw) = raw
        .masquerade
        .as_ref()
        .filter(|masquerade| *masquerade.get_ref())
    {
        let fault = Fault::NotBuilt(
            "masquerade",
            "set it to false, and add the NAT rule that you need with nft",
        );
        report.add(raw.span(), format!("{field}.masquerade"), fault);
    }
    let mtu = mtu(raw, field, report);
    let cidr = single_subnet(&raw.cidr, &format!("{field}.cidr"), report);
    let subnet = single_subnet(&raw.subnet, &format!("{field}.subnet"), report);
    let (cidr, subnet) = (cidr?, subnet?);
    let mut claims = vec![Claim {
        subnet,
        owner: "this node".to_owned(),
        span: raw.subnet.span(),
        field: format!("{field}.subnet"),
    }];
    if !cidr.contains(&subnet) {
        report.add(
            raw.subnet.span(),
            format!("{field}.subnet"),
            Fault::Outside { subnet, cidr },
        );
    }
    if subnet.prefix_len() > 30 {
        report.add(
            raw.subnet.span(),
            format!("{field}.subnet"),
            Fault::TooSmall(subnet),
        );
    }
    let peers = peers(raw, field, cidr, own_vtep, &mut claims, report);
    overlaps(claims, report);
    if raw.fastpath != FastPath::Off {
        let lengths: BTreeSet<u8> = peers
            .iter()
            .flat_map(|peer| &peer.subnets)
            .map(Ipv4Net::prefix_len)
            .collect();
        if lengths.len() > MAX_PREFIX_LENGTHS {
            report.add(
                raw.name.span(),
                format!("{field}.peers"),
                Fault::PrefixLengths(lengths.len()),
            );
        }
    }
    Some(Network {
        name: name?,
        vni: vni?,
        port,
        cidr,
        subnet,
        mtu,
        fastpath: raw.fastpath,
        peers,
    })
}

fn mtu(raw: &raw::Network, field: &str, report: &mut Report<'_>) -> Option<u16> {
    let raw = raw.mtu.as_ref()?;
    let raw::Mtu::Bytes(bytes) = *raw.get_ref() else {
        return None;
    };
    if !(MIN_MTU..=u16::MAX - OVERHEAD_V4).contains(&bytes) {
        report.add(raw.span(), format!("{field}.mtu"), Fault::Mtu(bytes));
    }
    Some(bytes)
}

fn peers(
    raw: &raw::Network,
    field: &str,
    cidr: Ipv4Net,
    own_vtep: Option<IpAddr>,
    claims: &mut Vec<Claim>,
    report: &mut Report<'_>,
) -> Vec<Peer> {
    let mut names = BTreeMap::new();
    let mut vteps = BTreeMap::new();
    let mut macs = BTreeMap::new();
    let mut peers = Vec::with_capacity(raw.peers.len());
    for (index, raw) in raw.peers.iter().enumerate() {
        let field = format!("{field}.peers[{index}]");
        let raw = raw.get_ref();
        let Some(peer) = peer(raw, &field, own_vtep, report) else {
            continue;
        };
        let vtep_field = format!("{field}.vtep");
        unique(
            &mut names,
            peer.name.clone(),
            "peer name",
            raw.name.span(),
            format!("{field}.name"),
            report,
        );
        unique(
            &mut vteps,
            peer.vtep,
            "VTEP",
            raw.vtep.span(),
            vtep_field.clone(),
            report,
        );
        let (mac_span, mac_field) = raw
            .mac
            .as_ref()
            .map_or((raw.vtep.span(), vtep_field), |mac| {
                (mac.span(), format!("{field}.mac"))
            });
        unique(&mut macs, peer.mac, "VTEP MAC", mac_span, mac_field, report);
        for &subnet in &peer.subnets {
            let field = format!("{field}.subnet");
            if !cidr.contains(&subnet) {
                report.add(
                    raw.subnet.span(),
                    field.clone(),
                    Fault::Outside { subnet, cidr },
                );
            }
            claims.push(Claim {
                subnet,
                owner: format!("peer {}", peer.name),
                span: raw.subnet.span(),
                field,
            });
        }
        peers.push(peer);
    }
    peers
}

fn peer(
    raw: &raw::Peer,
    field: &str,
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<Peer> {
    let name = report.value(&raw.name, format!("{field}.name"));
    let vtep = vtep(&raw.vtep, format!("{field}.vtep"), own_vtep, report);
    let subnets = subnets(&raw.subnet, &format!("{field}.subnet"), report);
    let mac = match &raw.mac {
        Some(mac) => report.value(mac, format!("{field}.mac")),
        None => vtep.and_then(|vtep| Mac::unicast(vtep_mac(vtep.octets()))),
    };
    Some(Peer {
        name: name?,
        vtep: vtep?,
        subnets,
        mac: mac?,
    })
}

fn vtep(
    raw: &Spanned<String>,
    field: String,
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<Ipv4Addr> {
    let fault = match raw.get_ref().parse::<IpAddr>() {
        Err(_) => Fault::Address(raw.get_ref().clone()),
        Ok(IpAddr::V6(_)) => Fault::Ipv6(raw.get_ref().clone()),
        Ok(address) if Some(address) == own_vtep => Fault::OwnVtep(address),
        Ok(IpAddr::V4(address)) => {
            let usable = !address.is_multicast()
                && !address.is_broadcast()
                && !address.is_unspecified()
                && !address.is_loopback();
            if usable {
                return Some(address);
            }
            Fault::NotUnicast(address.into())
        }
    };
    report.add(raw.span(), field, fault);
    None
}

/// The one IPv4 subnet of a field that may be a list.
fn single_subnet(
    raw: &Spanned<raw::OneOrMany>,
    field: &str,
    report: &mut Report<'_>,
) -> Option<Ipv4Net> {
    let given = raw.get_ref().as_slice().len();
    let before = report.faults.len();
    let subnets = subnets(raw, field, report);
    if given > 1 && report.faults.len() == before {
        let fault = Fault::Number {
            what: "this field",
            takes: "one IPv4 subnet",
            given,
            cure: "keep one of them",
        };
        report.add(raw.span(), field, fault);
    }
    subnets.first().copied()
}

fn subnets(raw: &Spanned<raw::OneOrMany>, field: &str, report: &mut Report<'_>) -> Vec<Ipv4Net> {
    let texts = raw.get_ref().as_slice();
    if texts.is_empty() {
        let fault = Fault::Number {
            what: "this field",
            takes: "at least one subnet",
            given: 0,
            cure: "write it as \"10.244.1.0/24\"",
        };
        report.add(raw.span(), field, fault);
    }
    texts
        .iter()
        .filter_map(|text| {
            subnet(text)
                .map_err(|fault| report.add(raw.span(), field, fault))
                .ok()
        })
        .collect()
}

fn subnet(text: &str) -> Result<Ipv4Net, Fault> {
    match text.parse::<IpNet>() {
        Err(_) => Err(Fault::Subnet(text.to_owned())),
        Ok(IpNet::V6(_)) => Err(Fault::Ipv6(text.to_owned())),
        Ok(IpNet::V4(net)) if net.prefix_len() == 0 => Err(Fault::Subnet(text.to_owned())),
        Ok(IpNet::V4(net)) if net.trunc() != net => Err(Fault::HostBits {
            given: net,
            network: net.trunc(),
        }),
        Ok(IpNet::V4(net)) => Ok(net),
    }
}

/// Reports a value that was seen before; remembers the field of the first use.
pub(super) fn unique<K: Ord + std::fmt::Display>(
    seen: &mut BTreeMap<K, String>,
    value: K,
    what: &'static str,
    span: Range<usize>,
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

/// A subnet that somebody takes for himself.
struct Claim {
    subnet: Ipv4Net,
    owner: String,
    span: Range<usize>,
    field: String,
}

/// Reports every claim on addresses that an earlier one in address order has already.
fn overlaps(mut claims: Vec<Claim>, report: &mut Report<'_>) {
    claims.sort_by_key(|claim| (claim.subnet.network(), claim.subnet.prefix_len()));
    let mut widest: Option<&Claim> = None;
    for claim in &claims {
        match widest {
            Some(earlier) if earlier.subnet.contains(&claim.subnet) => {
                // The later line is the mistake; in address order it may be the earlier claim.
                let (wrong, right) = if claim.span.start >= earlier.span.start {
                    (claim, earlier)
                } else {
                    (earlier, claim)
                };
                let fault = Fault::Overlap {
                    subnet: wrong.subnet,
                    other: right.subnet,
                    owner: right.owner.clone(),
                };
                report.add(wrong.span.clone(), wrong.field.clone(), fault);
            }
            _ => widest = Some(claim),
        }
    }
}
