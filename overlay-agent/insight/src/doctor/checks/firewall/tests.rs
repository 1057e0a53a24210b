use overlay_core::{filter::Ruleset, model::FastPath};
use serde_json::{Value, json};

use super::super::healthy::{broken, only};
use crate::doctor::facts::Facts;

fn base(kind: &str, hook: &str, expr: &Value) -> Ruleset {
    let listing = json!({ "nftables": [
        { "chain": { "family": "inet", "table": "fw", "name": "c", "type": kind,
            "hook": hook, "prio": 0, "policy": "accept" } },
        { "rule": { "family": "inet", "table": "fw", "chain": "c", "expr": expr } },
    ] });
    Ruleset::read(&listing, |_, _| false)
}

fn with(kind: &'static str, hook: &'static str, expr: Value) -> impl FnOnce(&mut Facts) {
    move |facts| facts.ruleset = Ok(base(kind, hook, &expr))
}

fn port() -> Value {
    json!({ "match": { "op": "==", "right": 4789,
        "left": { "payload": { "protocol": "udp", "field": "dport" } } } })
}

#[test]
fn a_rule_that_eats_the_tunnel_is_told_in_both_directions() {
    let drop = json!([port(), { "drop": null }]);
    let found = only(
        "firewall-drops-tunnel",
        with("filter", "input", drop.clone()),
    );
    assert_eq!(found.object, "inet fw c");
    assert_eq!(
        found.what,
        "a rule of chain inet fw c drops UDP port 4789 from 192.168.56.12"
    );
    assert_eq!(
        found.cure.commands,
        ["nft insert rule inet fw c udp dport 4789 accept"]
    );
    let found = only("firewall-drops-tunnel", with("filter", "output", drop));
    assert!(found.what.ends_with("to 192.168.56.12"), "{found:?}");
}

#[test]
fn forward_rules_matter_differently_on_both_paths() {
    let tcp = json!([
        { "match": { "op": "==", "right": 25,
            "left": { "payload": { "protocol": "tcp", "field": "dport" } } } },
        { "drop": null },
    ]);
    let required = |expr: &Value| {
        let rule = with("filter", "forward", expr.clone());
        move |facts: &mut Facts| {
            facts.networks[0].fastpath = FastPath::Required;
            rule(facts);
        }
    };
    let found = only("forward-rules-bypassed", required(&tcp));
    assert!(found.what.contains("drops some of"), "{found:?}");
    assert_eq!(found.cure.commands.len(), 2);
    // Rules that are meant for it have the network left to the kernel, and everybody's default has not.
    assert!(broken(with("filter", "forward", tcp)).is_empty());
    let all = json!([{ "drop": null }]);
    only(
        "forward-rules-bypassed",
        with("filter", "forward", all.clone()),
    );
    let found = only("firewall-drops-forwarded", |facts| {
        facts.networks[0].fastpath = FastPath::Off;
        with("filter", "forward", all)(facts);
    });
    assert_eq!(
        found.cure.commands[0],
        "nft insert rule inet fw c iifname ovlbr1 oifname ovl1 accept"
    );
}

#[test]
fn a_rule_about_a_container_is_told() {
    let about = |field: &str, address: &str| {
        json!([
            { "match": { "op": "==", "right": address,
                "left": { "payload": { "protocol": "ip", "field": field } } } },
            { "drop": null },
        ])
    };
    for (hook, field, address, what) in [
        (
            "forward",
            "daddr",
            "10.244.2.10",
            "what is sent to 10.244.2.10/32",
        ),
        (
            "prerouting",
            "saddr",
            "10.244.2.10",
            "what 10.244.2.10/32 sends",
        ),
        (
            "postrouting",
            "saddr",
            "10.244.1.10",
            "what 10.244.1.10/32 sends",
        ),
    ] {
        let found = only(
            "rule-drops-containers",
            with("filter", hook, about(field, address)),
        );
        assert_eq!(found.object, "inet fw c");
        assert_eq!(
            found.what,
            format!("a rule of chain inet fw c drops {what} in network lab")
        );
    }
    let elsewhere = with("filter", "forward", about("daddr", "198.51.100.9"));
    assert!(broken(elsewhere).is_empty());
}

#[test]
fn a_network_that_rules_follow_is_told() {
    let new = json!([
        { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": "new" } },
        { "match": { "op": "==", "right": 25,
            "left": { "payload": { "protocol": "tcp", "field": "dport" } } } },
        { "drop": null },
    ]);
    let found = only("connections-followed", with("filter", "forward", new));
    assert_eq!(found.object, "lab");
    assert!(found.what.starts_with("left to the kernel: "), "{found:?}");
    assert_eq!(
        found.cure.commands[0],
        "nft insert rule inet fw c iifname ovlbr1 oifname ovl1 accept"
    );
}

#[test]
fn nat_within_the_network_is_told() {
    let found = only(
        "nat-in-network",
        with("nat", "postrouting", json!([{ "masquerade": null }])),
    );
    assert_eq!(
        found.cure.commands,
        ["nft insert rule inet fw c ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept"]
    );
}

#[test]
fn rules_that_cannot_be_seen_are_told() {
    let found = only("legacy-iptables", |facts| {
        facts.legacy_tables = vec!["filter".to_owned()];
    });
    assert!(found.what.ends_with("show: filter"), "{found:?}");
}
