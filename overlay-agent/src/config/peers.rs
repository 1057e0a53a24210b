//! Peers of a network.

use std::{collections::BTreeMap, net::IpAddr};

use toml::Spanned;

use super::{
    Report,
    error::Fault,
    networks::unique,
    raw,
    subnets::{Claim, no_such_family, subnets},
};
use crate::model::{Family, Mac, Peer, Range};

pub(super) fn validate(
    raw: &raw::Network,
    field: &str,
    ranges: &[Range],
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
        claim(
            &peer,
            raw,
            &format!("{field}.subnet"),
            ranges,
            claims,
            report,
        );
        peers.push(peer);
    }
    peers
}

fn claim(
    peer: &Peer,
    raw: &raw::Peer,
    field: &str,
    ranges: &[Range],
    claims: &mut Vec<Claim>,
    report: &mut Report<'_>,
) {
    for &subnet in &peer.subnets {
        let family = Family::of(subnet.addr());
        let fault = match ranges.iter().find(|range| range.family() == family) {
            None => Some(no_such_family(&subnet, family)),
            Some(&Range { cidr, .. }) if !cidr.contains(&subnet) => {
                Some(Fault::Outside { subnet, cidr })
            }
            Some(_) => None,
        };
        if let Some(fault) = fault {
            report.add(raw.subnet.span(), field, fault);
        }
        claims.push(Claim {
            subnet,
            owner: format!("peer {}", peer.name),
            span: raw.subnet.span(),
            field: field.to_owned(),
        });
    }
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
        None => vtep.map(Mac::of_vtep),
    };
    let checksum = raw.udp6_checksum.as_ref();
    let udp6_checksum = checksum.is_some_and(|wanted| *wanted.get_ref());
    if let (Some(raw), Some(vtep)) = (checksum, vtep)
        && udp6_checksum
        && vtep.is_ipv4()
    {
        let field = format!("{field}.udp6_checksum");
        report.add(raw.span(), field, Fault::ChecksumOverIpv4(vtep));
    }
    Some(Peer {
        name: name?,
        vtep: vtep?,
        subnets,
        mac: mac?,
        udp6_checksum,
    })
}

fn vtep(
    raw: &Spanned<String>,
    field: String,
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let fault = match raw.get_ref().parse::<IpAddr>() {
        Err(_) => Fault::Address(raw.get_ref().clone()),
        Ok(address) if Some(address) == own_vtep => Fault::OwnVtep(address),
        Ok(address) if can_be_vtep(address) => return Some(address),
        Ok(address) => Fault::NotUnicast(address),
    };
    report.add(raw.span(), field, fault);
    None
}

/// Whether packets can be sent to an address without saying through which device.
pub(super) fn can_be_vtep(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
        }
    };
    !special && !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}
