use std::path::Path;

use super::{KEYS, TABLE, TABLES, example};
use crate::config::parse;

/// Every key once, with a value that is right.
const ALL: &str = include_str!("../../../../dist/node01.toml");

fn said(text: &str) -> String {
    parse(Path::new("n.toml"), text).unwrap_err().to_string()
}

/// Of the way to a key, the header of its table, and the key's own name.
fn table_of(key: &str) -> (String, &str) {
    let Some((table, name)) = key.rsplit_once('.') else {
        return (String::new(), key);
    };
    let is_list = matches!(table, "networks" | "networks.peers" | "endpoints");
    let header = if is_list {
        format!("[[{table}]]\n")
    } else {
        format!("[{table}]\n")
    };
    let before = if table.starts_with("networks.") {
        "[[networks]]\n"
    } else {
        ""
    };
    (format!("{before}{header}"), name)
}

#[test]
fn a_value_of_a_wrong_type_is_told_with_key_and_example_whatever_the_key_is() {
    for entry in KEYS {
        let (key, expected, _) = entry;
        let example = example(&entry);
        let (table, name) = table_of(key);
        let text = format!("{table}{name} = 1.5\n");
        let said = said(&text);
        let number = text.lines().count();
        assert!(said.starts_with(&format!("n.toml:{number}: ")), "{said}");
        let told =
            format!("{name}: the number 1.5 stands here instead of {expected}; write {example}");
        assert!(said.ends_with(&told), "{key}: {said}");
        let is_table = [TABLE, TABLES].contains(&expected);
        assert!(is_table || example.starts_with(name), "{key}: {example}");
    }
}

#[test]
fn what_stands_there_is_told() {
    for (from, to, expected) in [
        (
            "masquerade = false",
            "masquerade = \"no\"",
            "networks[0].masquerade: the text \"no\" stands here instead of true or false; write masquerade = true",
        ),
        (
            "vni = 1",
            "vni = -1",
            "networks[0].vni: the number -1 stands here instead of a number from 1 to 16777215; write vni = 1",
        ),
        (
            "underlay = \"eth1\"",
            "underlay = [\"eth1\", 2]",
            "node.underlay: a list with the number 2 in it stands here instead of a text in quotes, or a list of them; write underlay = \"eth1\"",
        ),
        (
            "guard = \"off\"",
            "guard = \"on\"",
            "node.guard: the text \"on\" stands here instead of \"off\", \"native\" or \"generic\"; write guard = \"off\"",
        ),
        (
            "mtu = \"auto\"",
            "mtu = true",
            "networks[0].mtu: true stands here instead of \"auto\" or a number of bytes; write mtu = 1450",
        ),
        (
            "name = \"node02\"",
            "name = 2",
            "networks[0].peers[0].name: the number 2 stands here instead of a text in quotes; write name = \"node02\"",
        ),
        (
            "forwarding = true",
            "forwarding = \"yes\"",
            "endpoints[1].forwarding: the text \"yes\" stands here instead of true or false; write forwarding = true",
        ),
        (
            "vni = 1",
            "vnii = 1",
            "networks[0].vnii: there is no such key; there are: name, vni, port, cidr, subnet, mtu, masquerade, fastpath, dscp, encryption, wireguard_port, wireguard_next_port, security, peers",
        ),
        (
            "vni = 1 ",
            "# vni = 1",
            "networks[0]: there is no key vni; add vni = 1",
        ),
        (
            "name = \"node01\"",
            "name = \"node01\"\nname = \"n\"",
            "name is given twice; keep one of them",
        ),
        (
            "name = \"node01\"",
            "name = node01 # mine",
            "node01 stands here without quotes; write \"node01\"",
        ),
        (
            "cidr = [\"10.244.0.0/16\", \"fd00:244::/48\"]",
            "cidr = 10.244.0.0/16",
            "10.244.0.0/16 stands here without quotes; write \"10.244.0.0/16\"",
        ),
        ("[node]", "[node", "this is not TOML: "),
    ] {
        // Some of the cases need an end of the key.
        let text = ALL.replace("vni = 1\n", "vni = 1 \n");
        assert!(text.contains(from), "{from}");
        let said = said(&text.replacen(from, to, 1));
        assert!(said.contains(&format!(": {expected}")), "{to}: {said}");
    }
    assert_eq!(said(""), "n.toml:1: there is no table node; add [node]");
    let single = "[node]\nname = \"n\"\nunderlay = \"eth1\"\n[networks]\nvni = 1\n";
    let told = "n.toml:4: networks: a table stands here instead of a list of tables; write \
                [[networks]], with two brackets on each side";
    assert_eq!(said(single), told);
}
