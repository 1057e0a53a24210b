//! What the agent is handed: a network with its peers, as a configuration has them.
//!
//! Each peer has the lease that it follows from beside it, in a comment, so that the file is all
//! that has to be remembered.

use std::{collections::BTreeSet, fmt::Write as _, net::Ipv4Addr};

use crate::{book::Node, lease::Lease, network::Network, subnet::Subnet};

/// Begins the line that a lease is remembered in.
const LEASE: &str = "# lease ";

/// Longest name that the agent takes, in bytes.
const MAX_NAME: usize = 63;

/// The text of the network of this node with its peers.
pub fn write(name: &str, network: &Network, own: Subnet, nodes: &[Node<'_>]) -> String {
    let mut text = String::from(
        "# Written by overlay-agent from the cluster's store; changes here are lost.\n\n",
    );
    // A `String` takes everything.
    let _ = header(&mut text, name, network, own);
    let mut names = BTreeSet::new();
    for node in nodes {
        let _ = peers(&mut text, network, node, &mut names);
    }
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
fn peers(
    text: &mut String,
    network: &Network,
    node: &Node<'_>,
    names: &mut BTreeSet<String>,
) -> std::fmt::Result {
    let lease = node.lease;
    let doubt = if node.doubtful {
        " (not in the store any more)"
    } else {
        ""
    };
    let name = name(lease, names);
    // The one character that JSON holds as it is, and a comment of TOML does not.
    let value = lease.write().replace('\u{7f}', "\\u007f");
    writeln!(text, "\n{LEASE}{} {value}{doubt}", node.subnet)?;
    writeln!(
        text,
        "[[networks.peers]]\nname = \"{name}\"\nvtep = \"{}\"",
        lease.public_v4
    )?;
    writeln!(
        text,
        "subnet = \"{}\"\nmac = \"{}\"",
        node.subnet.v4, lease.v4.mac
    )?;
    let v6 = network
        .v6
        .and(lease.public_v6)
        .zip(lease.v6.as_ref())
        .zip(node.subnet.v6);
    if let Some(((vtep, device), subnet)) = v6 {
        let of_ours = lease.node().is_some();
        writeln!(
            text,
            "\n[[networks.peers]]\nname = \"{name}-v6\"\nvtep = \"{vtep}\""
        )?;
        writeln!(text, "subnet = \"{subnet}\"\nmac = \"{}\"", device.mac)?;
        if !of_ours {
            // flannel's device towards IPv6 drops what has none.
            writeln!(text, "udp6_checksum = true")?;
        }
    }
    Ok(())
}

/// The name that a node gives itself, if it is one and nobody else's; else its address.
fn name(lease: &Lease, names: &mut BTreeSet<String>) -> String {
    let is_name = |name: &&str| {
        let mut bytes = name.bytes();
        name.len() + "-v6".len() <= MAX_NAME
            && bytes
                .next()
                .is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            // That is what another node is called that has no name.
            && name.strip_suffix("-v6").unwrap_or(name).parse::<Ipv4Addr>().is_err()
    };
    let given = lease.node().filter(is_name).map(str::to_owned);
    let name = given
        .filter(|name| !names.contains(name) && !names.contains(&format!("{name}-v6")))
        .unwrap_or_else(|| lease.public_v4.to_string());
    names.extend([name.clone(), format!("{name}-v6")]);
    name
}

/// The leases that a text remembers; lines that are none are left out.
pub fn read(text: &str) -> Vec<(Subnet, Lease)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(LEASE));
    lines
        .filter_map(|line| {
            let (subnet, rest) = line.split_once(' ')?;
            let end = rest.rfind('}')? + 1;
            let lease = Lease::read(rest.get(..end)?.as_bytes()).ok()?;
            Some((subnet.parse().ok()?, lease))
        })
        .collect()
}
