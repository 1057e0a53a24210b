use serde_json::{Value, json};

use super::{Connection, Hook, Packet, Ruleset};

/// VXLAN that arrives at eth1.
fn tunnel() -> Packet<'static> {
    Packet {
        input: Some("eth1"),
        output: None,
        source: "192.168.56.12".parse().unwrap(),
        destination: "192.168.56.11".parse().unwrap(),
        udp_port: Some(4789),
        connection: Connection::New,
    }
}

fn chain(name: &str, policy: Option<&str>) -> Value {
    match policy {
        Some(policy) => json!({ "chain": {
            "family": "inet", "table": "fw", "name": name, "type": "filter",
            "hook": "input", "prio": 0, "policy": policy,
        } }),
        None => json!({ "chain": { "family": "inet", "table": "fw", "name": name } }),
    }
}

fn rule(chain: &str, statements: &Value) -> Value {
    json!({ "rule": { "family": "inet", "table": "fw", "chain": chain, "expr": statements } })
}

fn port_is(port: u16) -> Value {
    json!({ "match": { "op": "==", "right": port,
        "left": { "payload": { "protocol": "udp", "field": "dport" } } } })
}

fn device_is(names: &Value) -> Value {
    json!({ "match": { "op": "==", "right": names,
        "left": { "meta": { "key": "iifname" } } } })
}

/// Whether the packet is dropped for certain, and whether some of its kind are.
fn fate(objects: &[Value]) -> (bool, bool) {
    let ruleset = Ruleset::read(&json!({ "nftables": objects }), |_, table| table == "ours");
    let fate = ruleset.fate(Hook::Input, &tunnel());
    (fate.dropped.is_some(), !fate.in_danger.is_empty())
}

#[test]
fn a_rule_for_the_port_drops() {
    let with = |port| {
        fate(&[
            chain("in", Some("accept")),
            rule("in", &json!([port_is(port), { "drop": null }])),
        ])
    };
    assert_eq!(with(4789), (true, false));
    assert_eq!(with(53), (false, false));
}

#[test]
fn a_policy_drops_what_no_rule_accepts() {
    assert_eq!(fate(&[chain("in", Some("drop"))]), (true, false));
    let accepted = [
        chain("in", Some("drop")),
        rule("in", &json!([port_is(4789), { "accept": null }])),
    ];
    assert_eq!(fate(&accepted), (false, false));
}

#[test]
fn an_earlier_rule_wins_and_other_devices_are_left_alone() {
    let accept_first = [
        chain("in", Some("accept")),
        rule(
            "in",
            &json!([device_is(&json!({ "set": ["lo", "eth*"] })), { "accept": null }]),
        ),
        rule("in", &json!([port_is(4789), { "drop": null }])),
    ];
    assert_eq!(fate(&accept_first), (false, false));
    let elsewhere = [
        chain("in", Some("accept")),
        rule("in", &json!([device_is(&json!("eth0")), { "drop": null }])),
    ];
    assert_eq!(fate(&elsewhere), (false, false));
}

#[test]
fn called_chains_and_verdict_maps_are_followed() {
    let called = [
        chain("in", Some("accept")),
        rule("in", &json!([{ "jump": { "target": "udp" } }])),
        chain("udp", None),
        rule("udp", &json!([port_is(4789), { "drop": null }])),
    ];
    assert_eq!(fate(&called), (true, false));
    let state = json!({ "vmap": { "key": { "ct": { "key": "state" } }, "data": { "set": [
        ["established", { "accept": null }], ["invalid", { "drop": null }],
    ] } } });
    let mapped = [
        chain("in", Some("drop")),
        rule("in", &json!([state])),
        rule("in", &json!([port_is(4789), { "accept": null }])),
    ];
    assert_eq!(fate(&mapped), (false, false));
}

#[test]
fn what_is_not_understood_accuses_nobody() {
    let strange = json!({ "xt": { "type": "match", "name": "u32" } });
    let maybe_accepted = [
        chain("in", Some("drop")),
        rule("in", &json!([strange, { "accept": null }])),
    ];
    assert_eq!(fate(&maybe_accepted), (false, false));
    let maybe_dropped = [
        chain("in", Some("accept")),
        rule("in", &json!([strange, { "drop": null }])),
    ];
    assert_eq!(fate(&maybe_dropped), (false, true));
}

#[test]
fn sets_are_looked_up_and_our_own_table_is_left_out() {
    let from = |element: &Value| {
        let set = json!({ "set": { "family": "inet", "table": "fw", "name": "bad",
            "type": "ipv4_addr", "elem": [element] } });
        let matched = json!({ "match": { "op": "==", "right": "@bad",
            "left": { "payload": { "protocol": "ip", "field": "saddr" } } } });
        fate(&[
            chain("in", Some("accept")),
            set,
            rule("in", &json!([matched, { "drop": null }])),
        ])
    };
    let prefix = |addr: &str| json!({ "prefix": { "addr": addr, "len": 24 } });
    assert_eq!(from(&prefix("192.168.56.0")), (true, false));
    assert_eq!(from(&prefix("192.168.57.0")), (false, false));
    let mut ours = chain("in", Some("drop"));
    ours["chain"]["table"] = json!("ours");
    assert_eq!(fate(&[ours]), (false, false));
}
