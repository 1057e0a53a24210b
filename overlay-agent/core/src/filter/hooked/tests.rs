use serde_json::{Value, json};

use super::{Hooked, Places, Ruleset};

const OURS: &str = "10.244.1.10";
const PEERS: &str = "10.244.2.10";

fn places() -> Places {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Places {
        inside: names(&["ovlbr1", "ovl1", "ovl-web"]),
        bridges: names(&["ovlbr1"]),
        underlay: names(&["eth1"]),
        cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        subnets: vec!["10.244.1.0/24".parse().unwrap()],
        ports: vec![4789],
    }
}

/// Of one rule in a base chain of the family, at the hook of the device.
fn hooked(family: &str, hook: &str, device: Option<&str>, policy: &str, rule: &Value) -> Hooked {
    let objects = json!([
        { "chain": { "family": family, "table": "t", "name": "c", "type": "filter",
            "hook": hook, "prio": 0, "policy": policy, "dev": device } },
        { "chain": { "family": family, "table": "t", "name": "drops" } },
        { "set": { "family": family, "table": "t", "name": "s", "elem": [OURS, PEERS] } },
        { "map": { "family": family, "table": "t", "name": "m", "elem": [[PEERS, { "drop": null }], [OURS, { "accept": null }]] } },
        { "rule": { "family": family, "table": "t", "chain": "drops", "expr": [{ "drop": null }] } },
        { "rule": { "family": family, "table": "t", "chain": "c", "expr": rule } },
    ]);
    Ruleset::read(&json!({ "nftables": objects }), |_, _| false).hooked(&places())
}

fn is(protocol: &str, field: &str, value: &Value) -> Value {
    json!({ "match": { "op": "==", "right": value,
        "left": { "payload": { "protocol": protocol, "field": field } } } })
}

fn connection(key: &str, value: &str) -> Value {
    json!({ "match": { "op": "==", "right": value,
        "left": { "ct": { "key": key, "dir": "original" } } } })
}

fn drop() -> Value {
    json!({ "drop": null })
}

/// Which devices, and which addresses.
fn told(hooked: &Hooked) -> (Vec<&str>, Vec<String>) {
    let devices = hooked.devices.keys().map(|(device, _)| device.as_str());
    let named = hooked.named.keys().map(ToString::to_string);
    (devices.collect(), named.collect())
}

#[test]
fn a_rule_about_one_address_is_about_that_address_alone() {
    let jump = json!({ "jump": { "target": "drops" } });
    let prefix = json!({ "prefix": { "addr": "10.244.2.0", "len": 28 } });
    for (rule, expected) in [
        (
            json!([is("ip", "saddr", &json!(OURS)), drop()]),
            vec!["10.244.1.10/32"],
        ),
        (
            json!([is("ip", "daddr", &json!(PEERS)), jump]),
            vec!["10.244.2.10/32"],
        ),
        (
            json!([is("ip", "daddr", &json!("@s")), { "reject": null }]),
            vec!["10.244.1.10/32", "10.244.2.10/32"],
        ),
        (
            json!([is("ip", "daddr", &prefix), { "limit": {} }, drop()]),
            vec!["10.244.2.0/28"],
        ),
        // Of their connections, which have them in both directions.
        (
            json!([connection("ip saddr", OURS), drop()]),
            vec!["10.244.1.10/32"],
        ),
        (
            json!([connection("ip daddr", PEERS), drop()]),
            vec!["10.244.2.10/32"],
        ),
        // Nobody of ours, all of the network, all of the node, and nothing that is dropped.
        (
            json!([is("ip", "saddr", &json!("192.0.2.1")), drop()]),
            vec![],
        ),
        (
            json!([
                is(
                    "ip",
                    "saddr",
                    &json!({ "prefix": { "addr": "10.0.0.0", "len": 8 } })
                ),
                drop()
            ]),
            vec![],
        ),
        (
            json!([
                is(
                    "ip",
                    "saddr",
                    &json!({ "prefix": { "addr": "10.244.1.0", "len": 24 } })
                ),
                drop()
            ]),
            vec![],
        ),
        (
            json!([is("ip", "saddr", &json!(OURS)), { "accept": null }]),
            vec![],
        ),
        (json!([drop()]), vec![]),
    ] {
        for family in ["ip", "inet"] {
            let found = hooked(family, "forward", None, "accept", &rule);
            let expected: Vec<String> = expected.iter().map(|net| (*net).to_owned()).collect();
            assert_eq!(
                told(&found),
                (Vec::<&str>::new(), expected),
                "{family} {rule}"
            );
        }
    }
}

#[test]
fn a_chain_of_a_device_is_about_that_device_unless_it_cannot_be() {
    let port = |port: u16| json!([is("udp", "dport", &json!(port)), drop()]);
    let mark = json!([{ "mangle": {} }]);
    let one = json!([is("ip", "saddr", &json!(OURS)), drop()]);
    let other = json!([is("ip", "saddr", &json!("192.0.2.1")), drop()]);
    let arp = json!([is("arp", "operation", &json!("request")), drop()]);
    let tcp = json!([is("tcp", "dport", &json!(22)), drop()]);
    let inside = json!([{ "match": { "op": "==", "right": 22, "left": {
        "payload": { "tunnel": "vxlan", "protocol": "tcp", "field": "dport" } } } }, drop()]);
    let count = json!([{ "counter": {} }, { "accept": null }]);
    for (hook, device, rule, devices, named) in [
        ("ingress", "ovl-web", &mark, vec!["ovl-web"], vec![]),
        (
            "egress",
            "ovl-web",
            &json!([drop()]),
            vec!["ovl-web"],
            vec![],
        ),
        ("egress", "ovl1", &one, vec![], vec!["10.244.1.10/32"]),
        ("ingress", "ovl1", &other, vec![], vec![]),
        ("ingress", "ovl1", &tcp, vec!["ovl1"], vec![]),
        ("ingress", "ovl1", &count, vec![], vec![]),
        ("ingress", "ovl1", &arp, vec![], vec![]),
        ("ingress", "eth1", &port(4789), vec!["eth1"], vec![]),
        ("ingress", "eth1", &port(53), vec![], vec![]),
        ("ingress", "eth1", &tcp, vec![], vec![]),
        ("ingress", "eth1", &inside, vec!["eth1"], vec![]),
        ("egress", "eth1", &port(4789), vec!["eth1"], vec![]),
        ("egress", "eth1", &port(53), vec![], vec![]),
        ("ingress", "eth7", &json!([drop()]), vec![], vec![]),
    ] {
        let found = hooked("netdev", hook, Some(device), "accept", rule);
        let named: Vec<String> = named.iter().map(|net: &&str| (*net).to_owned()).collect();
        assert_eq!(told(&found), (devices, named), "{hook} {device} {rule}");
    }
    let found = hooked("netdev", "ingress", Some("ovl1"), "drop", &count);
    assert_eq!(told(&found).0, ["ovl1"]);
}

#[test]
fn a_chain_of_bridges_is_about_those_that_it_can_see() {
    let by = |device: &str| {
        json!({ "match": { "op": "==", "right": device,
        "left": { "meta": { "key": "iifname" } } } })
    };
    for (rule, devices, named) in [
        (json!([drop()]), vec!["ovlbr1"], vec![]),
        (json!([by("ovl-web"), drop()]), vec!["ovl-web"], vec![]),
        (json!([by("br0"), drop()]), vec![], vec![]),
        (
            json!([is("ip", "daddr", &json!(OURS)), drop()]),
            vec![],
            vec!["10.244.1.10/32"],
        ),
        (
            json!([is("ether", "type", &json!("arp")), drop()]),
            vec![],
            vec![],
        ),
    ] {
        let found = hooked("bridge", "prerouting", None, "accept", &rule);
        let named: Vec<String> = named.iter().map(|net: &&str| (*net).to_owned()).collect();
        assert_eq!(told(&found), (devices, named), "{rule}");
    }
}

/// A verdict map of what comes to an address, alone or with more.
fn vmap(key: &Value, entries: &Value) -> Value {
    json!({ "vmap": { "key": key, "data": entries } })
}

#[test]
fn a_verdict_map_is_about_those_that_it_drops() {
    let payload = |protocol: &str, field: &str| json!({ "payload": { "protocol": protocol, "field": field } });
    let to = payload("ip", "daddr");
    let with_port = json!({ "concat": [to, payload("udp", "dport")] });
    let accept = json!({ "accept": null });
    let jump = json!({ "jump": { "target": "drops" } });
    let set = |entries: Value| json!({ "set": entries });
    let counted = |address: &str| json!({ "elem": { "val": address, "counter": {} } });
    let with = |address: &str| json!({ "concat": [address, 53] });
    for (rule, devices, named) in [
        (
            json!([vmap(&to, &set(json!([[OURS, drop()], [PEERS, accept]])))]),
            vec![],
            vec!["10.244.1.10/32"],
        ),
        (
            json!([vmap(
                &to,
                &set(json!([[counted(PEERS), jump], [OURS, accept]]))
            )]),
            vec![],
            vec!["10.244.2.10/32"],
        ),
        (
            json!([vmap(
                &with_port,
                &set(json!([[with(OURS), drop()], ["192.0.2.1", accept]]))
            )]),
            vec![],
            vec!["10.244.1.10/32"],
        ),
        (
            json!([
                is("ip", "saddr", &json!(PEERS)),
                vmap(&payload("th", "dport"), &set(json!([[53, drop()]])))
            ]),
            vec![],
            vec!["10.244.2.10/32"],
        ),
        // What is let pass, and what comes behind the map.
        (
            json!([vmap(
                &to,
                &set(json!([[OURS, accept], [PEERS, { "continue": null }]]))
            )]),
            vec![],
            vec![],
        ),
        (
            json!([
                vmap(&to, &set(json!([[OURS, accept]]))),
                is("ip", "saddr", &json!(PEERS)),
                drop()
            ]),
            vec![],
            vec!["10.244.2.10/32"],
        ),
        // Anybody.
        (
            json!([vmap(&to, &set(json!([[OURS, accept], ["*", drop()]])))]),
            vec!["ovl1"],
            vec![],
        ),
    ] {
        let named: Vec<String> = named.iter().map(|net: &&str| (*net).to_owned()).collect();
        let found = hooked("netdev", "ingress", Some("ovl1"), "accept", &rule);
        assert_eq!(told(&found), (devices, named.clone()), "{rule}");
        let found = hooked("inet", "forward", None, "accept", &rule);
        assert_eq!(told(&found), (Vec::<&str>::new(), named), "{rule}");
    }
    let rule = json!([vmap(&to, &json!("@m"))]);
    let found = hooked("ip", "forward", None, "accept", &rule);
    assert_eq!(told(&found).1, ["10.244.2.10/32"]);
}
