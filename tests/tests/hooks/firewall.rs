//! Rules of the packet filter: about tunnels' packets, and about what is inside of them.

use overlay_tests::topology::UNDERLAY;

use super::{Case, Put, Stand};

const TAKE: &str = "nft delete table inet strangers";

/// A base chain with its rules.
fn table(hook: &str, rules: &str) -> String {
    format!(
        "nft 'table inet strangers {{ set quarantine {{ type ipv4_addr; }}; \
         chain c {{ type filter hook {hook} priority 0; {rules}; }}; }}'"
    )
}

/// A case of rules in the first table's chain.
fn case(what: &'static str, node: u8, hook: &str, rules: &str) -> Case {
    Case {
        what,
        node,
        told: "nft chain inet strangers c",
        put: Put::Command(table(hook, rules), TAKE.to_owned()),
    }
}

impl Stand {
    /// Rules that drop.
    pub(super) fn firewall(&self) -> Vec<Case> {
        let mut cases = [self.about_tunnels(), self.about_the_network()].concat();
        cases.extend(self.marks());
        cases.extend(self.connections());
        cases
    }

    /// About the tunnels' own packets.
    fn about_tunnels(&self) -> Vec<Case> {
        let nodes = &self.guard.topology().nodes;
        let port = self.guard.topology().port();
        let [from, to] = [0, 1].map(|node: usize| nodes[node].underlay);
        vec![
            case(
                "the port, going",
                1,
                "output",
                &format!("udp dport {port} drop"),
            ),
            case(
                "the peer, going",
                1,
                "postrouting",
                &format!("ip daddr {to} drop"),
            ),
            case(
                "the port, coming",
                2,
                "prerouting",
                &format!("iifname {UNDERLAY} udp dport {{ 8472, {port} }} counter drop"),
            ),
            case(
                "the peer, coming",
                2,
                "input",
                &format!("ip saddr . udp dport {{ {from} . {port} }} drop"),
            ),
            case(
                "a rate of the tunnel",
                2,
                "input",
                &format!("udp dport {port} limit rate over 1/hour burst 1 packets drop"),
            ),
        ]
    }

    /// About what is inside of them.
    fn about_the_network(&self) -> Vec<Case> {
        let nodes = &self.guard.topology().nodes;
        let [own, other] = [0, 1].map(|node: usize| nodes[node].containers[0].address);
        let (first, second) = (nodes[0].subnet, nodes[1].subnet);
        let mut cases = vec![
            case("a protocol", 1, "forward", "meta l4proto icmp drop"),
            case("a device", 1, "forward", "oifname \"ovl1\" reject"),
            case(
                "a rate",
                2,
                "forward",
                "limit rate over 1/hour burst 1 packets drop",
            ),
            case(
                "a rate of an address",
                1,
                "forward",
                &format!("ip daddr {other} limit rate over 1/hour burst 1 packets drop"),
            ),
            case(
                "new connections of an address",
                1,
                "forward",
                &format!("ip daddr {other} ct state new,established reject"),
            ),
            case(
                "all of this node",
                1,
                "forward",
                &format!("ip saddr {first} drop"),
            ),
            case(
                "all of the other node",
                1,
                "prerouting",
                &format!("ip daddr {second} drop"),
            ),
            case(
                "all of the network",
                2,
                "postrouting",
                "ip daddr 10.244.0.0/16 drop",
            ),
            case(
                "a set that has it",
                2,
                "forward",
                "ip saddr @quarantine drop",
            ),
        ];
        // Its element comes later.
        if let Some(Case {
            put: Put::Command(put, _),
            ..
        }) = cases.last_mut()
        {
            let element = format!("nft add element inet strangers quarantine '{{ {own} }}'");
            *put = format!("{put}; sleep 1; {element}");
        }
        cases
    }

    /// A mark that is set on the kernel's way, and what looks at it further on.
    fn marks(&self) -> [Case; 2] {
        let nodes = &self.guard.topology().nodes;
        let port = self.guard.topology().port();
        let other = nodes[1].containers[0].address;
        let case = |what, rule: String, put: &str, take: &str| Case {
            what,
            node: 1,
            told: "nft chain inet strangers c",
            put: Put::Command(
                format!("{}; {put}", table("prerouting", &rule)),
                format!("{TAKE}; {take}"),
            ),
        };
        // Of the tunnel's packet, which keeps it.
        let looks = format!(
            "nft 'add chain inet strangers wire {{ type filter hook postrouting priority 0; }}; \
             add rule inet strangers wire meta mark 7 udp dport {port} drop'"
        );
        [
            case(
                "a mark for the wire",
                format!("ip daddr {other} meta mark set 7"),
                &looks,
                "true",
            ),
            case(
                "a mark for the routes",
                "iifname ovlbr1 meta mark set 7".to_owned(),
                "ip route add blackhole default table 77; ip rule add fwmark 7 lookup 77",
                "ip rule del fwmark 7 lookup 77; ip route flush table 77",
            ),
        ]
    }

    /// What connection tracking knows, or is not to know.
    fn connections(&self) -> Vec<Case> {
        let nodes = &self.guard.topology().nodes;
        let [own, other] = [0, 1].map(|node: usize| nodes[node].containers[0].address);
        // What is left to the kernel as a whole `status` tells elsewhere.
        let followed = |what, node, raw: &str, rules: &str| {
            let raw = format!("chain raw {{ type filter hook prerouting priority raw; {raw}; }};");
            let chain = format!("chain c {{ type filter hook forward priority 0; {rules}; }};");
            Case {
                what,
                node,
                told: "",
                put: Put::Command(
                    format!("nft 'table inet strangers {{ {raw} {chain} }}'"),
                    TAKE.to_owned(),
                ),
            }
        };
        vec![
            followed(
                "what is not tracked, going",
                1,
                &format!("ip daddr {other} notrack"),
                "ct state untracked drop",
            ),
            followed(
                "what is not tracked, coming",
                2,
                "iifname ovl1 notrack",
                "ct state untracked drop",
            ),
            followed(
                "what is not tracked, back",
                1,
                &format!("ip daddr {own} meta l4proto icmp notrack"),
                "ct state untracked drop",
            ),
            followed(
                "only what is not tracked",
                1,
                &format!("ip daddr {other} notrack"),
                "ct state untracked accept; drop",
            ),
            followed(
                "answers alone",
                2,
                "",
                "iifname ovlbr1 accept; ct direction reply accept; drop",
            ),
            case(
                "where a connection is for",
                1,
                "forward",
                &format!("ct original ip daddr {other} drop"),
            ),
            followed(
                "where a connection is from, its answers",
                1,
                "",
                &format!("ct reply ip daddr {own} ct direction reply drop"),
            ),
            case(
                "what a connection has carried",
                2,
                "prerouting",
                "ct original packets < 1000000 drop",
            ),
            case("connections at once", 1, "forward", "ct count over 0 drop"),
            case(
                "a part by chance",
                2,
                "forward",
                "meta random < 4294967295 drop",
            ),
            Case {
                what: "a rate of each sender",
                node: 1,
                told: "nft chain inet strangers c",
                put: Put::Command(
                    "nft 'table inet strangers { set s { type ipv4_addr; flags dynamic; }; \
                     chain c { type filter hook forward priority 0; \
                     update @s { ip saddr limit rate over 1/hour burst 1 packets } drop; }; }'"
                        .to_owned(),
                    TAKE.to_owned(),
                ),
            },
        ]
    }
}
