//! What keeps inner addresses on the node.
//!
//! ```text
//! chain nowhere: to an address of a network to which no route leads → count unreachable
//! chain leaving: out of a network, and no route but a default one leads there → answer
//!                "unreachable", in_the_clear
//! chain left:    the same, with an inner source still after all translation → drop in_the_clear
//! chain routed:  where other routes lead → accept
//! ```
//!
//! What leaves is judged where it is certain with which source: behind everybody's translation.
//! There nobody can be answered, so what nobody translates is refused before. A way that has just
//! become a route of somebody's opens when the agent has seen it; none opens by itself.

use std::fmt::Write as _;

use ipnet::IpNet;
use overlay_core::{
    model::Family,
    objects::{GuardRules, IN_THE_CLEAR, Leaving, UNREACHABLE},
};

use super::{commands::devices, elements::version};

/// The chains whose rules follow the routes of others, each after those it leads to.
pub(super) const CHAINS: [(&str, Option<(&str, i32)>); 3] = [
    ("routed", None),
    ("leaving", None),
    // Behind `srcnat`.
    ("left", Some(("postrouting", 200))),
];

/// Commands that fill those chains.
pub(super) fn fill(table: &str, rules: &GuardRules) -> String {
    let mut text = String::new();
    let mut add = |chain: &str, rule: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "add rule inet {table} {chain} {rule}");
    };
    let leaving = &rules.leaving;
    if leaving.encrypts {
        add("routed", "rt ipsec exists accept");
    }
    for ((device, family), nets) in &leaving.exits {
        let nets = nets.as_ref().map(|nets| {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            nets.join(", ")
        });
        let [word, protocol] = words(*family);
        match nets {
            None => add(
                "routed",
                &format!("oifname \"{device}\" meta nfproto {word} accept"),
            ),
            Some(nets) if nets.is_empty() => {}
            Some(nets) => add(
                "routed",
                &format!("oifname \"{device}\" {protocol} daddr {{ {nets} }} accept"),
            ),
        }
    }
    let inside = devices(&rules.inside);
    let refusal = format!("counter name {IN_THE_CLEAR} reject with icmpx host-unreachable");
    let drop = format!("counter name {IN_THE_CLEAR} drop");
    // Nearly all that comes here stays in its network.
    let stays = format!("oifname {{ {inside} }} accept");
    if !leaving.sources.is_empty() {
        if leaving.answers {
            add("leaving", &stays);
        }
        add("left", &stays);
    }
    for (source, translated) in &leaving.sources {
        let [_, protocol] = words(Family::of(source.addr()));
        let packets = format!("{protocol} saddr {source} iifname {{ {inside} }}");
        for (chain, verdict, but) in [("leaving", &refusal, *translated), ("left", &drop, None)] {
            if chain == "leaving" && !leaving.answers {
                continue;
            }
            let but = but.map_or_else(String::new, |net| format!(" {protocol} saddr != {net}"));
            add(chain, &format!("{packets}{but} jump routed"));
            add(chain, &format!("{packets}{but} {verdict}"));
        }
    }
    text
}

/// Commands that empty them.
pub(super) fn empty(table: &str) -> String {
    CHAINS
        .map(|(chain, _)| format!("flush chain inet {table} {chain}\n"))
        .concat()
}

/// Rules that count what the kernel refuses by itself. What a service address stands for is known
/// by then. An address of the node has no device to leave by either; as few have none, that is asked
/// second.
pub(super) fn nowhere(leaving: &Leaving) -> Vec<String> {
    let ranges = leaving.ranges.iter();
    let rules = ranges.map(|range: &IpNet| {
        let [_, protocol] = words(Family::of(range.addr()));
        format!(
            "{protocol} daddr {range} fib daddr . mark oif missing fib daddr type != local \
             counter name {UNREACHABLE}"
        )
    });
    rules.collect()
}

/// A family, and its protocol.
fn words(family: Family) -> [&'static str; 2] {
    match version(family) {
        4 => ["ipv4", "ip"],
        _ => ["ipv6", "ip6"],
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{
        model::Family,
        objects::{GuardRules, Leaving},
    };

    use super::{fill, nowhere};

    fn rules(answers: bool) -> GuardRules {
        let nets = ["192.0.2.0/24", "198.51.100.0/24"].map(|net| net.parse().unwrap());
        GuardRules {
            inside: ["ovlbr1".parse().unwrap()].into(),
            leaving: Leaving {
                ranges: ["10.244.0.0/16".parse().unwrap()].into(),
                sources: [(
                    "10.244.0.0/16".parse().unwrap(),
                    Some("10.244.1.0/24".parse().unwrap()),
                )]
                .into(),
                exits: [
                    (("eth0".parse().unwrap(), Family::V4), Some(nets.into())),
                    (("eth0".parse().unwrap(), Family::V6), Some([].into())),
                    (("wg0".parse().unwrap(), Family::V6), None),
                ]
                .into(),
                answers,
                encrypts: false,
            },
            ..GuardRules::default()
        }
    }

    #[test]
    fn a_sender_is_answered_where_nobody_else_translates() {
        let packets = "ip saddr 10.244.0.0/16 iifname { \"ovlbr1\" }";
        let stays =
            ["leaving", "left"].map(|chain| format!("{chain} oifname {{ \"ovlbr1\" }} accept"));
        let routed = [
            "routed oifname \"eth0\" ip daddr { 192.0.2.0/24, 198.51.100.0/24 } accept".to_owned(),
            "routed oifname \"wg0\" meta nfproto ipv6 accept".to_owned(),
        ];
        let but = "ip saddr != 10.244.1.0/24";
        let answered = [
            format!("leaving {packets} {but} jump routed"),
            format!(
                "leaving {packets} {but} counter name in_the_clear reject with icmpx host-unreachable"
            ),
        ];
        let dropped = [
            format!("left {packets} jump routed"),
            format!("left {packets} counter name in_the_clear drop"),
        ];
        for (answers, expected) in [
            (true, [&routed[..], &stays, &answered, &dropped].concat()),
            (false, [&routed[..], &stays[1..], &dropped].concat()),
        ] {
            let lines = expected
                .iter()
                .map(|line| format!("add rule inet t {line}\n"));
            assert_eq!(fill("t", &rules(answers)), lines.collect::<String>());
        }
    }

    #[test]
    fn what_no_route_leads_to_is_counted() {
        assert_eq!(
            nowhere(&rules(true).leaving),
            [
                "ip daddr 10.244.0.0/16 fib daddr . mark oif missing fib daddr type != local counter name unreachable"
            ]
        );
    }
}
