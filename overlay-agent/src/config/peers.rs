//! Peers of a network.

use std::{collections::hash_map::Entry, hash::Hash, net::IpAddr};

// The standard one guards against keys that are chosen to collide. Whoever writes this file can
// do worse, and the guard is a tenth of the time that a large file takes.
use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;
use toml::Spanned;

use super::{
    Report,
    error::Fault,
    plain::Plain,
    raw,
    subnets::{Claim, no_such_family, overlaps, subnets},
};
use crate::model::{Family, InvalidValue, Mac, Name, Peer, Range};

/// Of a network's peers, in either form.
pub(super) fn validate(
    raw: &raw::Network,
    (plain, network): (&Plain<'_>, usize),
    field: &str,
    ranges: &[Range],
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Vec<Peer> {
    let mut checked = Checked {
        field,
        ranges,
        own_vtep,
        number: 0,
        names: HashMap::with_capacity(plain.len()),
        vteps: HashMap::with_capacity(plain.len()),
        macs: HashMap::with_capacity(plain.len()),
        claims: Vec::with_capacity(plain.len()),
        peers: Vec::with_capacity(plain.len()),
    };
    let place = raw.subnet.span().start;
    checked.claims.extend(ranges.iter().map(|range| Claim {
        subnet: range.subnet,
        place,
        owner: None,
    }));
    for raw in &raw.peers {
        checked.add(raw.get_ref(), report);
    }
    for raw in plain.of_network(network) {
        checked.add(&raw, report);
    }
    let Checked { claims, peers, .. } = checked;
    let describe = |owner: &Option<Owner>| match owner {
        None => ("this node".to_owned(), format!("{field}.subnet")),
        Some(Owner { peer, number }) => {
            let name = &peers[*peer].name;
            (
                format!("peer {name}"),
                format!("{field}.peers[{number}].subnet"),
            )
        }
    };
    overlaps(claims, describe, report);
    peers
}

/// A peer in the list, and its number in the file: some there may be too wrong for the list.
struct Owner {
    peer: usize,
    number: usize,
}

/// The peers so far. There can be very many: texts are made only for what is wrong.
struct Checked<'a> {
    field: &'a str,
    ranges: &'a [Range],
    own_vtep: Option<IpAddr>,
    number: usize,
    names: HashMap<Name, usize>,
    vteps: HashMap<IpAddr, usize>,
    /// With the field that the MAC comes from.
    macs: HashMap<Mac, (usize, &'static str)>,
    claims: Vec<Claim<Option<Owner>>>,
    peers: Vec<Peer>,
}

impl Checked<'_> {
    fn add(&mut self, raw: &raw::Peer, report: &mut Report<'_>) {
        let number = self.number;
        self.number += 1;
        let network = self.field;
        let field = |number: usize, key: &str| format!("{network}.peers[{number}].{key}");
        let Some(peer) = peer(raw, |key| field(number, key), self.own_vtep, report) else {
            return;
        };
        let mut duplicate = |what, value: &dyn ToString, span, key, first: String| {
            let value = value.to_string();
            let fault = Fault::Duplicate { what, value, first };
            report.add(span, field(number, key), fault);
        };
        if let Some(first) = first(&mut self.names, peer.name.clone(), number) {
            let first = field(first, "name");
            duplicate("peer name", &peer.name, raw.name.span(), "name", first);
        }
        if let Some(first) = first(&mut self.vteps, peer.vtep, number) {
            let first = field(first, "vtep");
            duplicate("VTEP", &peer.vtep, raw.vtep.span(), "vtep", first);
        }
        let (span, key) = match &raw.mac {
            Some(mac) => (mac.span(), "mac"),
            None => (raw.vtep.span(), "vtep"),
        };
        if let Some((first, of)) = first(&mut self.macs, peer.mac, (number, key)) {
            duplicate("VTEP MAC", &peer.mac, span, key, field(first, of));
        }
        for &subnet in &peer.subnets {
            if let Some(fault) = outside(subnet, self.ranges) {
                report.add(raw.subnet.span(), field(number, "subnet"), fault);
            }
            self.claims.push(Claim {
                subnet,
                place: raw.subnet.span().start,
                owner: Some(Owner {
                    peer: self.peers.len(),
                    number,
                }),
            });
        }
        self.peers.push(peer);
    }
}

/// What an equal key has had before; the first stays.
fn first<K: Eq + Hash, V: Copy>(seen: &mut HashMap<K, V>, key: K, value: V) -> Option<V> {
    match seen.entry(key) {
        Entry::Occupied(before) => Some(*before.get()),
        Entry::Vacant(free) => {
            free.insert(value);
            None
        }
    }
}

fn outside(subnet: IpNet, ranges: &[Range]) -> Option<Fault> {
    let family = Family::of(subnet.addr());
    match ranges.iter().find(|range| range.family() == family) {
        None => Some(no_such_family(&subnet, family)),
        Some(&Range { cidr, .. }) if !cidr.contains(&subnet) => {
            Some(Fault::Outside { subnet, cidr })
        }
        Some(_) => None,
    }
}

fn peer(
    raw: &raw::Peer,
    field: impl Fn(&str) -> String,
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<Peer> {
    let name = raw.name.get_ref().parse();
    let name = name.map_err(|error: InvalidValue| {
        report.add(raw.name.span(), field("name"), error.into());
    });
    let vtep = vtep(&raw.vtep, &field, own_vtep, report);
    let subnets = subnets(&raw.subnet, || field("subnet"), report);
    let mac = match &raw.mac {
        Some(mac) => report.value(mac, field("mac")),
        None => vtep.map(Mac::of_vtep),
    };
    let checksum = raw.udp6_checksum.as_ref();
    let udp6_checksum = checksum.is_some_and(|wanted| *wanted.get_ref());
    if let (Some(raw), Some(vtep)) = (checksum, vtep)
        && udp6_checksum
        && vtep.is_ipv4()
    {
        report.add(
            raw.span(),
            field("udp6_checksum"),
            Fault::ChecksumOverIpv4(vtep),
        );
    }
    Some(Peer {
        name: name.ok()?,
        vtep: vtep?,
        subnets,
        mac: mac?,
        udp6_checksum,
    })
}

fn vtep(
    raw: &Spanned<String>,
    field: impl Fn(&str) -> String,
    own_vtep: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let fault = match raw.get_ref().parse::<IpAddr>() {
        Err(_) => Fault::Address(raw.get_ref().clone()),
        Ok(address) if Some(address) == own_vtep => Fault::OwnVtep(address),
        Ok(address) if can_be_vtep(address) => return Some(address),
        Ok(address) => Fault::NotUnicast(address),
    };
    report.add(raw.span(), field("vtep"), fault);
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
