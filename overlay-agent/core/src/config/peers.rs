//! Peers of a network.

mod keys;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hash},
    net::IpAddr,
    ops,
};

// The standard one guards against keys that are chosen to collide. Whoever writes this file can
// do worse, and the guard takes time where there are very many.
use foldhash::fast::RandomState;
use ipnet::IpNet;
use toml::Spanned;

use super::{
    Report,
    error::Fault,
    plain,
    raw::{self, Written},
    subnets::{Claim, no_such_family, overlaps, subnets},
};
use crate::model::{Family, InvalidValue, Mac, Name, Peer, Range};

/// A network's peers in a text, in either form.
pub(super) struct List<'a> {
    pub(super) parsed: &'a [Spanned<raw::Peer>],
    pub(super) plain: &'a [plain::Peer<'a>],
    /// Where the node's own subnet is written.
    pub(super) subnet: usize,
    /// Whether tunnels to them are encrypted.
    pub(super) encrypted: bool,
    /// The name by which this node itself may be among them, and is left out.
    pub(super) left_out: Option<&'a str>,
}

/// This node, which none of its peers is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    /// Its name, where it is a fault that a peer has it.
    pub(super) name: Option<&'a str>,
    /// The outer addresses that the file gives it.
    pub(super) vteps: &'a [IpAddr],
}

impl<'a> List<'a> {
    fn get(&self, number: usize) -> Option<Written<'a>> {
        match number.checked_sub(self.parsed.len()) {
            None => Some(self.parsed.get(number)?.get_ref().written()),
            Some(number) => self.plain.get(number)?.written(),
        }
    }

    /// Where a key of a peer is written, or what it follows from.
    pub(super) fn span(&self, number: usize, key: &str) -> ops::Range<usize> {
        let span = |peer: Written<'_>| match (key, &peer.mac) {
            ("name", _) => peer.name.span(),
            ("subnet", _) => peer.subnet.span(),
            ("mac", Some(mac)) => mac.span(),
            ("public_key", _) => peer.public_key.map_or(0..0, |key| key.span()),
            ("next_public_key", _) => peer.next_public_key.map_or(0..0, |key| key.span()),
            _ => peer.vtep.span(),
        };
        self.get(number).map_or(0..0, span)
    }
}

/// The peers that are good so far, with their numbers; all that is wrong is reported.
pub(super) fn validate(
    list: &List<'_>,
    field: &str,
    ranges: &[Range],
    node: Own<'_>,
    report: &mut Report<'_>,
) -> (Vec<usize>, Vec<Peer>) {
    let plain = list.plain;
    let parsed = list.parsed.iter();
    let parsed = parsed.map(|raw| Some(raw.get_ref().written()));
    let written = parsed.chain(plain.iter().map(plain::Peer::written));
    let place = list.subnet;
    let own = |range: &Range| Claim {
        subnet: range.subnet,
        place,
        owner: None,
    };
    let mut checked = Checked {
        field,
        ranges,
        node,
        encrypted: list.encrypted,
        numbers: Vec::with_capacity(plain.len()),
        claims: ranges.iter().map(own).collect(),
        peers: Vec::with_capacity(plain.len()),
    };
    checked.claims.reserve(plain.len());
    for (number, written) in written.enumerate() {
        let others = written.filter(|peer| Some(*peer.name.get_ref()) != list.left_out);
        if let Some(written) = others {
            checked.add(number, &written, report);
        }
    }
    let again = |number: usize| list.get(number);
    let name = |peer: &Written<'_>| (peer.name.span(), "name");
    checked.unique("peer name", |peer| &peer.name, name, again, report);
    let vtep = |peer: &Written<'_>| (peer.vtep.span(), "vtep");
    checked.unique("VTEP", |peer| &peer.vtep, vtep, again, report);
    let mac = |peer: &Written<'_>| match &peer.mac {
        Some(mac) => (mac.span(), "mac"),
        None => vtep(peer),
    };
    checked.unique("VTEP MAC", |peer| &peer.mac, mac, again, report);
    checked.unique_keys(again, report);
    checked.around_vteps(again, report);
    checked.finish(report)
}

/// The peers so far. There can be very many: texts are made only for what is wrong.
struct Checked<'a> {
    field: &'a str,
    ranges: &'a [Range],
    node: Own<'a>,
    encrypted: bool,
    /// Their numbers in the file: some there may be too wrong for the list.
    numbers: Vec<usize>,
    claims: Vec<Claim<Option<usize>>>,
    peers: Vec<Peer>,
}

impl Checked<'_> {
    fn field(&self, number: usize, key: &str) -> String {
        format!("{}.peers[{number}].{key}", self.field)
    }

    fn add(&mut self, number: usize, written: &Written<'_>, report: &mut Report<'_>) {
        let field = |key: &str| self.field(number, key);
        let Some(peer) = peer(written, field, self.node, report) else {
            return;
        };
        if self.encrypted {
            self.check_encryption(number, written, &peer, report);
        }
        for &subnet in &peer.subnets {
            if let Some(fault) = outside(subnet, self.ranges) {
                report.add(written.subnet.span(), self.field(number, "subnet"), fault);
            }
            self.claims.push(Claim {
                subnet,
                place: written.subnet.span().start,
                owner: Some(self.peers.len()),
            });
        }
        self.numbers.push(number);
        self.peers.push(peer);
    }

    /// Reports what two peers have: a key, which stands at a `place` in a field of each.
    fn unique<'w, K: Hash + Eq + ToString>(
        &self,
        what: &'static str,
        key: impl Fn(&Peer) -> &K,
        place: impl Fn(&Written<'w>) -> (ops::Range<usize>, &'static str),
        written: impl Fn(usize) -> Option<Written<'w>>,
        report: &mut Report<'_>,
    ) {
        for [first, again] in repeated(&self.peers, &key) {
            let place = |peer: usize| {
                let number = self.numbers[peer];
                let (span, field) = place(&written(number)?);
                Some((span, self.field(number, field)))
            };
            if let (Some((_, first)), Some((span, field))) = (place(first), place(again)) {
                let value = key(&self.peers[again]).to_string();
                report.add(span, field, Fault::Duplicate { what, value, first });
            }
        }
    }

    /// Reports VTEPs, this node's too, that are behind a tunnel themselves.
    fn around_vteps<'w>(
        &self,
        written: impl Fn(usize) -> Option<Written<'w>>,
        report: &mut Report<'_>,
    ) {
        let in_network = |vtep: &IpAddr| self.ranges.iter().any(|range| range.cidr.contains(vtep));
        let peers = self.peers.iter().zip(0..);
        let peers = peers.map(|(peer, number)| (peer.vtep, Some(number)));
        let own = self.node.vteps.iter().map(|vtep| (*vtep, None));
        let mut inside = peers
            .chain(own)
            .filter(|(vtep, _)| in_network(vtep))
            .peekable();
        // Nobody's, as a rule.
        if inside.peek().is_none() {
            return;
        }
        // None overlaps another, or that is reported.
        let claims: BTreeMap<IpAddr, &Claim<Option<usize>>> = self
            .claims
            .iter()
            .map(|claim| (claim.subnet.network(), claim))
            .collect();
        for (vtep, peer) in inside {
            let Some((_, claim)) = claims.range(..=vtep).next_back() else {
                continue;
            };
            // What both have of this node's own, addresses alone do not tell: routes decide.
            let Some(at) = peer
                .or(claim.owner)
                .filter(|_| claim.subnet.contains(&vtep))
            else {
                continue;
            };
            let key = if peer.is_some() { "vtep" } else { "subnet" };
            let number = self.numbers[at];
            let Some(written) = written(number) else {
                continue;
            };
            let span = match peer {
                Some(_) => written.vtep.span(),
                None => written.subnet.span(),
            };
            let owner = claim.owner.map(|owner| &self.peers[owner].name);
            let fault = Fault::AroundVtep {
                subnet: claim.subnet,
                owner: owner_text(owner),
                vtep,
            };
            report.add(span, self.field(number, key), fault);
        }
    }

    /// Reports subnets that overlap.
    fn finish(mut self, report: &mut Report<'_>) -> (Vec<usize>, Vec<Peer>) {
        let claims = std::mem::take(&mut self.claims);
        let describe = |owner: &Option<usize>| match *owner {
            None => (owner_text(None), format!("{}.subnet", self.field)),
            Some(peer) => {
                let field = self.field(self.numbers[peer], "subnet");
                (owner_text(Some(&self.peers[peer].name)), field)
            }
        };
        overlaps(claims, describe, report);
        (self.numbers, self.peers)
    }
}

fn owner_text(peer: Option<&Name>) -> String {
    peer.map_or_else(|| "this node".to_owned(), |peer| format!("peer {peer}"))
}

/// The places of equal keys: the first one's, and that of each that follows.
///
/// Sorting hashes goes through the memory in order, as a table of very many does not.
fn repeated<T, K: Hash + Eq>(values: &[T], key: impl Fn(&T) -> &K) -> Vec<[usize; 2]> {
    let state = RandomState::default();
    let mut hashes: Vec<(u64, usize)> = values
        .iter()
        .map(|value| state.hash_one(key(value)))
        .zip(0..)
        .collect();
    hashes.sort_unstable();
    let mut found = Vec::new();
    for same in hashes.chunk_by(|(one, _), (other, _)| one == other) {
        for (after, &(_, again)) in same.iter().enumerate().skip(1) {
            let equal =
                |&&(_, earlier): &&(u64, usize)| key(&values[earlier]) == key(&values[again]);
            if let Some(&(_, first)) = same[..after].iter().find(equal) {
                found.push([first, again]);
            }
        }
    }
    found
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
    raw: &Written<'_>,
    field: impl Fn(&str) -> String,
    node: Own<'_>,
    report: &mut Report<'_>,
) -> Option<Peer> {
    let name = raw.name.get_ref();
    if node.name == Some(*name) {
        // All else that is wrong with it follows from that: a file was copied from node to node.
        let fault = Fault::OwnName((*name).to_owned());
        report.add(raw.name.span(), field("name"), fault);
        return None;
    }
    let name = name.parse().map_err(|error: InvalidValue| {
        report.add(raw.name.span(), field("name"), error.into());
    });
    let vtep = vtep(&raw.vtep, &field, node.vteps, report);
    let texts = raw.subnet.get_ref();
    let subnets = subnets(texts, &raw.subnet.span(), || field("subnet"), report);
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
    let [public_key, next_public_key] = keys::read(raw, &field, report)?;
    Some(Peer {
        name: name.ok()?,
        vtep: vtep?,
        subnets,
        mac: mac?,
        udp6_checksum,
        // Nodes of ours have their MAC by rule.
        has_agent: raw.mac.is_none(),
        public_key,
        next_public_key,
    })
}

fn vtep(
    raw: &Spanned<&str>,
    field: impl Fn(&str) -> String,
    own_vteps: &[IpAddr],
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let fault = match raw.get_ref().parse::<IpAddr>() {
        Err(_) => Fault::Vtep((*raw.get_ref()).to_owned()),
        Ok(address) if own_vteps.contains(&address) => Fault::OwnVtep(address),
        Ok(address) if can_be_vtep(address) => return Some(address),
        Ok(address) => Fault::NotUnicast {
            address,
            whose: "the peer's",
        },
    };
    report.add(raw.span(), field("vtep"), fault);
    None
}

/// Whether packets can be sent to an address without saying through which device.
pub(crate) fn can_be_vtep(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
        }
    };
    !special && !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}
