use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use crate::filter::{Between, MeantOutside, MeantWithin, Outside, Ruleset};

const OWN: &str = "192.168.56.11";
const PEER: &str = "192.168.56.12";
const OTHER: &str = "192.168.56.13";

fn ruleset(hook: &str, rules: &[Value]) -> Ruleset {
    typed("filter", hook, rules)
}

fn typed(kind: &str, hook: &str, rules: &[Value]) -> Ruleset {
    let mut objects = vec![
        json!({ "chain": { "family": "inet", "table": "t", "name": "c", "type": kind,
            "hook": hook, "prio": 0, "policy": "accept" } }),
        json!({ "chain": { "family": "inet", "table": "t", "name": "drops" } }),
        json!({ "rule": { "family": "inet", "table": "t", "chain": "drops", "expr": [drop()] } }),
        json!({ "set": { "family": "inet", "table": "t", "name": "s", "elem": [PEER] } }),
    ];
    objects.extend(rules.iter().map(
        |expr| json!({ "rule": { "family": "inet", "table": "t", "chain": "c", "expr": expr } }),
    ));
    Ruleset::read(&json!({ "nftables": objects }), |_, _| false)
}

fn within(ruleset: &Ruleset) -> usize {
    all_within(ruleset).peers.len()
}

fn all_within(ruleset: &Ruleset) -> MeantWithin {
    let range = |text: &str| text.parse().unwrap();
    ruleset.meant_within(&Between {
        bridge: "ovlbr1",
        tunnels: &["ovl1"],
        ranges: &[
            (range("10.244.0.0/16"), range("10.244.1.0/24")),
            (range("fd00:244::/48"), range("fd00:244:0:1::/64")),
        ],
    })
}

fn outside(ruleset: &Ruleset) -> MeantOutside {
    let peers: BTreeSet<IpAddr> = [PEER, OTHER].map(|peer| peer.parse().unwrap()).into();
    ruleset.meant_outside(&Outside {
        device: "eth1",
        own: OWN.parse().unwrap(),
        peers: &peers,
        port: 4789,
    })
}

fn is(protocol: &str, field: &str, value: &Value) -> Value {
    json!({ "match": { "op": "==", "right": value,
        "left": { "payload": { "protocol": protocol, "field": field } } } })
}

fn meta(key: &str, value: &Value) -> Value {
    json!({ "match": { "op": "==", "right": value, "left": { "meta": { "key": key } } } })
}

fn drop() -> Value {
    json!({ "drop": null })
}

fn accept() -> Value {
    json!({ "accept": null })
}

#[test]
fn of_rules_within_those_count_that_tell_the_network_from_others() {
    let mark = json!({ "mangle": { "key": { "meta": { "key": "mark" } }, "value": 7 } });
    let clamp = json!({ "mangle": { "key": { "tcp option": { "name": "maxseg" } }, "value": 1 } });
    let limit = json!({ "limit": { "rate": 1, "inv": true } });
    let all = json!({ "prefix": { "addr": "10.0.0.0", "len": 8 } });
    let here = json!({ "prefix": { "addr": "10.244.1.0", "len": 24 } });
    let syn = is("tcp", "flags", &json!("syn"));
    let sender = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
    let meter = json!({ "set": { "op": "update", "elem": sender, "set": "@s",
        "stmt": [{ "limit": { "rate": 1, "inv": true } }] } });
    let lists = json!({ "set": { "op": "add", "elem": sender, "set": "@s" } });
    let listed = json!({ "match": { "op": "==", "left": sender, "right": "@s" } });
    let knocks = is("tcp", "dport", &json!(23));
    let ct = |key: &str| json!({ "match": { "op": "==", "right": 7, "left": { "ct": { "key": key } } } });
    for (rules, expected) in [
        (vec![json!([is("udp", "dport", &json!(53)), drop()])], 1),
        (vec![json!([meta("l4proto", &json!("icmp")), drop()])], 1),
        (
            vec![json!([meta("iifname", &json!("ovlbr1")), { "reject": null }])],
            1,
        ),
        (vec![json!([meta("oifname", &json!("ovl*")), mark])], 1),
        (vec![json!([limit, drop()])], 1),
        (vec![json!([is("ip", "saddr", &all), drop()])], 1),
        (
            vec![json!([is("ip", "daddr", &here), { "jump": { "target": "drops" } }])],
            1,
        ),
        (vec![json!([{ "queue": { "num": 0 } }])], 1),
        // Who has sent too much, whose connection has something, and who is to prove himself.
        (vec![json!([meter, drop()])], 1),
        (vec![json!([ct("bytes"), drop()])], 1),
        (vec![json!([ct("helper"), drop()])], 1),
        (vec![json!([{ "synproxy": null }])], 1),
        (vec![json!([{ "dup": { "addr": "192.0.2.1" } }])], 1),
        // Who is put on a list that others look at.
        (vec![json!([knocks, lists]), json!([listed, drop()])], 1),
        (vec![json!([knocks, lists])], 0),
        (vec![json!([ct("mark"), drop()])], 0),
        // Everybody's default, others' devices, parts of the network, and what changes nothing.
        (vec![json!([drop()])], 0),
        (vec![json!([meta("iifname", &json!("*")), drop()])], 0),
        (vec![json!([meta("oifname", &json!("docker0")), drop()])], 0),
        (
            vec![json!([is("ip", "daddr", &json!("10.244.2.7")), drop()])],
            0,
        ),
        (
            vec![json!([is("ip", "daddr", &json!("192.0.2.7")), drop()])],
            0,
        ),
        (vec![json!([syn, clamp])], 0),
        (
            vec![json!([is("udp", "dport", &json!(53)), { "counter": {} }])],
            0,
        ),
        // What is accepted before.
        (
            vec![
                json!([
                    meta("iifname", &json!({ "set": ["ovlbr1", "ovl1"] })),
                    accept()
                ]),
                json!([is("udp", "dport", &json!(53)), drop()]),
            ],
            0,
        ),
    ] {
        assert_eq!(within(&ruleset("forward", &rules)), expected, "{rules:?}");
        assert_eq!(within(&ruleset("input", &rules)), 0, "{rules:?}");
    }
}

fn nat(kind: &str) -> Value {
    json!({ kind: { "addr": "10.244.2.9" } })
}

#[test]
fn of_translations_those_count_that_are_certain_or_tell_the_network_from_others() {
    let local = json!({ "match": { "op": "==", "right": "local",
        "left": { "fib": { "result": "type", "flags": ["daddr"] } } } });
    let original = |who: &str| {
        json!({ "match": { "op": "==", "right": who,
            "left": { "ct": { "key": "ip daddr", "dir": "original" } } } })
    };
    let port = is("th", "dport", &json!(80));
    let mark = json!({ "match": { "op": "!=", "right": 0x4000,
        "left": { "&": [{ "meta": { "key": "mark" } }, 0x4000] } } });
    let xt = |name: &str| json!({ "xt": { "type": "match", "name": name } });
    let service = |who: &str| is("ip", "daddr", &json!(who));
    let drawn = json!({ "dnat": { "addr": { "map": {
        "key": { "numgen": { "mode": "inc", "mod": 2 } },
        "data": { "set": [[0, "10.244.2.9"], [1, "10.244.2.8"]] } } } } });
    for (hook, rules, expected) in [
        ("postrouting", vec![json!([nat("masquerade")])], (1, 1)),
        (
            "postrouting",
            vec![json!([meta("oifname", &json!("ovl1")), nat("snat")])],
            (1, 0),
        ),
        (
            "prerouting",
            vec![json!([
                meta("iifname", &json!("ovlbr1")),
                port,
                nat("redirect")
            ])],
            (1, 1),
        ),
        ("prerouting", vec![json!([port, nat("dnat")])], (1, 1)),
        ("prerouting", vec![json!([drawn])], (1, 1)),
        // Ports of the node, services, marks that nobody has, and what is known of connections.
        (
            "prerouting",
            vec![json!([local, port, nat("dnat")])],
            (0, 0),
        ),
        (
            "prerouting",
            vec![json!([service("10.96.0.1"), port, nat("dnat")])],
            (0, 0),
        ),
        (
            "postrouting",
            vec![
                json!([mark, { "return": null }]),
                json!([nat("masquerade")]),
            ],
            (0, 0),
        ),
        (
            "postrouting",
            vec![json!([original("10.96.0.1"), nat("masquerade")])],
            (0, 0),
        ),
        (
            "postrouting",
            vec![json!([xt("set"), nat("masquerade")])],
            (0, 0),
        ),
        (
            "postrouting",
            vec![json!([meta("oifname", &json!("eth0")), nat("masquerade")])],
            (0, 0),
        ),
        ("prerouting", vec![json!([port, drop()])], (0, 0)),
    ] {
        let found = all_within(&typed("nat", hook, &rules));
        let counts = (found.peers.len(), found.neighbours.len());
        assert_eq!(counts, expected, "{rules:?}");
        assert_eq!(found.parts.len(), 0, "{rules:?}");
    }
}

#[test]
fn parts_of_a_network_that_are_translated_are_found() {
    let to = |who: &str| is("ip", "daddr", &json!(who));
    let from = |who: &str| is("ip", "saddr", &json!(who));
    let not = |mut rule: Value| {
        rule["match"]["op"] = json!("!=");
        rule
    };
    let range = json!({ "prefix": { "addr": "10.244.0.0", "len": 16 } });
    let outwards = meta("oifname", &json!("eth0"));
    let map = json!({ "dnat": { "addr": { "map": {
        "key": { "payload": { "protocol": "ip", "field": "daddr" } },
        "data": { "set": [["10.244.2.7", "10.244.2.9"], ["192.0.2.1", "10.244.2.9"]] } } } } });
    for (hook, rules, expected) in [
        (
            "prerouting",
            vec![json!([to("10.244.2.7"), nat("dnat")])],
            vec!["10.244.2.7/32"],
        ),
        ("prerouting", vec![json!([map])], vec!["10.244.2.7/32"]),
        (
            "postrouting",
            vec![json!([from("10.244.1.7"), nat("masquerade")])],
            vec!["10.244.1.7/32"],
        ),
        (
            "postrouting",
            vec![json!([from("10.244.1.7"), to("10.244.2.7"), nat("snat")])],
            vec!["10.244.2.7/32"],
        ),
        // What leaves the network, and what is accepted before.
        (
            "postrouting",
            vec![json!([from("10.244.1.7"), to("192.0.2.1"), nat("snat")])],
            vec![],
        ),
        (
            "postrouting",
            vec![json!([from("10.244.1.7"), outwards, nat("snat")])],
            vec![],
        ),
        (
            "postrouting",
            vec![json!([
                from("10.244.1.7"),
                not(is("ip", "daddr", &range)),
                nat("snat")
            ])],
            vec![],
        ),
        (
            "postrouting",
            vec![
                json!([is("ip", "daddr", &range), accept()]),
                json!([from("10.244.1.7"), nat("snat")]),
            ],
            vec![],
        ),
        // A mark for what comes back to who asked.
        (
            "prerouting",
            vec![
                json!([from("10.244.2.7"), { "mangle": {} }]),
                json!([nat("dnat")]),
            ],
            vec![],
        ),
    ] {
        let found = all_within(&typed("nat", hook, &rules));
        let parts: Vec<String> = found.parts.keys().map(ToString::to_string).collect();
        assert_eq!(parts, expected, "{rules:?}");
    }
}

#[test]
fn of_rules_outside_those_count_that_tell_the_tunnel_from_others() {
    let port = |number: u16| is("udp", "dport", &json!(number));
    let from = |who: &str| is("ip", "saddr", &json!(who));
    let not = |who: &str| {
        let mut rule = from(who);
        rule["match"]["op"] = json!("!=");
        rule
    };
    let parts = json!({ "concat": [
        { "payload": { "protocol": "ip", "field": "saddr" } },
        { "payload": { "protocol": "udp", "field": "dport" } },
    ] });
    let pairs = |number: u16| {
        let pair = json!({ "concat": [PEER, number] });
        json!([{ "match": { "op": "==", "left": parts, "right": { "set": [pair] } } }, drop()])
    };
    // What a packet in the tunnel has (nft 1.1.7).
    let inside = |protocol: &str, field: &str| {
        let mut rule = is(protocol, field, &json!(OWN));
        rule["match"]["left"]["payload"]["tunnel"] = json!("vxlan");
        json!([port(4789), rule, drop()])
    };
    for (rules, expected) in [
        (vec![json!([port(4789), drop()])], vec![PEER, OTHER]),
        (vec![json!([from(PEER), drop()])], vec![PEER]),
        (
            vec![json!([not(PEER), port(4789), { "reject": null }])],
            vec![OTHER],
        ),
        (
            vec![json!([from("@s"), { "goto": { "target": "drops" } }])],
            vec![PEER],
        ),
        (
            vec![json!([meta("l4proto", &json!("udp")), drop()])],
            vec![PEER, OTHER],
        ),
        (
            vec![json!([port(4789), { "limit": {} }, drop()])],
            vec![PEER, OTHER],
        ),
        (vec![pairs(4789)], vec![PEER]),
        (vec![inside("vxlan", "vni")], vec![PEER, OTHER]),
        (vec![inside("ip", "saddr")], vec![PEER, OTHER]),
        (vec![inside("tcp", "dport")], vec![PEER, OTHER]),
        // Other ports and addresses, and everybody's default.
        (vec![pairs(53)], vec![]),
        (vec![json!([port(53), drop()])], vec![]),
        (vec![json!([from("192.0.2.1"), drop()])], vec![]),
        (vec![json!([drop()])], vec![]),
        (
            vec![json!([meta("iifname", &json!("eth1")), drop()])],
            vec![],
        ),
        // Whoever is accepted before.
        (
            vec![
                json!([from(PEER), port(4789), accept()]),
                json!([port(4789), drop()]),
            ],
            vec![OTHER],
        ),
    ] {
        let found = outside(&ruleset("input", &rules));
        let peers: Vec<String> = found.peers.keys().map(ToString::to_string).collect();
        assert_eq!(peers, expected, "{rules:?}");
        assert_eq!(outside(&ruleset("forward", &rules)).peers.len(), 0);
    }
    let found = outside(&ruleset("prerouting", &[json!([from(PEER), drop()])]));
    assert!(found.tells_apart);
    let found = outside(&ruleset("output", &[json!([port(4789), drop()])]));
    assert_eq!((found.peers.len(), found.tells_apart), (2, false));
}

#[test]
fn what_firewalls_install_by_themselves_is_not_meant_for_anybody() {
    for text in [
        include_str!("../rulesets/ufw.json"),
        include_str!("../rulesets/ufw-allowed.json"),
        include_str!("../rulesets/firewalld.json"),
        include_str!("../rulesets/firewalld-allowed.json"),
    ] {
        let ruleset = Ruleset::read(&serde_json::from_str(text).unwrap(), |_, _| false);
        assert_eq!(within(&ruleset), 0);
        assert_eq!(outside(&ruleset).peers.len(), 0);
    }
}
