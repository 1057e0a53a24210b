//! What stands on the underlay and at the tunnel's device.

use overlay_tests::{bpf::Hook, kernel, topology::UNDERLAY};

use super::{Case, Put, Stand};

const VXLAN: &str = "ovl1";

impl Stand {
    pub(super) fn at_the_wire(&self) -> Vec<Case> {
        let port = self.guard.topology().port();
        // It has its turn on the fast path, too.
        let in_the_driver = Case {
            what: "a program in the driver of the underlay",
            node: 2,
            told: "",
            put: Put::Underlay,
        };
        let mut cases = vec![in_the_driver];
        if !kernel::has_tcx() {
            return cases;
        }
        let program = |what, node, told, device: &str, hook| Case {
            what,
            node,
            told,
            put: Put::Program(device.to_owned(), hook),
        };
        let chain = |what, told, device: &str, rule: String| Case {
            what,
            node: 1,
            told,
            put: Put::Command(
                format!(
                    "nft 'table netdev strangers {{ chain c {{ type filter hook egress device \
                     {device} priority 0; {rule} drop; }}; }}'"
                ),
                "nft delete table netdev strangers".to_owned(),
            ),
        };
        cases.extend([
            program(
                "a program at the tunnel",
                1,
                "egress program",
                VXLAN,
                Hook::Egress,
            ),
            program(
                "a program behind the tunnel",
                2,
                "ingress program",
                VXLAN,
                Hook::Ingress,
            ),
            program(
                "a program on the underlay",
                2,
                "ingress program",
                UNDERLAY,
                Hook::Ingress,
            ),
            program("a program before the wire", 1, "", UNDERLAY, Hook::Egress),
            chain("a chain at the tunnel", "nft chain", VXLAN, String::new()),
            chain(
                "a chain before the wire",
                "nft chain",
                UNDERLAY,
                format!("udp dport {port}"),
            ),
            Case {
                what: "a filter before the wire",
                node: 1,
                told: "",
                put: Put::Command(
                    format!(
                        "ip link add sink type bridge; ip link set sink up; \
                         tc qdisc add dev {UNDERLAY} clsact; \
                         tc filter add dev {UNDERLAY} egress pref 7 protocol ip u32 \
                         match ip protocol 17 0xff match ip dport {port} 0xffff \
                         action mirred egress redirect dev sink"
                    ),
                    format!("tc qdisc del dev {UNDERLAY} clsact; ip link del sink"),
                ),
            },
        ]);
        cases
    }
}
