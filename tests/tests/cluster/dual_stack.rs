//! A network of both families: what stands in the store is flannel's, byte for byte, and each family
//! is carried inside its own.

use anyhow::{Context as _, Result};
use overlay_tests::{agent::Agent, families::Family, topology::Node};

use crate::lab::{Cluster, SUBNETS, has_peer, until, until_said};

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan","VNI":1}}"#;
/// A node of flannel's, on an address that nobody here has.
const FLANNEL: &str = r#"{"PublicIP":"192.168.56.99","PublicIPv6":"2001:db8:56::99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"},"BackendV6Data":{"VNI":1,"VtepMAC":"92:4e:df:02:f4:af"}}"#;

/// What flannel writes for a node.
fn as_flannel(node: &Node) -> String {
    format!(
        r#"{{"PublicIP":"{}","PublicIPv6":"{}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
        node.underlay,
        node.underlay6,
        node.vtep_mac(Family::V4),
        node.vtep_mac(Family::V6),
    )
}

/// The same with what is ours behind it.
fn as_ours(node: &Node) -> String {
    let flannel = as_flannel(node);
    let begin = flannel.trim_end_matches('}');
    format!(r#"{begin}}},"Overlay":{{"Node":"{}"}}}}"#, node.namespace)
}

/// The value of a node's key.
fn value(cluster: &Cluster, subnet: &str) -> Result<String> {
    let command = format!("get --print-value-only {SUBNETS}{subnet}");
    Ok(cluster.etcdctl(&command)?.trim_end().to_owned())
}

/// A node of flannel's is a peer in each family, whose device over IPv6 wants checksums.
fn follows_flannel(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let key = "10.244.250.0-24&fd00:10:244:fa::-64";
    cluster.put(&format!("{SUBNETS}{key}"), FLANNEL)?;
    for (subnet, mac, vtep) in [
        ("10.244.250.0/24", "d2:cf:28:5c:8b:05", "192.168.56.99"),
        (
            "fd00:10:244:fa::/64",
            "92:4e:df:02:f4:af",
            "2001:db8:56::99",
        ),
    ] {
        until(subnet, || has_peer(agent, subnet, mac, vtep))?;
    }
    // Without its IPv6 side it is none of this network.
    let (v4, _) = FLANNEL
        .split_once(r#","BackendV6Data""#)
        .context("a part")?;
    cluster.put(&format!("{SUBNETS}{key}"), &format!("{v4}}}"))?;
    until_said(agent, "is left out: it has no IPv6 address or device")?;
    cluster.etcdctl(&format!("del {SUBNETS}{key}"))?;
    Ok(agent.is_well()?)
}

#[test]
fn both_families_are_registered_as_flannel_does_and_each_is_carried_in_its_own() -> Result<()> {
    let cluster = Cluster::dual("tedual", 2)?;
    for node in 1..=2 {
        cluster.configure(node, "")?;
    }
    let init = [
        "init",
        "--cidr",
        "10.244.0.0/16",
        "--cidr6",
        "fd00:10:244::/48",
    ];
    let said = cluster.cluster(1, &init)?;
    assert!(said.success && said.stdout.contains(CONFIG), "{said:?}");
    let nodes = cluster.guard.topology().nodes.clone();
    // The second one was a node of flannel's until now, and keeps what it had.
    let migrated = "10.244.77.0-24&fd00:10:244:4d::-64";
    cluster.put(&format!("{SUBNETS}{migrated}"), &as_flannel(&nodes[1]))?;
    let agents = [cluster.guard.agent(1), cluster.guard.agent(2)];
    for agent in &agents {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    for (from, to) in [(1, 2), (2, 1)] {
        assert_eq!(cluster.addresses(to)?.len(), 2);
        cluster.reaches(from, to)?;
    }
    let leases = cluster.leases()?;
    assert_eq!(leases.len(), 2, "{leases:?}");
    assert_eq!(value(&cluster, migrated)?, as_ours(&nodes[1]));
    let own = agents[0].json(&["cluster", "status"])?["subnet"].clone();
    let own = own.as_str().context("a subnet")?;
    assert_eq!(value(&cluster, own)?, as_ours(&nodes[0]));
    // As the node's addresses and subnets stand in the key, in Go's form.
    let (v4, v6) = own.split_once('&').context("both families")?;
    let ranges = agents[0].json(&["status"])?["networks"][0]["ranges"].clone();
    assert_eq!(ranges[0]["subnet"], v4.replace('-', "/"));
    assert_eq!(ranges[1]["subnet"], v6.replace("::-", "::/"));
    follows_flannel(&cluster, &agents[0])?;
    // One that starts again is where it was.
    agents[0].stop()?;
    agents[0].start_anyhow()?;
    agents[0].is_well()?;
    assert_eq!(cluster.leases()?, leases);
    assert_eq!(cluster.addresses(1)?.len(), 2);
    cluster.reaches(2, 1)?;
    Ok(cluster.guard.down()?)
}
