//! The fragment for the agent: a network with its peers, as a configuration has them.
//!
//! Each peer has the lease that it follows from beside it, in a comment, so that the file is all
//! that has to be remembered.

use std::{borrow::Cow, collections::HashSet, fmt::Write as _, net::Ipv4Addr, time::Duration};

use crate::{book::Node, lease::Lease, network::Network, subnet::Subnet};

/// Begins the line that a lease is remembered in.
pub(crate) const LEASE: &str = "# lease ";

/// Begins the line that says of which store, and of when.
const STORE: &str = "# store ";

/// Behind a lease that is in doubt: how long it is kept.
const DOUBTED: &str = "(not in the store any more, kept for ";

/// Suffix of the name of a node's IPv6 side.
const SECOND: &str = "-v6";

/// Longest name that the agent takes, in bytes.
const MAX_NAME: usize = 63;

/// How each fragment begins.
const WRITTEN: &str = "# Written by overlay-agent from the cluster's store";

/// Whether a file's content is a fragment, or the part of one that was written; what is not is somebody
/// else's.
pub fn is_ours(text: &[u8]) -> bool {
    // Of which store it is may stand above.
    [WRITTEN, STORE]
        .map(str::as_bytes)
        .iter()
        .any(|head| text.starts_with(head) || head.starts_with(text))
}

/// The text of the network of this node with its peers.
pub fn write(name: &str, network: &Network, own: Subnet, nodes: &[Node<'_>]) -> String {
    let mut text = head(name, network, own);
    for (node, name) in nodes.iter().zip(names(nodes)) {
        text.push_str(&of_node(network, node, &name));
    }
    text
}

/// The part before all peers.
pub fn head(name: &str, network: &Network, own: Subnet) -> String {
    let mut text = format!("{WRITTEN}; changes here are lost.\n\n");
    // A `String` takes everything.
    let _ = header(&mut text, name, network, own);
    text
}

/// The part of a node that is called so.
pub fn of_node(network: &Network, node: &Node<'_>, name: &str) -> String {
    let mut text = String::new();
    let _ = peers(&mut text, network, node, name);
    text
}

fn header(text: &mut String, name: &str, network: &Network, own: Subnet) -> std::fmt::Result {
    writeln!(
        text,
        "[[networks]]\nname = \"{name}\"\nvni = {}",
        network.vni
    )?;
    writeln!(text, "port = {}", network.port)?;
    if let Some(mtu) = network.mtu {
        writeln!(text, "mtu = {mtu}")?;
    }
    let v6 = network
        .v6
        .map(|v6| format!(", \"{}\"", v6.network))
        .unwrap_or_default();
    writeln!(text, "cidr = [\"{}\"{v6}]", network.v4.network)?;
    let v6 = own.v6.map(|v6| format!(", \"{v6}\"")).unwrap_or_default();
    writeln!(text, "subnet = [\"{}\"{v6}]", own.v4)
}

/// One node is up to two peers: flannel carries each family inside its own.
fn peers(text: &mut String, network: &Network, node: &Node<'_>, name: &str) -> std::fmt::Result {
    let lease = node.lease;
    let doubt = match node.doubted {
        Some(kept) => format!(" {DOUBTED}{} s)", kept.as_secs()),
        None => String::new(),
    };
    // The one character that JSON holds as it is, and a comment of TOML does not.
    let value = lease.write().replace('\u{7f}', "\\u007f");
    writeln!(text, "\n{LEASE}{} {value}{doubt}", node.subnet)?;
    writeln!(
        text,
        "[[networks.peers]]\nname = \"{name}\"\nvtep = \"{}\"",
        lease.public_v4
    )?;
    // What is encrypted goes over IPv4, whatever is inside: no device of flannel's is to understand it.
    let inside = node.subnet.v6.filter(|_| network.encrypted);
    match inside {
        Some(v6) => writeln!(text, "subnet = [\"{}\", \"{v6}\"]", node.subnet.v4)?,
        None => writeln!(text, "subnet = \"{}\"", node.subnet.v4)?,
    }
    writeln!(text, "mac = \"{}\"", lease.v4.mac)?;
    let keys = lease.overlay.as_ref().map(|overlay| &overlay.keys);
    if let Some(key) = keys.and_then(|keys| keys.public_key.as_ref()) {
        writeln!(text, "public_key = \"{key}\"")?;
    }
    if let Some(key) = keys.and_then(|keys| keys.next_public_key.as_ref()) {
        writeln!(text, "next_public_key = \"{key}\"")?;
    }
    let v6 = network
        .v6
        .filter(|_| !network.encrypted)
        .and(lease.public_v6)
        .zip(lease.v6.as_ref())
        .zip(node.subnet.v6);
    if let Some(((vtep, device), subnet)) = v6 {
        let of_ours = lease.node().is_some();
        writeln!(
            text,
            "\n[[networks.peers]]\nname = \"{name}{SECOND}\"\nvtep = \"{vtep}\""
        )?;
        writeln!(text, "subnet = \"{subnet}\"\nmac = \"{}\"", device.mac)?;
        if !of_ours {
            // flannel's device towards IPv6 drops what has none.
            writeln!(text, "udp6_checksum = true")?;
        }
    }
    Ok(())
}

/// Names of nodes: for each the name that it gives itself, if that is one and nobody's before
/// it; else by its address.
pub fn names<'a>(nodes: &[Node<'a>]) -> Vec<Cow<'a, str>> {
    let mut names: HashSet<&str> = HashSet::with_capacity(nodes.len());
    let name = |node: &Node<'a>| -> Cow<'a, str> {
        let given = given_name(node.lease);
        match given.filter(|name| is_free(name, |other| names.contains(other))) {
            Some(name) => {
                names.insert(name);
                name.into()
            }
            None => node.lease.public_v4.to_string().into(),
        }
    };
    nodes.iter().map(name).collect()
}

/// The name that a node gives itself, if it is one.
pub(crate) fn given_name(lease: &Lease) -> Option<&str> {
    lease.node().filter(|name| is_name(name))
}

/// Whether a node may have a name beside those that others have: each has a second one for its IPv6
/// side.
pub(crate) fn is_free(name: &str, is_taken: impl Fn(&str) -> bool) -> bool {
    let first = name.strip_suffix(SECOND);
    !is_taken(name)
        && !is_taken(&format!("{name}{SECOND}"))
        && first.is_none_or(|first| !is_taken(first))
}

/// Whether a node may be called so.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() + SECOND.len() <= MAX_NAME
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        // That is what another node is called that has no name.
        && name
            .strip_suffix(SECOND)
            .unwrap_or(name)
            .parse::<Ipv4Addr>()
            .is_err()
}

/// The text, with the store that it follows from: its number and its revision.
pub fn of_store(text: &str, store: (u64, i64)) -> String {
    line_of(store) + text
}

/// The line that says so.
pub(crate) fn line_of((cluster, revision): (u64, i64)) -> String {
    format!("{STORE}{cluster:x} {revision}\n")
}

/// The store that a text follows from, if it says so.
pub fn store(text: &str) -> Option<(u64, i64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(STORE))?;
    let (cluster, revision) = line.split_once(' ')?;
    Some((
        u64::from_str_radix(cluster, 16).ok()?,
        revision.parse().ok()?,
    ))
}

/// The leases that a text remembers, with how long those are kept that were in doubt; lines that
/// are none are left out.
pub fn read(text: &str) -> Vec<(Subnet, Lease, Option<Duration>)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(LEASE));
    lines
        .filter_map(|line| {
            let (subnet, rest) = line.split_once(' ')?;
            let (value, doubt) = rest.split_at(rest.rfind('}')? + 1);
            let lease = Lease::read(value.as_bytes()).ok()?;
            let kept = doubt.trim_start().strip_prefix(DOUBTED);
            let kept = kept.and_then(|kept| kept.strip_suffix(" s)")?.parse().ok());
            Some((subnet.parse().ok()?, lease, kept.map(Duration::from_secs)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{of_store, read, store, write};
    use crate::{
        book::{Book, Continuity, Entry, RESTORED},
        lease::Lease,
        network::Network,
    };

    #[test]
    fn doubts_and_the_store_outlast_the_program() {
        let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
        let network = Network::read(network.as_bytes()).unwrap();
        let entry = |number: u8| {
            Entry {
            key: format!("10.5.{number}.0-24"),
            value: format!(
                r#"{{"PublicIP":"192.0.2.{number}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:4f:c0:00:02:{number:02x}"}}}}"#
            )
            .into_bytes(),
            create_revision: 1,
            mod_revision: 1,
            lease: 1,
        }
        };
        let mut book = Book::default();
        let start = Duration::from_secs(1_000);
        book.listed(&[entry(1), entry(2)], Continuity::Kept, start);
        // Another store, without the first one.
        book.listed(&[entry(2)], Continuity::Broken, start);
        let own = Lease::read(&entry(9).value).unwrap();
        let text = |book: &Book| {
            let (peers, _) = book.peers(&network, None, &own);
            let text = write("lab", &network, entry(9).key.parse().unwrap(), &peers);
            of_store(&text, (u64::MAX, 7))
        };
        let written = text(&book);
        assert_eq!(store(&written), Some((u64::MAX, 7)));
        // Started again long after, with a clock that began anew.
        let start = Duration::from_secs(5);
        let mut book = Book::remembering(read(&written), start);
        assert_eq!(text(&book), written);
        let almost = start + Duration::from_secs(RESTORED.as_secs() - 1);
        book.listed(&[entry(2)], Continuity::Kept, almost);
        assert_eq!(text(&book), written);
        book.listed(&[entry(2)], Continuity::Kept, start + RESTORED);
        assert!(!text(&book).contains("10.5.1.0"));
    }
}
