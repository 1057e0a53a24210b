//! A model as a configuration file, with every default written out.

use std::fmt::{self, Write as _};

use crate::model::{
    Cluster, ClusterAccess, Dscp, Endpoint, FastPath, Guard, Mac, Metrics, Model, NetnsRef,
    Network, Peer, Rx, Security, Underlay, Verdict, WireGuard,
};

/// The file that leads to a model: whoever loads it gets the same one.
pub fn text(model: &Model) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let written = write_all(&mut out, model);
    debug_assert_eq!(written, Ok(()));
    out
}

fn write_all(out: &mut String, model: &Model) -> fmt::Result {
    let node = &model.node;
    writeln!(out, "[node]")?;
    writeln!(out, "name = {}", quoted(&node.name))?;
    let underlay = match &node.underlay {
        Underlay::Interfaces(names) => list(names),
        Underlay::Address(address) => quoted(address),
    };
    writeln!(out, "underlay = {underlay}")?;
    if !node.vteps.is_empty() {
        writeln!(out, "vtep = {}", list(&node.vteps))?;
    }
    let guard = match node.guard {
        Guard::Off => "off",
        Guard::Native => "native",
        Guard::Generic => "generic",
    };
    writeln!(out, "guard = {}", quoted(guard))?;
    let rx = match node.rx {
        Rx::Tc => "tc",
        Rx::Xdp => "xdp",
    };
    writeln!(out, "rx = {}", quoted(rx))?;
    match (node.metrics, node.metrics.address()) {
        // To write it out would make a problem of an address that somebody else has.
        (Metrics::Usual, Some(address)) => {
            writeln!(out, "# metrics = {}, where that is free", quoted(address))?;
        }
        (_, Some(address)) => writeln!(out, "metrics = {}", quoted(address))?,
        (_, None) => writeln!(out, "metrics = \"off\"")?,
    }
    writeln!(out, "probe = {}", quoted(String::from(node.probe)))?;
    if let Some(names) = &node.names {
        writeln!(out, "\n[names]")?;
        writeln!(out, "zone = {}", quoted(&names.zone))?;
        if !names.forward.is_empty() {
            writeln!(out, "forward = {}", list(&names.forward))?;
        }
    }
    let cluster = model.cluster.as_ref();
    if let Some(cluster) = cluster {
        write_cluster(out, cluster)?;
    }
    // What the cluster defines is no part of the file.
    let of_cluster = |network: &&Network| cluster.is_some_and(|it| it.network == network.name);
    for network in model.networks.iter().filter(|it| !of_cluster(it)) {
        write_network(out, network)?;
    }
    for endpoint in &model.endpoints {
        write_endpoint(out, endpoint)?;
    }
    Ok(())
}

fn write_network(out: &mut String, network: &Network) -> fmt::Result {
    writeln!(out, "\n[[networks]]")?;
    writeln!(out, "name = {}", quoted(&network.name))?;
    writeln!(out, "vni = {}", network.vni)?;
    writeln!(out, "port = {}", network.port)?;
    let cidrs: Vec<_> = network.ranges.iter().map(|range| range.cidr).collect();
    writeln!(out, "cidr = {}", list(&cidrs))?;
    let subnets: Vec<_> = network.ranges.iter().map(|range| range.subnet).collect();
    writeln!(out, "subnet = {}", list(&subnets))?;
    match network.mtu {
        Some(mtu) => writeln!(out, "mtu = {mtu}")?,
        None => writeln!(out, "mtu = \"auto\"")?,
    }
    writeln!(out, "fastpath = {}", fastpath(network.fastpath))?;
    writeln!(out, "masquerade = {}", network.masquerade)?;
    let dscp = match network.dscp {
        Dscp::Zero => "zero",
        Dscp::Copy => "copy",
    };
    writeln!(out, "dscp = {}", quoted(dscp))?;
    write_encryption(out, network.wireguard)?;
    write_security(out, network.security)?;
    network
        .peers
        .iter()
        .try_for_each(|peer| write_peer(out, peer))
}

fn write_encryption(out: &mut String, wireguard: Option<WireGuard>) -> fmt::Result {
    let Some(WireGuard { port, next_port }) = wireguard else {
        return writeln!(out, "encryption = \"off\"");
    };
    writeln!(out, "encryption = \"wireguard\"")?;
    writeln!(out, "wireguard_port = {port}")?;
    writeln!(out, "wireguard_next_port = {next_port}")
}

fn write_cluster(out: &mut String, cluster: &Cluster) -> fmt::Result {
    writeln!(out, "\n[cluster]")?;
    writeln!(out, "etcd = {}", list(&cluster.etcd))?;
    let ClusterAccess { ca, identity, user } = &cluster.access;
    if let Some(ca) = ca {
        writeln!(out, "ca = {}", quoted(ca.display()))?;
    }
    if let Some((cert, key)) = identity {
        writeln!(out, "cert = {}", quoted(cert.display()))?;
        writeln!(out, "key = {}", quoted(key.display()))?;
    }
    if let Some((user, password_file)) = user {
        writeln!(out, "user = {}", quoted(user))?;
        writeln!(out, "password_file = {}", quoted(password_file.display()))?;
    }
    writeln!(out, "prefix = {}", quoted(&cluster.prefix))?;
    writeln!(out, "network = {}", quoted(&cluster.network))?;
    if !cluster.subnet.is_empty() {
        writeln!(out, "subnet = {}", list(&cluster.subnet))?;
    }
    writeln!(out, "masquerade = {}", cluster.masquerade)?;
    writeln!(out, "fastpath = {}", fastpath(cluster.fastpath))?;
    write_encryption(out, cluster.wireguard)?;
    if let Some(path) = &cluster.subnet_env {
        writeln!(out, "subnet_env = {}", quoted(path.display()))?;
    }
    Ok(())
}

fn fastpath(fastpath: FastPath) -> String {
    quoted(match fastpath {
        FastPath::Auto => "auto",
        FastPath::Required => "required",
        FastPath::Off => "off",
    })
}

fn write_security(out: &mut String, security: Security) -> fmt::Result {
    let Security {
        unknown_vtep,
        inner_source,
        endpoint_source,
        other_networks,
        in_the_clear,
        martians,
        malformed,
    } = security;
    writeln!(out, "\n[networks.security]")?;
    for (rule, verdict) in [
        ("unknown_vtep", unknown_vtep),
        ("inner_source", inner_source),
        ("endpoint_source", endpoint_source),
        ("other_networks", other_networks),
        ("in_the_clear", in_the_clear),
        ("martians", martians),
        ("malformed", malformed),
    ] {
        let verdict = match verdict {
            Verdict::Drop => "drop",
            Verdict::Accept => "accept",
        };
        writeln!(out, "{rule} = {}", quoted(verdict))?;
    }
    Ok(())
}

fn write_peer(out: &mut String, peer: &Peer) -> fmt::Result {
    writeln!(out, "\n[[networks.peers]]")?;
    writeln!(out, "name = {}", quoted(&peer.name))?;
    writeln!(out, "vtep = {}", quoted(peer.vtep))?;
    writeln!(out, "subnet = {}", list(&peer.subnets))?;
    if !peer.has_agent || peer.mac != Mac::of_vtep(peer.vtep) {
        writeln!(out, "mac = {}", quoted(peer.mac))?;
    }
    if peer.vtep.is_ipv6() || peer.udp6_checksum {
        writeln!(out, "udp6_checksum = {}", peer.udp6_checksum)?;
    }
    if let Some(key) = &peer.public_key {
        writeln!(out, "public_key = {}", quoted(key))?;
    }
    if let Some(key) = &peer.next_public_key {
        writeln!(out, "next_public_key = {}", quoted(key))?;
    }
    Ok(())
}

fn write_endpoint(out: &mut String, endpoint: &Endpoint) -> fmt::Result {
    writeln!(out, "\n[[endpoints]]")?;
    writeln!(out, "name = {}", quoted(&endpoint.name))?;
    writeln!(out, "network = {}", quoted(&endpoint.network))?;
    match &endpoint.netns {
        NetnsRef::Name(name) => writeln!(out, "netns = {}", quoted(name))?,
        NetnsRef::Path(path) => writeln!(out, "netns = {}", quoted(path.display()))?,
        NetnsRef::Pid(pid) => writeln!(out, "pid = {pid}")?,
    }
    if !endpoint.addresses.is_empty() {
        writeln!(out, "address = {}", list(&endpoint.addresses))?;
    }
    writeln!(out, "interface = {}", quoted(endpoint.interface))?;
    writeln!(out, "forwarding = {}", endpoint.forwarding)?;
    if !endpoint.allowed_sources.is_empty() {
        writeln!(out, "allowed_sources = {}", list(&endpoint.allowed_sources))?;
    }
    Ok(())
}

/// A basic string of TOML.
fn quoted(text: impl fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list(things: &[impl fmt::Display]) -> String {
    let quoted: Vec<String> = things.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::text;
    use crate::config::parse;

    const ALL: &str = r#"
[node]
name = "n1"
underlay = ["eth1", "eth2", "the-card-in-the-second-slot-of-rack-7"]
vtep = ["192.0.2.1", "2001:db8::1"]
guard = "native"
rx = "xdp"
metrics = "[::1]:9000"
probe = "1500ms"

[cluster]
etcd = ["https://192.0.2.9:2379", "https://192.0.2.10:2379"]
ca = "/etc/overlay/ca.pem"
cert = "/etc/overlay/node.pem"
key = "/etc/overlay/node.key"
user = "node"
password_file = "/etc/overlay/password"
prefix = "/somewhere"
network = "common"
subnet = "10.96.7.0/24"
masquerade = true
fastpath = "off"
subnet_env = "/run/flannel/subnet.env"

[[networks]]
name = "lab"
vni = 7
port = 8472
cidr = ["10.244.0.0/16", "fd00:244::/48"]
subnet = ["10.244.1.0/24", "fd00:244:0:1::/64"]
mtu = 1400
fastpath = "required"
masquerade = true
dscp = "copy"
security = { martians = "accept" }

[[networks.peers]]
name = "n2"
vtep = "2001:db8::2"
subnet = "10.244.2.0/24"
mac = "02:00:00:00:00:07"
udp6_checksum = true

[[networks.peers]]
name = "n3"
vtep = "2001:db8::3"
subnet = ["10.244.3.0/24", "fd00:244:0:3::/64"]

[[endpoints]]
name = "web"
network = "lab"
netns = "/run/a \"strange\" place"
address = "10.244.1.10"
interface = "net1"
forwarding = true
allowed_sources = "10.99.0.0/24"

[[endpoints]]
name = "db"
network = "lab"
pid = 4711
"#;

    #[test]
    fn who_loads_it_gets_the_same_model() {
        let example = include_str!("../../../dist/node01.toml");
        for original in [ALL, example] {
            let path = Path::new("x.toml");
            let model = parse(path, original).unwrap();
            let written = text(&model);
            let again = parse(path, &written).unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(again, model, "{written}");
            assert_eq!(text(&again), written);
        }
    }
}
