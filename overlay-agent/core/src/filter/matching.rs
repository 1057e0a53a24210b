//! Whether a statement of a rule is true of a packet.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Connection, Packet,
    ruleset::{Key, Ruleset},
};

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It depends on what is not known of the packet, or is not understood.
    Maybe,
}

impl Truth {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            _ => Self::Maybe,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

/// A packet's value for a rule's match.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Has {
    Text(String),
    Address(IpAddr),
    Number(u64),
    /// It has no such thing: no rule that asks for it is about this packet.
    Nothing,
    Unknown,
}

/// A `match` statement.
pub(super) fn is_true(
    statement: &Value,
    packet: &Packet<'_>,
    ruleset: &Ruleset,
    chain: &Key,
) -> Truth {
    let has = of_packet_all(&statement["left"], packet);
    let matches = || equal(&has, &statement["right"], ruleset, chain);
    match statement["op"].as_str() {
        _ if has.contains(&Has::Nothing) => Truth::No,
        Some("==" | "in") => matches(),
        Some("!=") => matches().not(),
        _ => Truth::Maybe,
    }
}

/// Whether a packet has the key of an entry of a verdict map.
pub(super) fn has_key(
    key: &Value,
    entry: &Value,
    packet: &Packet<'_>,
    ruleset: &Ruleset,
    chain: &Key,
) -> Truth {
    equal(&of_packet_all(key, packet), entry, ruleset, chain)
}

/// Whether an expression is an address of a connection, which packets of both directions have.
pub(super) fn is_connections_address(expression: &Value) -> bool {
    let key = expression["ct"]["key"].as_str();
    key.is_some_and(|key| key.ends_with("addr"))
}

/// Several where they are looked at together.
fn of_packet_all(expression: &Value, packet: &Packet<'_>) -> Vec<Has> {
    match expression["concat"].as_array() {
        Some(parts) => parts.iter().map(|part| of_packet(part, packet)).collect(),
        None => vec![of_packet(expression, packet)],
    }
}

fn equal(has: &[Has], wanted: &Value, ruleset: &Ruleset, chain: &Key) -> Truth {
    if let [one] = has {
        return equals(one, wanted, ruleset, chain);
    }
    let Some(leaves) = ruleset.leaves(wanted, chain) else {
        return Truth::Maybe;
    };
    let is_one = |leaf: &Value| {
        let parts = leaf["concat"].as_array();
        let Some(parts) = parts.filter(|parts| parts.len() == has.len()) else {
            return Truth::Maybe;
        };
        has.iter()
            .zip(parts)
            .map(|(has, part)| equals(has, part, ruleset, chain))
            .fold(Truth::Yes, Truth::and)
    };
    leaves.into_iter().map(is_one).fold(Truth::No, Truth::or)
}

fn of_packet(expression: &Value, packet: &Packet<'_>) -> Has {
    let text = |text: Option<&str>| text.map_or(Has::Nothing, |text| Has::Text(text.to_owned()));
    if let Some(key) = expression["meta"]["key"].as_str() {
        let is_ipv6 = packet.destination.is_ipv6();
        return match key {
            "iifname" | "iif" => text(packet.input),
            "oifname" | "oif" => text(packet.output),
            "nfproto" => text(Some(if is_ipv6 { "ipv6" } else { "ipv4" })),
            "protocol" => text(Some(if is_ipv6 { "ip6" } else { "ip" })),
            "l4proto" => protocol(packet),
            "mark" => Has::Number(0),
            "pkttype" => text(Some("host")),
            _ => Has::Unknown,
        };
    }
    if let Some(key) = expression["ct"]["key"].as_str() {
        return match key {
            "state" => text(Some(packet.connection.state())),
            // There is no connection that could have anything.
            _ if matches!(
                packet.connection,
                Connection::Invalid | Connection::Untracked
            ) =>
            {
                Has::Nothing
            }
            // The one that differs from the first packet's.
            "direction" if packet.connection == Connection::Established => text(Some("reply")),
            "direction" => text(Some("original")),
            "status" if packet.connection == Connection::Established => text(Some("seen-reply")),
            // None of those that have a name.
            "status" => text(Some("")),
            // As it came, and nobody has given it others.
            "ip saddr" | "ip6 saddr" | "ip daddr" | "ip6 daddr"
                if expression["ct"]["dir"] == "original" =>
            {
                match key.split_once(' ') {
                    Some((family, field)) => of_header(family, field, packet),
                    None => Has::Unknown,
                }
            }
            _ => Has::Unknown,
        };
    }
    if expression["fib"]["result"] == "type" && packet.is_between_containers() {
        return text(Some("unicast"));
    }
    if let Some([of, mask]) = expression["&"].as_array().map(Vec::as_slice) {
        return match (of_packet(of, packet), mask.as_u64()) {
            (Has::Number(number), Some(mask)) => Has::Number(number & mask),
            _ => Has::Unknown,
        };
    }
    // Of IPv6 headers between: a plain packet has none.
    if expression.get("exthdr").is_some() {
        return Has::Nothing;
    }
    let payload = &expression["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some(family @ ("ip" | "ip6")), Some(field)) => of_header(family, field, packet),
        (Some("udp" | "th"), Some(field)) => match (packet.udp_port, field) {
            (Some(port), "dport") => Has::Number(port.into()),
            _ => Has::Unknown,
        },
        (Some("ether") | None, _) | (_, None) => Has::Unknown,
        // TCP, ICMP and the like.
        (Some(_), Some(_)) if packet.udp_port.is_some() => Has::Nothing,
        (Some(_), Some(_)) => Has::Unknown,
    }
}

fn protocol(packet: &Packet<'_>) -> Has {
    match packet.udp_port {
        Some(_) => Has::Text("udp".to_owned()),
        None => Has::Unknown,
    }
}

fn of_header(family: &str, field: &str, packet: &Packet<'_>) -> Has {
    if (family == "ip6") != packet.destination.is_ipv6() {
        return Has::Nothing;
    }
    match field {
        "saddr" => Has::Address(packet.source),
        "daddr" => Has::Address(packet.destination),
        "protocol" | "nexthdr" => protocol(packet),
        _ => Has::Unknown,
    }
}

fn equals(has: &Has, wanted: &Value, ruleset: &Ruleset, chain: &Key) -> Truth {
    match has {
        Has::Unknown => return Truth::Maybe,
        Has::Nothing => return Truth::No,
        _ => {}
    }
    let Some(leaves) = ruleset.leaves(wanted, chain) else {
        return Truth::Maybe;
    };
    leaves
        .into_iter()
        .fold(Truth::No, |so_far, one| so_far.or(equals_one(has, one)))
}

fn equals_one(has: &Has, wanted: &Value) -> Truth {
    match wanted {
        Value::String(text) => is_text(has, text),
        Value::Number(number) => match has {
            Has::Number(known) => (number.as_u64() == Some(*known)).into(),
            // UDP by its number.
            Has::Text(text) if text == "udp" => (number.as_u64() == Some(17)).into(),
            _ => Truth::Maybe,
        },
        Value::Object(object) => {
            if let Some(prefix) = object.get("prefix") {
                return in_prefix(has, prefix);
            }
            object
                .get("range")
                .map_or(Truth::Maybe, |range| in_range(has, range))
        }
        _ => Truth::Maybe,
    }
}

fn is_text(has: &Has, text: &str) -> Truth {
    match has {
        Has::Text(known) => match text.strip_suffix('*') {
            Some(start) => known.starts_with(start).into(),
            None => (known == text).into(),
        },
        Has::Address(known) => text
            .parse()
            .map_or(Truth::Maybe, |wanted: IpAddr| (wanted == *known).into()),
        // A port or a mark by a name.
        _ => Truth::Maybe,
    }
}

fn in_prefix(has: &Has, prefix: &Value) -> Truth {
    let Has::Address(known) = has else {
        return Truth::Maybe;
    };
    let address = prefix["addr"].as_str().and_then(|text| text.parse().ok());
    let length = prefix["len"]
        .as_u64()
        .and_then(|len| u8::try_from(len).ok());
    let net = address
        .zip(length)
        .and_then(|(address, length)| IpNet::new(address, length).ok());
    net.map_or(Truth::Maybe, |net| net.contains(known).into())
}

fn in_range(has: &Has, range: &Value) -> Truth {
    let (low, high) = (&range[0], &range[1]);
    match has {
        Has::Number(known) => match (low.as_u64(), high.as_u64()) {
            (Some(low), Some(high)) => (low..=high).contains(known).into(),
            _ => Truth::Maybe,
        },
        Has::Address(known) => {
            let parse = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
            match (parse(low), parse(high)) {
                (Some(low), Some(high)) => (low..=high).contains(known).into(),
                _ => Truth::Maybe,
            }
        }
        _ => Truth::Maybe,
    }
}
