//! The mode iptables: a chain for each service, and one for each of its backends.

use std::fmt::Write as _;

use overlay_tests::families::Family;

use super::{Cluster, MARK, PORT, Service};

/// Of a cluster's services in one family.
pub(super) fn rules(cluster: &Cluster) -> String {
    let (loopback, icmp, bits) = match cluster.family {
        Family::V4 => ("127.0.0.0/8", "icmp-port-unreachable", 32),
        Family::V6 => ("::1/128", "icmp6-port-unreachable", 128),
    };
    let Cluster { nobody, .. } = cluster;
    let services = "-m comment --comment \"kubernetes service portals\"";
    let external = "-m comment --comment \"kubernetes externally-visible service portals\"";
    let balancer = "-m comment --comment \"kubernetes load balancer firewall\"";
    let new = "-m conntrack --ctstate NEW";
    let forwarding = "-m comment --comment \"kubernetes forwarding rules\"";
    let chains = translating(cluster, bits);
    format!(
        "*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-I INPUT -j KUBE-FIREWALL
-I INPUT {new} {external} -j KUBE-EXTERNAL-SERVICES
-I INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-I INPUT {new} {balancer} -j KUBE-PROXY-FIREWALL
-I FORWARD {new} {external} -j KUBE-EXTERNAL-SERVICES
-I FORWARD {new} {services} -j KUBE-SERVICES
-I FORWARD {forwarding} -j KUBE-FORWARD
-I FORWARD {new} {balancer} -j KUBE-PROXY-FIREWALL
-I OUTPUT -j KUBE-FIREWALL
-I OUTPUT {new} {services} -j KUBE-SERVICES
-I OUTPUT {new} {balancer} -j KUBE-PROXY-FIREWALL
-A KUBE-FIREWALL ! -s {loopback} -d {loopback} -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD {forwarding} -m mark --mark {MARK}/{MARK} -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d {nobody}/{bits} -p udp -m comment --comment \"shop/nobody:p has no endpoints\" -m udp --dport {PORT} -j REJECT --reject-with {icmp}
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
{chains}-I PREROUTING {services} -j KUBE-SERVICES
-I OUTPUT {services} -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}
-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark {MARK}
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
COMMIT
"
    )
}

/// The chains of services and backends, first that they are there.
fn translating(cluster: &Cluster, bits: u8) -> String {
    let Cluster { gate, pods, .. } = cluster;
    let (mut chains, mut rules) = (String::new(), String::new());
    for (number, service) in cluster.services.iter().enumerate() {
        let Service {
            name,
            protocol,
            at,
            backend,
            port,
            is_open,
        } = service;
        let hash = format!("{number:A>16}");
        let (svc, sep, ext) = (
            format!("KUBE-SVC-{hash}"),
            format!("KUBE-SEP-{hash}"),
            format!("KUBE-EXT-{hash}"),
        );
        let to = match cluster.family {
            Family::V4 => format!("{backend}:{port}"),
            Family::V6 => format!("[{backend}]:{port}"),
        };
        let comment = |what: &str| format!("-m comment --comment \"shop/{name}:p{what}\"");
        let asked = format!(
            "-d {at}/{bits} -p {protocol} {} -m {protocol} --dport {port}",
            comment(" cluster IP")
        );
        let _ = write!(chains, ":{svc} - [0:0]\n:{sep} - [0:0]\n");
        let _ = write!(
            rules,
            "-A KUBE-SERVICES {asked} -j {svc}
-A {svc} ! -s {pods} {asked} -j KUBE-MARK-MASQ
-A {svc} {} -j {sep}
-A {sep} -s {backend}/{bits} {} -j KUBE-MARK-MASQ
-A {sep} -p {protocol} {} -m {protocol} -j DNAT --to-destination {to}\n",
            comment(&format!(" -> {to}")),
            comment(""),
            comment(""),
        );
        if *is_open {
            let _ = writeln!(chains, ":{ext} - [0:0]");
            let _ = write!(
                rules,
                "-A KUBE-NODEPORTS -d {gate}/{bits} -p {protocol} {} -m {protocol} --dport {port} -j {ext}
-A {ext} -m comment --comment \"masquerade traffic for shop/{name}:p external destinations\" -j KUBE-MARK-MASQ
-A {ext} -j {svc}\n",
                comment("")
            );
        }
    }
    let last = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must \
                be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS";
    format!("{chains}{rules}{last}\n")
}
