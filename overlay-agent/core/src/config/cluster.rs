//! `[cluster]`: a network that a cluster's store defines, and the fragment that it hands over.

use std::{
    net::IpAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Fault, Faults, Report, networks,
    peers::Own,
    plain::Plain,
    raw,
    subnets::{Claim, overlaps, subnets},
};
use crate::model::{Cluster, ClusterAccess, Family, Mac, Name, Network, Peer, WireGuard};

/// Where flannel has its keys unless it is told otherwise.
const PREFIX: &str = "/coreos.com/network";

/// The section of the configuration file.
pub(super) fn section(raw: &raw::Cluster, report: &mut Report<'_>) -> Option<Cluster> {
    const ETCD: &str = "cluster.etcd";
    let network = report.value(&raw.network, "cluster.network");
    let etcd = raw.etcd.get_ref().as_slice();
    if etcd.is_empty() {
        let fault = Fault::Number {
            what: "etcd",
            takes: "at least one member",
            given: 0,
            cure: "write it as \"http://192.0.2.1:2379\"",
        };
        report.add(raw.etcd.span(), ETCD, fault);
    }
    for url in etcd.iter().filter(|url| !is_member(url)) {
        report.add(raw.etcd.span(), ETCD, Fault::Member(url.clone()));
    }
    let prefix = match &raw.prefix {
        None => PREFIX.to_owned(),
        Some(prefix) => {
            let text = prefix.get_ref();
            let good = text.starts_with('/') && text.len() > 1 && !text.ends_with('/');
            if !good || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                report.add(
                    prefix.span(),
                    "cluster.prefix",
                    Fault::StorePrefix(text.clone()),
                );
            }
            text.clone()
        }
    };
    let subnet = raw.subnet.as_ref().map(|raw| {
        let texts = raw.get_ref().as_slice();
        subnets(texts, &raw.span(), || "cluster.subnet".to_owned(), report)
    });
    Some(Cluster {
        access: access(raw, report),
        etcd: etcd.to_vec(),
        prefix,
        network: network?,
        subnet: subnet.unwrap_or_default(),
        masquerade: raw.masquerade,
        fastpath: raw.fastpath,
        wireguard: networks::wireguard(raw.encrypted(), "cluster", report),
        subnet_env: raw.subnet_env.clone(),
    })
}

/// Credentials for the store's members.
fn access(raw: &raw::Cluster, report: &mut Report<'_>) -> ClusterAccess {
    let files = [
        ("cluster.ca", &raw.ca),
        ("cluster.cert", &raw.cert),
        ("cluster.key", &raw.key),
        ("cluster.password_file", &raw.password_file),
    ];
    for (field, file) in files {
        if let Some(file) = file.as_ref().filter(|file| !file.get_ref().is_absolute()) {
            let fault = Fault::NotWhole(file.get_ref().clone());
            report.add(file.span(), field, fault);
        }
    }
    let pairs = [
        (
            "cert",
            span(raw.cert.as_ref()),
            "key",
            span(raw.key.as_ref()),
        ),
        (
            "user",
            span(raw.user.as_ref()),
            "password_file",
            span(raw.password_file.as_ref()),
        ),
    ];
    for (one, at_one, other, at_other) in pairs {
        let (at, given, lacking) = match (at_one, at_other) {
            (Some(at), None) => (at, one, other),
            (None, Some(at)) => (at, other, one),
            _ => continue,
        };
        report.add(
            at,
            format!("cluster.{given}"),
            Fault::Half { given, lacking },
        );
    }
    let has_tls = |url: &String| url.starts_with("https://");
    let members = raw.etcd.get_ref().as_slice();
    if members.iter().any(has_tls) && raw.ca.is_none() {
        report.add(raw.etcd.span(), "cluster.etcd", Fault::NoCa);
    }
    if !members.iter().any(has_tls) {
        for (field, at) in [
            ("cluster.ca", span(raw.ca.as_ref())),
            ("cluster.cert", span(raw.cert.as_ref())),
        ] {
            if let Some(at) = at {
                report.add(at, field, Fault::NoTls(field));
            }
        }
    }
    let user = raw.user.as_ref().map(|user| user.get_ref().clone());
    ClusterAccess {
        ca: file(raw.ca.as_ref()),
        identity: file(raw.cert.as_ref()).zip(file(raw.key.as_ref())),
        user: user.zip(file(raw.password_file.as_ref())),
    }
}

fn span<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
    value.map(Spanned::span)
}

fn file(value: Option<&Spanned<PathBuf>>) -> Option<PathBuf> {
    value.map(|file| file.get_ref().clone())
}

/// Whether a text is the URL of a member.
fn is_member(url: &str) -> bool {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .map(|rest| rest.trim_end_matches('/'));
    host.is_some_and(|host| {
        let special = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
        !host.is_empty() && !host.contains(special)
    })
}

/// The helper's fragment, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    networks: Vec<Spanned<raw::Network>>,
}

/// The network of a fragment, if it can stand beside those of the file: nothing is believed that
/// the file would not be.
pub(super) fn network(
    (path, text): (&Path, &str),
    cluster: &Cluster,
    others: &[Network],
    own_vteps: &[IpAddr],
) -> Result<Network, Faults> {
    let plain = Plain::of(text);
    let mut report = Report {
        plain: &plain,
        faults: Vec::new(),
    };
    // There nodes give themselves their names.
    let node = Own {
        name: None,
        vteps: own_vteps,
    };
    let network = match toml::from_str::<Raw>(&plain.rest) {
        Ok(raw) => {
            let mut networks = networks::validate(&raw.networks, &plain, node, &mut report);
            let network = networks.pop();
            if let [raw] = raw.networks.as_slice() {
                beside(raw, cluster, others, &mut report);
            } else {
                let fault = Fault::Number {
                    what: "the cluster's fragment",
                    takes: "one network",
                    given: raw.networks.len(),
                    cure: "remove the file; it is written again",
                };
                report.add(0..0, "networks", fault);
            }
            network
        }
        Err(error) => {
            report.syntax(&error);
            None
        }
    };
    let mut faults = report.faults;
    match network {
        Some(network) if faults.is_empty() => Ok(of_cluster(network, cluster)),
        _ => {
            faults.sort_by_key(|fault| fault.line);
            let path = path.to_owned();
            Err(Faults { path, faults })
        }
    }
}

/// A network as this node has it: what the store does not say, the configuration does.
fn of_cluster(network: Network, cluster: &Cluster) -> Network {
    let overhead = cluster
        .wireguard
        .map_or(0, |_| WireGuard::overhead(Family::V4));
    let overhead = u16::try_from(overhead).unwrap_or(u16::MAX);
    let peers = network.peers.iter().cloned().map(of_store);
    let peers = peers.filter(|peer| cluster.wireguard.is_none() || can_encrypt(peer));
    Network {
        peers: peers.collect::<Vec<_>>().into(),
        mtu: network.mtu.map(|mtu| mtu.saturating_sub(overhead)),
        masquerade: cluster.masquerade,
        fastpath: cluster.fastpath,
        wireguard: cluster.wireguard,
        ..network
    }
}

/// Whether tunnels to a peer can be encrypted. The helper leaves out all others, and says so; what it told before
/// that was asked for may have some.
fn can_encrypt(peer: &Peer) -> bool {
    peer.public_key.is_some() && peer.vtep.is_ipv4()
}

/// A peer of a store, which says everybody's MAC: nodes of ours are those that have it by rule.
pub(super) fn of_store(peer: Peer) -> Peer {
    Peer {
        has_agent: peer.mac == Mac::of_vtep(peer.vtep),
        ..peer
    }
}

/// Reports what the file's networks have already.
fn beside(
    raw: &Spanned<raw::Network>,
    cluster: &Cluster,
    others: &[Network],
    report: &mut Report<'_>,
) {
    let raw = raw.get_ref();
    if raw.name.get_ref() != cluster.network.as_str() {
        let fault = Fault::NoSuchNetwork(raw.name.get_ref().clone());
        report.add(raw.name.span(), "networks[0].name", fault);
    }
    ports(raw, cluster, others, report);
    for other in others {
        let first = format!("network {} of the configuration file", other.name);
        if other.vni.get() == *raw.vni.get_ref() {
            let value = other.vni.to_string();
            let what = "VNI";
            let fault = Fault::Duplicate { what, value, first };
            report.add(raw.vni.span(), "networks[0].vni", fault);
        }
    }
    let place = raw.cidr.span().start;
    let texts = raw.cidr.get_ref().as_slice();
    let own = texts.iter().filter_map(|text| text.parse().ok());
    let own = own.map(|subnet| (subnet, place, None));
    let theirs = others.iter().flat_map(|other| {
        let ranges = other.ranges.iter();
        ranges.map(move |range| (range.cidr, 0, Some(other.name.clone())))
    });
    let claims = own.chain(theirs).map(|(subnet, place, owner)| Claim {
        subnet,
        place,
        owner,
    });
    let describe = |owner: &Option<Name>| {
        let name = owner.as_ref();
        let name = name.map_or("the cluster".to_owned(), |name| format!("network {name}"));
        (name, "networks[0].cidr".to_owned())
    };
    overlaps(claims.collect(), describe, report);
}

/// Reports ports of `WireGuard` that somebody else has.
fn ports(raw: &raw::Network, cluster: &Cluster, others: &[Network], report: &mut Report<'_>) {
    let Some(wireguard) = cluster.wireguard else {
        return;
    };
    let tunnel = raw.port.as_ref().map(|port| *port.get_ref());
    for (key, port) in [
        ("wireguard_port", wireguard.port),
        ("wireguard_next_port", wireguard.next_port),
    ] {
        let own = (tunnel == Some(port)).then(|| "is that of the cluster's tunnels".to_owned());
        let other = others.iter().find_map(|other| {
            let of_wireguard = other.wireguard.is_some_and(|other| other.port == port);
            (other.port == port || of_wireguard)
                .then(|| format!("is that of network {}", other.name))
        });
        if let Some(what) = own.or(other) {
            let fault = Fault::WireGuardPort { port, what, key };
            report.add(raw.name.span(), format!("cluster.{key}"), fault);
        }
    }
}
