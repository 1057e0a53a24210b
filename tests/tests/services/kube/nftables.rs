//! The mode nftables: one table, where maps lead from addresses to chains.

use std::fmt::Write as _;

use overlay_tests::families::Family;

use super::{Cluster, MARK, PORT, Service};

/// Of a cluster's services in one family.
pub(super) fn rules(cluster: &Cluster) -> String {
    let (family, kind, all) = match cluster.family {
        Family::V4 => ("ip", "ipv4_addr", "10.96.0.0/16"),
        Family::V6 => ("ip6", "ipv6_addr", "fd96::/112"),
    };
    let Cluster {
        gate, nobody, pods, ..
    } = cluster;
    let mut chains = String::new();
    let mut addresses = vec![nobody.to_string()];
    let (mut services, mut ports) = (Vec::new(), Vec::new());
    for (number, service) in cluster.services.iter().enumerate() {
        let Service {
            name,
            protocol,
            at,
            backend,
            port,
            is_open,
        } = service;
        let full = format!("{number:0>8}-shop/{name}/{protocol}/p{port}");
        let end = format!("{full}__{}/{port}", backend.to_string().replace(':', "."));
        services.push(format!("{at} . {protocol} . {port} : goto service-{full}"));
        addresses.push(at.to_string());
        let to = match cluster.family {
            Family::V4 => format!("{backend}:{port}"),
            Family::V6 => format!("[{backend}]:{port}"),
        };
        let _ = write!(
            chains,
            "chain endpoint-{end} {{
                {family} saddr {backend} jump mark-for-masquerade
                meta l4proto {protocol} dnat to {to}
            }}
            chain service-{full} {{
                {family} daddr {at} {family} saddr != {pods} jump mark-for-masquerade
                numgen random mod 1 vmap {{ 0 : goto endpoint-{end} }}
            }}\n"
        );
        if *is_open {
            let _ = write!(
                chains,
                "chain external-{full} {{
                    jump mark-for-masquerade
                    goto service-{full}
                }}\n"
            );
            ports.push(format!("{protocol} . {port} : goto external-{full}"));
        }
    }
    addresses.sort();
    addresses.dedup();
    let [addresses, services, ports] = [addresses, services, ports].map(|all| all.join(", "));
    let base = base(family, all);
    format!(
        "table {family} kube-proxy {{
            set cluster-ips {{ type {kind}; elements = {{ {addresses} }}; }}
            set nodeport-ips {{ type {kind}; elements = {{ {gate} }}; }}
            map firewall-ips {{ type {kind} . inet_proto . inet_service : verdict; }}
            map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
            map no-endpoint-services {{ type {kind} . inet_proto . inet_service : verdict
                elements = {{ {nobody} . udp . {PORT} : goto reject-chain }}
            }}
            map service-ips {{ type {kind} . inet_proto . inet_service : verdict
                elements = {{ {services} }}
            }}
            map service-nodeports {{ type inet_proto . inet_service : verdict
                elements = {{ {ports} }}
            }}
            chain reject-chain {{ reject; }}
            {chains}
            {base}
        }}"
    )
}

/// What is there whatever the services are.
fn base(family: &str, all: &str) -> String {
    let hook = |name: &str, kind: &str, hook: &str, priority: i32, rules: &[&str]| {
        let rules = rules.join("\n");
        format!("chain {name} {{ type {kind} hook {hook} priority {priority}\n{rules}\n}}\n")
    };
    let new = "ct state new jump";
    let [firewall, endpoints, cluster, ports] = [
        "firewall-check",
        "service-endpoints-check",
        "cluster-ips-check",
        "nodeport-endpoints-check",
    ]
    .map(|chain| format!("{new} {chain}"));
    let hooks = [
        hook(
            "filter-prerouting-pre-dnat",
            "filter",
            "prerouting",
            -110,
            &[&firewall],
        ),
        hook(
            "filter-output-pre-dnat",
            "filter",
            "output",
            -110,
            &[&firewall],
        ),
        hook(
            "filter-forward",
            "filter",
            "forward",
            0,
            &[&endpoints, &cluster],
        ),
        hook("filter-input", "filter", "input", 0, &[&ports, &endpoints]),
        hook(
            "filter-output",
            "filter",
            "output",
            0,
            &[&endpoints, &cluster],
        ),
        hook(
            "nat-prerouting",
            "nat",
            "prerouting",
            -100,
            &["jump services"],
        ),
        hook("nat-output", "nat", "output", -100, &["jump services"]),
        hook(
            "nat-postrouting",
            "nat",
            "postrouting",
            100,
            &["jump masquerading"],
        ),
    ]
    .concat();
    format!(
        "chain firewall-check {{
            {family} daddr . meta l4proto . th dport vmap @firewall-ips
        }}
        chain service-endpoints-check {{
            {family} daddr . meta l4proto . th dport vmap @no-endpoint-services
        }}
        chain nodeport-endpoints-check {{
            {family} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
        }}
        chain cluster-ips-check {{
            {family} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
            {family} daddr {{ {all} }} drop comment \"Drop traffic to unallocated ClusterIPs\"
        }}
        chain services {{
            {family} daddr . meta l4proto . th dport vmap @service-ips
            {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
        }}
        chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
        chain masquerading {{
            meta mark and {MARK} == 0 return
            meta mark set meta mark xor {MARK}
            masquerade fully-random
        }}
        {hooks}"
    )
}
