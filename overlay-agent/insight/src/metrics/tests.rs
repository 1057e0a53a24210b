use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use overlay_control::stats::Export;
use prometheus::proto::{MetricFamily, MetricType};
use serde_json::{Value, json};

use super::export::{families, page};

/// A node of which everything has a value.
fn everything() -> Export {
    let count = |packets: u64| json!({ "packets": packets, "bytes": 100 * packets });
    let counts = |names: &[&str]| {
        let counts = names.iter().map(|name| ((*name).to_owned(), count(1)));
        counts.collect::<BTreeMap<_, _>>()
    };
    let of_endpoint = counts(&["tx", "tx_local", "rx", "rx_local", "passed", "dropped"]);
    let with = |value: Value, more: &BTreeMap<String, Value>| {
        let mut value = value;
        for (name, count) in more {
            value[name] = count.clone();
        }
        value
    };
    let share = json!({ "program": "from_endpoint", "packets": 3, "bytes": 300 });
    let mesh = json!({
        "probe": {
            "mode": "1s", "interval_ms": 1000, "port": 14789,
            "messages": {
                "asked": 0, "unsent": 0, "answered": 0, "answers": 0, "limited": 0,
                "strangers": 0, "malformed": 0,
            },
        },
        "states": { "answers": 1 },
        "peers": [{
            "network": "lab", "name": "n2", "mtu": 1450,
            "health": {
                "state": "answers", "heard_age_ms": 1, "answered_age_ms": 1, "hears_this_node": true,
                "rtt": { "last_ns": 1, "mean_ns": 1_500_000, "min_ns": 1, "jitter_ns": 500 },
                "asked": 100, "lost": 25, "path_mtu": 1400, "agent": null,
            },
        }],
    });
    let stats = json!({
        "schema": 1, "time": "1970-01-01T00:00:00.000Z", "time_ms": 0, "version": "1.2.3", "abi": 4, "instance": "n1", "node": "n1",
        "fastpath": "on", "healthy": true, "problems": [],
        "cluster": {
            "network": "lab", "connected": false, "endpoint": "http://192.0.2.9:2379",
            "subnet": "10.5.1.0-24", "nodes": 7, "doubtful": 2, "revision": 41,
            "connections": 3, "contact_age_ms": 1500,
        },
        "repairs": 3, "reload": { "successful": true, "time": "2026-11-29T04:00:00.000Z" },
        "programs": [with(json!({ "program": "from_endpoint" }), &counts(&["delivered", "passed", "dropped"]))],
        "networks": [{
            "name": "lab", "vni": 1, "silent": 2,
            "peers": [with(
                json!({ "name": "n2", "vtep": "192.0.2.2", "slot": 1 }),
                &counts(&["tx", "rx", "passed", "dropped"]),
            )],
            "total": counts(&["tx", "rx", "dropped"]),
            "kernel": counts(&["tx", "rx"]),
        }],
        "endpoints": [with(json!({ "name": "web", "network": "lab", "slot": 2 }), &of_endpoint)],
        "host": of_endpoint, "former": of_endpoint,
        "drops": [{
            "reason": "spoofed_source", "text": "", "packets": 3, "bytes": 300,
            "programs": [share], "unknown": count(0),
            "senders": [{ "sender": "endpoint", "name": "web", "packets": 3, "bytes": 300 }],
        }],
        "passes": [{
            "reason": "fragment", "text": "", "kernel": "", "packets": 3, "bytes": 300,
            "programs": [share],
            "senders": [{ "sender": "peer", "network": "lab", "name": "n2", "packets": 2, "bytes": 200 }],
        }],
        "maps": [{ "map": "PORTS", "entries": 3, "capacity": 4608 }],
    });
    serde_json::from_value(json!({ "stats": stats, "mesh": mesh })).unwrap()
}

fn names(families: &[MetricFamily]) -> BTreeSet<String> {
    families
        .iter()
        .map(|family| family.name().to_owned())
        .collect()
}

#[test]
fn names_follow_the_conventions_and_values_are_the_counters() {
    let families = families(&everything());
    assert_eq!(
        names(&families).len(),
        families.len(),
        "a name stands twice"
    );
    for family in &families {
        let name = family.name();
        assert!(name.starts_with("overlay_"), "{name}");
        assert!(family.help().ends_with('.'), "{name}: {}", family.help());
        let is_counter = family.get_field_type() == MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
    }
    let text = String::from_utf8(page(&everything()).unwrap()).unwrap();
    for line in [
        r#"overlay_peer_transmit_bytes_total{network="lab",peer="n2"} 100"#,
        r#"overlay_endpoint_receive_packets_total{network="lab",endpoint="web"} 1"#,
        r#"overlay_drop_packets_total{reason="spoofed_source"} 3"#,
        r#"overlay_drop_packets_total{reason="unknown_vtep"} 0"#,
        r#"overlay_sender_drop_packets_total{reason="spoofed_source",kind="endpoint",network="",sender="web"} 3"#,
        r#"overlay_pass_bytes_total{reason="fragment"} 300"#,
        r#"overlay_peer_pass_packets_total{network="lab",peer="n2"} 1"#,
        r#"overlay_sender_pass_packets_total{reason="fragment",kind="peer",network="lab",sender="n2"} 2"#,
        r#"overlay_peers{network="lab"} 3"#,
        r#"overlay_map_max_entries{map="PORTS"} 4608"#,
        "overlay_healthy 1",
        r#"overlay_cluster_connected{network="lab"} 0"#,
        r#"overlay_cluster_contact_age_seconds{network="lab"} 1.5"#,
        r#"overlay_cluster_leases{network="lab"} 7"#,
        r#"overlay_cluster_doubtful_leases{network="lab"} 2"#,
        r#"overlay_cluster_revision{network="lab"} 41"#,
        r#"overlay_cluster_connections_total{network="lab"} 3"#,
        "overlay_repairs_total 3",
        "overlay_config_last_reload_successful 1",
        r#"overlay_kernel_receive_packets_total{network="lab"} 1"#,
        r#"overlay_peer_up{network="lab",peer="n2"} 1"#,
        r#"overlay_peer_rtt_seconds{network="lab",peer="n2"} 0.0015"#,
        r#"overlay_peer_loss_ratio{network="lab",peer="n2"} 0.25"#,
        r#"overlay_peer_path_mtu_bytes{network="lab",peer="n2"} 1400"#,
        r#"overlay_network_mtu_bytes{network="lab"} 1450"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "no {line} in\n{text}");
    }
}

#[test]
fn a_peer_that_has_never_answered_has_every_series() {
    let mut export = serde_json::to_value(everything()).unwrap();
    let health = &mut export["mesh"]["peers"][0]["health"];
    health["state"] = json!("waiting");
    for unknown in ["rtt", "path_mtu", "heard_age_ms", "answered_age_ms"] {
        health[unknown] = Value::Null;
    }
    health["asked"] = json!(0);
    let text = String::from_utf8(page(&serde_json::from_value(export).unwrap()).unwrap()).unwrap();
    for line in [
        r#"overlay_peer_up{network="lab",peer="n2"} 0"#,
        r#"overlay_peer_rtt_seconds{network="lab",peer="n2"} NaN"#,
        r#"overlay_peer_rtt_jitter_seconds{network="lab",peer="n2"} NaN"#,
        r#"overlay_peer_loss_ratio{network="lab",peer="n2"} NaN"#,
        r#"overlay_peer_path_mtu_bytes{network="lab",peer="n2"} NaN"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "no {line} in\n{text}");
    }
}

#[test]
fn the_dashboard_asks_for_nothing_else_than_what_is_exported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/grafana/overlay.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let exported = names(&families(&everything()));
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    for panel in panels {
        assert!(
            panel["title"].is_string() && panel["gridPos"]["w"].is_u64(),
            "{panel}"
        );
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<&str> = words.filter(|word| word.starts_with("overlay_")).collect();
            assert!(!names.is_empty(), "{query}");
            asked.extend(names.into_iter().map(str::to_owned));
        }
    }
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "not exported: {unknown:?}");
}

#[test]
fn the_alerts_ask_for_nothing_else_than_what_is_exported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules =
        fs::read_to_string(path.join("../../packaging/prometheus/overlay.rules.yml")).unwrap();
    let exported = names(&families(&everything()));
    let queries = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let asked: BTreeSet<String> = queries
        .flat_map(|query| query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("overlay_"))
        .map(str::to_owned)
        .collect();
    assert!(asked.len() > 8, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "not exported: {unknown:?}");
}

#[test]
fn what_is_exported_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stats.md");
    let document = fs::read_to_string(path).unwrap();
    for name in names(&families(&everything())) {
        let units = ["_packets_total", "_bytes_total"];
        let counter = units.iter().find_map(|unit| name.strip_suffix(unit));
        let name = counter.unwrap_or(&name);
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}
