//! Errors of the parser in words for people: the key, what stands there, what is expected
//! and how it is written.

use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue, Error};

const TEXT: &str = "a text in quotes";
const TEXTS: &str = "a text in quotes, or a list of them";
const SWITCH: &str = "true or false";
const TABLE: &str = "a table";
const TABLES: &str = "a list of tables";
const VERDICT: &str = "\"drop\" or \"accept\"";
const PORT: &str = "a number from 1 to 65535";
const ENCRYPTION: &str = "\"off\" or \"wireguard\"";
const FASTPATH: &str = "\"auto\", \"required\" or \"off\"";

/// A key without the numbers of lists in its path; what it takes, and a value as it is written, which
/// tables have none of.
type Key = (&'static str, &'static str, &'static str);

const KEYS: [Key; 65] = [
    ("node", TABLE, ""),
    ("node.name", TEXT, "\"node01\""),
    ("node.underlay", TEXTS, "\"eth1\""),
    ("node.vtep", TEXTS, "\"192.168.56.11\""),
    (
        "node.guard",
        "\"off\", \"native\" or \"generic\"",
        "\"off\"",
    ),
    ("node.rx", "\"tc\" or \"xdp\"", "\"tc\""),
    ("node.metrics", TEXT, "\"127.0.0.1:9466\""),
    ("node.probe", TEXT, "\"5s\""),
    ("names", TABLE, ""),
    ("names.zone", TEXT, "\"overlay.internal\""),
    ("names.forward", TEXTS, "\"192.0.2.53\""),
    ("cluster", TABLE, ""),
    ("cluster.etcd", TEXTS, "\"https://192.0.2.1:2379\""),
    ("cluster.ca", TEXT, "\"/etc/overlay/ca.pem\""),
    ("cluster.cert", TEXT, "\"/etc/overlay/node.pem\""),
    ("cluster.key", TEXT, "\"/etc/overlay/node.key\""),
    ("cluster.user", TEXT, "\"overlay\""),
    ("cluster.password_file", TEXT, "\"/etc/overlay/password\""),
    ("cluster.prefix", TEXT, "\"/coreos.com/network\""),
    ("cluster.network", TEXT, "\"lab\""),
    ("cluster.subnet", TEXTS, "\"10.244.1.0/24\""),
    ("cluster.masquerade", SWITCH, "true"),
    ("cluster.fastpath", FASTPATH, "\"auto\""),
    ("cluster.encryption", ENCRYPTION, "\"wireguard\""),
    ("cluster.wireguard_port", PORT, "51820"),
    ("cluster.wireguard_next_port", PORT, "51821"),
    ("cluster.subnet_env", TEXT, "\"/run/flannel/subnet.env\""),
    ("networks", TABLES, ""),
    ("networks.name", TEXT, "\"lab\""),
    ("networks.vni", "a number from 1 to 16777215", "1"),
    ("networks.port", PORT, "4789"),
    ("networks.cidr", TEXTS, "\"10.244.0.0/16\""),
    ("networks.subnet", TEXTS, "\"10.244.1.0/24\""),
    ("networks.mtu", "\"auto\" or a number of bytes", "1450"),
    ("networks.masquerade", SWITCH, "true"),
    ("networks.fastpath", FASTPATH, "\"auto\""),
    ("networks.dscp", "\"zero\" or \"copy\"", "\"zero\""),
    ("networks.encryption", ENCRYPTION, "\"wireguard\""),
    ("networks.wireguard_port", PORT, "51820"),
    ("networks.wireguard_next_port", PORT, "51821"),
    ("networks.security", TABLE, ""),
    ("networks.security.unknown_vtep", VERDICT, "\"drop\""),
    ("networks.security.inner_source", VERDICT, "\"drop\""),
    ("networks.security.endpoint_source", VERDICT, "\"drop\""),
    ("networks.security.other_networks", VERDICT, "\"drop\""),
    ("networks.security.in_the_clear", VERDICT, "\"drop\""),
    ("networks.security.martians", VERDICT, "\"drop\""),
    ("networks.security.malformed", VERDICT, "\"drop\""),
    ("networks.peers", TABLES, ""),
    ("networks.peers.name", TEXT, "\"node02\""),
    ("networks.peers.vtep", TEXT, "\"192.168.56.12\""),
    ("networks.peers.subnet", TEXTS, "\"10.244.2.0/24\""),
    ("networks.peers.mac", TEXT, "\"02:4f:c0:a8:38:0c\""),
    ("networks.peers.udp6_checksum", SWITCH, "true"),
    (
        "networks.peers.public_key",
        TEXT,
        "\"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"",
    ),
    (
        "networks.peers.next_public_key",
        TEXT,
        "\"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=\"",
    ),
    ("endpoints", TABLES, ""),
    ("endpoints.name", TEXT, "\"web\""),
    ("endpoints.network", TEXT, "\"lab\""),
    ("endpoints.netns", TEXT, "\"web\""),
    ("endpoints.pid", "the number of a process", "1234"),
    ("endpoints.address", TEXTS, "\"10.244.1.10\""),
    ("endpoints.interface", TEXT, "\"eth0\""),
    ("endpoints.forwarding", SWITCH, "true"),
    ("endpoints.allowed_sources", TEXTS, "\"10.99.0.0/24\""),
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
        && let Some(key) = key(&path)
    {
        let (found, expected) = (found(value), key.1);
        format!(
            "{found} stands here instead of {expected}; write {}",
            example(key)
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
        Some(key @ (_, TABLE, _)) => format!("there is no table {name}; add {}", example(key)),
        Some(key) => format!("there is no key {name}; add {}", example(key)),
        None => format!("there is no key {name}; add it"),
    }
}

/// One of the steps that lead to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Number(usize),
}

/// The subject of an error.
enum Place<'a> {
    Key,
    Value(&'a DeValue<'a>),
}

/// The value at a place, and the path to it. Tables do not enclose their keys where those
/// stand behind their headers.
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

/// The entry of a key in the table of keys.
fn key(path: &[Step<'_>]) -> Option<&'static Key> {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(*key),
        Step::Number(_) => None,
    });
    let name = keys.collect::<Vec<_>>().join(".");
    KEYS.iter().find(|(key, ..)| *key == name)
}

/// How a key is written.
fn example(&(path, takes, value): &Key) -> String {
    match takes {
        TABLE => format!("[{path}]"),
        TABLES => format!("[[{path}]], with two brackets on each side"),
        _ => format!("{} = {value}", path.rsplit('.').next().unwrap_or(path)),
    }
}

/// A value as it was written, in words.
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

/// The alternatives in quotes behind "expected".
fn alternatives(message: &str) -> Vec<&str> {
    let expected = message.split_once(", expected ").map_or("", |(_, all)| all);
    expected.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests;
