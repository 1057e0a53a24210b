//! What the parser complains of, in words for people: the key, what stands there, what is expected
//! and how it is written.

use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue, Error};

const TEXT: &str = "a text in quotes";
const TEXTS: &str = "a text in quotes, or a list of them";
const SWITCH: &str = "true or false";
const TABLE: &str = "a table";
const TABLES: &str = "a list of tables";
const VERDICT: &str = "\"drop\" or \"accept\"";
const FASTPATH: &str = "\"auto\", \"required\" or \"off\"";

/// Each key, without the numbers of lists in its path; what it takes, and how it is written.
const KEYS: [(&str, &str, &str); 57] = [
    ("node", TABLE, "[node]"),
    ("node.name", TEXT, "name = \"node01\""),
    ("node.underlay", TEXTS, "underlay = \"eth1\""),
    ("node.vtep", TEXTS, "vtep = \"192.168.56.11\""),
    (
        "node.guard",
        "\"off\", \"native\" or \"generic\"",
        "guard = \"off\"",
    ),
    ("node.rx", "\"tc\" or \"xdp\"", "rx = \"tc\""),
    ("node.metrics", TEXT, "metrics = \"127.0.0.1:9466\""),
    ("node.probe", TEXT, "probe = \"5s\""),
    ("names", TABLE, "[names]"),
    ("names.zone", TEXT, "zone = \"overlay.internal\""),
    ("names.forward", TEXTS, "forward = \"192.0.2.53\""),
    ("cluster", TABLE, "[cluster]"),
    ("cluster.etcd", TEXTS, "etcd = \"https://192.0.2.1:2379\""),
    ("cluster.ca", TEXT, "ca = \"/etc/overlay/ca.pem\""),
    ("cluster.cert", TEXT, "cert = \"/etc/overlay/node.pem\""),
    ("cluster.key", TEXT, "key = \"/etc/overlay/node.key\""),
    ("cluster.user", TEXT, "user = \"overlay\""),
    (
        "cluster.password_file",
        TEXT,
        "password_file = \"/etc/overlay/password\"",
    ),
    ("cluster.prefix", TEXT, "prefix = \"/coreos.com/network\""),
    ("cluster.network", TEXT, "network = \"lab\""),
    ("cluster.subnet", TEXTS, "subnet = \"10.244.1.0/24\""),
    ("cluster.masquerade", SWITCH, "masquerade = true"),
    ("cluster.fastpath", FASTPATH, "fastpath = \"auto\""),
    (
        "cluster.subnet_env",
        TEXT,
        "subnet_env = \"/run/flannel/subnet.env\"",
    ),
    (
        "networks",
        TABLES,
        "[[networks]], with two brackets on each side",
    ),
    ("networks.name", TEXT, "name = \"lab\""),
    ("networks.vni", "a number from 1 to 16777215", "vni = 1"),
    ("networks.port", "a number from 1 to 65535", "port = 4789"),
    ("networks.cidr", TEXTS, "cidr = \"10.244.0.0/16\""),
    ("networks.subnet", TEXTS, "subnet = \"10.244.1.0/24\""),
    (
        "networks.mtu",
        "\"auto\" or a number of bytes",
        "mtu = 1450",
    ),
    ("networks.masquerade", SWITCH, "masquerade = true"),
    ("networks.fastpath", FASTPATH, "fastpath = \"auto\""),
    ("networks.dscp", "\"zero\" or \"copy\"", "dscp = \"zero\""),
    ("networks.security", TABLE, "[networks.security]"),
    (
        "networks.security.unknown_vtep",
        VERDICT,
        "unknown_vtep = \"drop\"",
    ),
    (
        "networks.security.inner_source",
        VERDICT,
        "inner_source = \"drop\"",
    ),
    (
        "networks.security.endpoint_source",
        VERDICT,
        "endpoint_source = \"drop\"",
    ),
    (
        "networks.security.other_networks",
        VERDICT,
        "other_networks = \"drop\"",
    ),
    (
        "networks.security.in_the_clear",
        VERDICT,
        "in_the_clear = \"drop\"",
    ),
    ("networks.security.martians", VERDICT, "martians = \"drop\""),
    (
        "networks.security.malformed",
        VERDICT,
        "malformed = \"drop\"",
    ),
    (
        "networks.peers",
        TABLES,
        "[[networks.peers]], with two brackets on each side",
    ),
    ("networks.peers.name", TEXT, "name = \"node02\""),
    ("networks.peers.vtep", TEXT, "vtep = \"192.168.56.12\""),
    ("networks.peers.subnet", TEXTS, "subnet = \"10.244.2.0/24\""),
    ("networks.peers.mac", TEXT, "mac = \"02:4f:c0:a8:38:0c\""),
    (
        "networks.peers.udp6_checksum",
        SWITCH,
        "udp6_checksum = true",
    ),
    (
        "endpoints",
        TABLES,
        "[[endpoints]], with two brackets on each side",
    ),
    ("endpoints.name", TEXT, "name = \"web\""),
    ("endpoints.network", TEXT, "network = \"lab\""),
    ("endpoints.netns", TEXT, "netns = \"web\""),
    ("endpoints.pid", "the number of a process", "pid = 1234"),
    ("endpoints.address", TEXTS, "address = \"10.244.1.10\""),
    ("endpoints.interface", TEXT, "interface = \"eth0\""),
    ("endpoints.forwarding", SWITCH, "forwarding = true"),
    (
        "endpoints.allowed_sources",
        TEXTS,
        "allowed_sources = \"10.99.0.0/24\"",
    ),
];

/// The path of the key that an error is about, empty where there is none, and what is wrong there.
pub(super) fn explained(error: &Error, text: &str) -> (String, String) {
    let message = error.message().replace('\n', "; ");
    let span = error.span();
    let Ok(document) = DeTable::parse(text) else {
        return (String::new(), of_text(&message, span, text));
    };
    let mut path = Vec::new();
    let place = span.and_then(|span| in_table(document.get_ref(), &span, &mut path));
    let field = written(&path);
    let what = if let Some(rest) = message.strip_prefix("missing field ") {
        missing(&path, unquoted(rest))
    } else if message.starts_with("unknown field ") {
        format!(
            "there is no such key; there are: {}",
            alternatives(&message).join(", ")
        )
    } else if let Some(Place::Value(value)) = place
        && let Some((_, expected, example)) = key(&path)
    {
        format!(
            "{} stands here instead of {expected}; write {example}",
            found(value)
        )
    } else {
        message
    };
    (field, what)
}

/// Of a text that is not TOML.
fn of_text(message: &str, span: Option<Range<usize>>, text: &str) -> String {
    let named = span.clone().and_then(|span| text.get(span));
    if let Some(key) = named.map(str::trim).filter(|_| message == "duplicate key") {
        return format!("{key} is given twice; keep one of them");
    }
    match span.and_then(|span| bare_word(text, span.start)) {
        Some(word) => format!("{word} stands here without quotes; write \"{word}\""),
        None => format!("this is not TOML: {message}"),
    }
}

/// The value in the line of a place, where it is a word that only lacks its quotes.
fn bare_word(text: &str, place: usize) -> Option<&str> {
    let start = text.get(..place)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next()?;
    let (_, value) = line.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    (!value.is_empty() && value.chars().all(is_plain)).then_some(value)
}

fn missing(path: &[Step<'_>], name: &str) -> String {
    let mut path = path.to_vec();
    path.push(Step::Key(name));
    match key(&path) {
        Some((_, TABLE, example)) => format!("there is no table {name}; add {example}"),
        Some((_, _, example)) => format!("there is no key {name}; add {example}"),
        None => format!("there is no key {name}; add it"),
    }
}

/// One of the steps that lead to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Number(usize),
}

/// What an error is about.
enum Place<'a> {
    Key,
    Value(&'a DeValue<'a>),
}

/// What stands at a place, and the way to it. Tables do not enclose what is in them, where that
/// stands behind their headers.
fn in_table<'a>(
    table: &'a DeTable<'a>,
    span: &Range<usize>,
    path: &mut Vec<Step<'a>>,
) -> Option<Place<'a>> {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref()));
        if key.span() == *span {
            return Some(Place::Key);
        }
        let inside = in_value(value.get_ref(), span, path);
        if inside.is_some() {
            return inside;
        }
        if value.span() == *span {
            return Some(Place::Value(value.get_ref()));
        }
        path.pop();
    }
    None
}

fn in_value<'a>(
    value: &'a DeValue<'a>,
    span: &Range<usize>,
    path: &mut Vec<Step<'a>>,
) -> Option<Place<'a>> {
    match value {
        DeValue::Table(table) => in_table(table, span, path),
        DeValue::Array(values) => in_array(values, span, path),
        _ => None,
    }
}

fn in_array<'a>(
    values: &'a DeArray<'a>,
    span: &Range<usize>,
    path: &mut Vec<Step<'a>>,
) -> Option<Place<'a>> {
    for (number, value) in values.iter().enumerate() {
        path.push(Step::Number(number));
        let inside = in_value(value.get_ref(), span, path);
        if inside.is_some() {
            return inside;
        }
        if value.span() == *span {
            return Some(Place::Value(value.get_ref()));
        }
        path.pop();
    }
    None
}

fn written(path: &[Step<'_>]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if out.is_empty() => out += key,
            Step::Key(key) => out.extend([".", key]),
            Step::Number(number) => out.extend(["[", &number.to_string(), "]"]),
        }
    }
    out
}

/// What is known of a key.
fn key(path: &[Step<'_>]) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(*key),
        Step::Number(_) => None,
    });
    let name = keys.collect::<Vec<_>>().join(".");
    KEYS.iter().find(|(key, ..)| *key == name)
}

/// What somebody has written, in words.
fn found(value: &DeValue<'_>) -> String {
    const SHOWN: usize = 40;
    match value {
        DeValue::String(text) => {
            let shown: String = text.chars().take(SHOWN).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            format!("the text {:?}", shown + more)
        }
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(values) => {
            let mut others = values.iter().map(toml::Spanned::get_ref);
            match others.find(|value| !value.is_str() && !value.is_table()) {
                Some(other) => format!("a list with {} in it", found(other)),
                None => "a list".to_owned(),
            }
        }
        DeValue::Table(_) => TABLE.to_owned(),
    }
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('`')
}

/// What stands in quotes behind "expected".
fn alternatives(message: &str) -> Vec<&str> {
    let expected = message.split_once(", expected ").map_or("", |(_, all)| all);
    expected.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{KEYS, TABLE, TABLES};
    use crate::config::parse;

    /// Every key once, with a value that is right.
    const ALL: &str = include_str!("../../../dist/node01.toml");

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
        for (key, expected, example) in KEYS {
            let (table, name) = table_of(key);
            let text = format!("{table}{name} = 1.5\n");
            let said = said(&text);
            let number = text.lines().count();
            assert!(said.starts_with(&format!("n.toml:{number}: ")), "{said}");
            let told = format!(
                "{name}: the number 1.5 stands here instead of {expected}; write {example}"
            );
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
                "networks[0].vnii: there is no such key; there are: name, vni, port, cidr, subnet, mtu, masquerade, fastpath, dscp, security, peers",
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
}
