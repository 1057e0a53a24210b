//! What is hooked in, and where.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_tests::{bpf::Hook, kernel, topology::UNDERLAY};

use super::{Case, Put, Stand};

/// The nodes' VXLAN device.
const VXLAN: &str = "ovl1";
/// What `u32` has for every packet.
const ANY: &str = "u32 match u32 0 0";

impl Stand {
    pub(super) fn cases(&self) -> Result<Vec<Case>> {
        let (first, second) = (self.veth(1)?, self.veth(2)?);
        let nodes = &self.guard.topology().nodes;
        let (from, to) = (nodes[0].underlay, nodes[1].underlay);
        let port = self.guard.topology().port();
        let command = |what, node, told, put: String, take: String| Case {
            what,
            node,
            told,
            put: Put::Command(put, take),
        };
        let filter = |what, node, side: &str, device: &str, matching: &str| {
            command(
                what,
                node,
                "filter",
                format!(
                    "ip link add sink type bridge; ip link set sink up; \
                     tc qdisc add dev {device} clsact; \
                     tc filter add dev {device} {side} pref 7 protocol ip {matching} \
                     action mirred egress redirect dev sink"
                ),
                format!("tc qdisc del dev {device} clsact; ip link del sink"),
            )
        };
        let policy = |what, node, direction: &str| {
            let policy = format!("dir {direction} src {from} dst {to} proto 17 dport {port}");
            command(
                what,
                node,
                "IPsec",
                format!("ip xfrm policy add {policy} action block"),
                format!("ip xfrm policy delete {policy}"),
            )
        };
        let tunnel = format!("u32 match ip protocol 17 0xff match ip dport {port} 0xffff");
        let mut cases = vec![
            command(
                "a queue that is too small for a ping, behind the container's veth",
                2,
                "qdisc tbf",
                format!("tc qdisc add dev {second} root tbf rate 1mbit burst 64 limit 64"),
                format!("tc qdisc del dev {second} root"),
            ),
            command(
                "the same behind the VXLAN device",
                1,
                "qdisc tbf",
                format!("tc qdisc add dev {VXLAN} root tbf rate 1mbit burst 64 limit 64"),
                format!("tc qdisc del dev {VXLAN} root"),
            ),
            Case {
                what: "a program in the driver of the container's interface",
                node: 2,
                told: "native XDP",
                put: Put::Inside,
            },
            policy("a policy about what is sent", 1, "out"),
            policy("a policy about what is received", 2, "in"),
        ];
        cases.extend(self.routes());
        cases.extend(self.rules(&first, &second));
        // Of a clsact qdisc that is ours others must not remove what is in it at once.
        if kernel::has_tcx() {
            cases.extend([
                filter("a filter on the veth", 1, "ingress", &first, ANY),
                filter("a filter at the tunnel", 1, "egress", VXLAN, ANY),
                filter("a filter on the underlay", 2, "ingress", UNDERLAY, &tunnel),
                filter("a filter behind the tunnel", 2, "ingress", VXLAN, ANY),
                filter("a filter before the container", 2, "egress", &second, ANY),
                Case {
                    what: "a program on the veth",
                    node: 1,
                    told: "ingress program",
                    put: Put::Program(first, Hook::Ingress),
                },
                Case {
                    what: "a program before the container",
                    node: 2,
                    told: "egress program",
                    put: Put::Program(second, Hook::Egress),
                },
            ]);
        }
        Ok(cases)
    }

    /// Chains of nftables.
    fn rules(&self, first: &str, second: &str) -> Vec<Case> {
        let nodes = &self.guard.topology().nodes;
        let port = self.guard.topology().port();
        let [own, other] = [0, 1].map(|node: usize| nodes[node].containers[0].address);
        let chain = |what, node, family: &str, hook: String, rule: String| Case {
            what,
            node,
            told: "nft chain",
            put: Put::Command(
                format!(
                    "nft 'table {family} strangers {{ chain c {{ type filter hook {hook} \
                     priority 0; {rule} drop; }}; }}'"
                ),
                format!("nft delete table {family} strangers"),
            ),
        };
        let at = |side: &str, device: &str| format!("{side} device {device}");
        let forward = || "forward".to_owned();
        let mut cases = vec![
            chain(
                "a chain of the veth",
                1,
                "netdev",
                at("ingress", first),
                String::new(),
            ),
            chain(
                "a chain of the underlay",
                2,
                "netdev",
                at("ingress", UNDERLAY),
                format!("udp dport {port}"),
            ),
            chain(
                "a chain behind the tunnel",
                2,
                "netdev",
                at("ingress", VXLAN),
                format!("ip saddr {own}"),
            ),
            chain(
                "a chain of the bridge",
                1,
                "bridge",
                "prerouting".to_owned(),
                format!("iifname {first}"),
            ),
            chain(
                "a chain before the container",
                2,
                "bridge",
                "output".to_owned(),
                format!("ip daddr {other}"),
            ),
            chain(
                "a source that is here",
                1,
                "inet",
                forward(),
                format!("ip saddr {own}"),
            ),
            chain(
                "a destination elsewhere",
                1,
                "ip",
                forward(),
                format!("ip daddr {other}"),
            ),
            chain(
                "a source elsewhere",
                2,
                "inet",
                forward(),
                format!("ip saddr {{ {own}, 192.0.2.1 }}"),
            ),
        ];
        cases.extend(verdict_maps(own, other));
        if kernel::has_tcx() {
            // With Linux 5.16 came chains at egress.
            cases.push(chain(
                "a chain at the container's veth",
                2,
                "netdev",
                at("egress", second),
                String::new(),
            ));
        }
        cases
    }

    /// Routes and rules that refuse what is for the second node's container.
    fn routes(&self) -> Vec<Case> {
        let nodes = &self.guard.topology().nodes;
        let container = nodes[1].containers[0].address;
        let own = nodes[0].containers[0].address;
        let vtep = nodes[1].underlay;
        let object = |what, node, told, object: String| Case {
            what,
            node,
            told,
            put: Put::Command(format!("ip {object}"), {
                let (kind, rest) = object.split_once(" add ").unwrap_or_default();
                format!("ip {kind} del {rest}")
            }),
        };
        vec![
            object(
                "a quarantine",
                1,
                "blackhole route",
                format!("route add blackhole {container}"),
            ),
            object(
                "a quarantine at home",
                2,
                "unreachable route",
                format!("route add unreachable {container}"),
            ),
            object(
                "a quarantine for a node",
                1,
                "",
                format!("route add blackhole {vtep}"),
            ),
            object(
                "a rule about a container",
                1,
                "prohibit rule",
                format!("rule add from {own} to {container} priority 99 prohibit"),
            ),
        ]
    }
}

/// Verdict maps of nftables that name one container.
fn verdict_maps(own: Ipv4Addr, other: Ipv4Addr) -> [Case; 2] {
    [
        (
            "a verdict map",
            1,
            format!("ip daddr vmap {{ {other} : drop, 192.0.2.1 : accept }}"),
        ),
        (
            "a verdict map of protocols",
            2,
            format!("ip saddr . meta l4proto vmap {{ {own} . icmp : goto refused }}"),
        ),
    ]
    .map(|(what, node, map)| Case {
        what,
        node,
        told: "nft chain",
        put: Put::Command(
            format!(
                "nft 'table ip strangers {{ chain refused {{ drop; }}; chain c {{ type filter hook \
                 forward priority 0; {map}; }}; }}'"
            ),
            "nft delete table ip strangers".to_owned(),
        ),
    })
}
