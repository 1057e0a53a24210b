//! Who containers may be where the kernel carries what they send: a table of the family `bridge`,
//! which frames pass as they enter by a port. What the programs take does not come here.
//!
//! ```text
//! chain prerouting: by a port of a container → its MAC, then by what the frame is to
//! chain speaks4, speaks6: an address of its own, or behind it → drop spoofed_source
//! chain claims, discovery: what it tells of itself by ARP, and by neighbour discovery → drop
//!                          spoofed_neighbour
//! ```
//!
//! Ports are numbers, not names: a device that is made anew is another one, of which nothing is
//! known until the next round. Of a message of discovery the first option is looked at; what
//! hides one behind extension headers is found by `meta l4proto`, and an option behind others is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use overlay_core::{model::Family, objects::GuardedEndpoint};

use super::{
    commands::{chain, counters},
    elements::version,
};

/// Reasons with a counter each, as the programs call them.
pub(super) const REASONS: [&str; 2] = ["spoofed_source", "spoofed_neighbour"];

/// Before translation and everybody else's chains.
const PRIORITY: i32 = -310;

const SETS: [(&str, &str); 9] = [
    ("ports", "type iface_index ;"),
    ("forwarders", "type iface_index ;"),
    ("macs", "type iface_index . ether_addr ;"),
    ("own4", "type iface_index . ipv4_addr ;"),
    ("own6", "type iface_index . ipv6_addr ;"),
    ("behind4", "type iface_index . ipv4_addr ; flags interval ;"),
    ("behind6", "type iface_index . ipv6_addr ; flags interval ;"),
    // The same as macs and own6, as fields of a message are compared.
    ("named", "typeof iif . @th,80,48 ;"),
    ("targets", "typeof iif . @th,64,128 ;"),
];

const SOURCE: &str = "counter name spoofed_source drop";
const NEIGHBOUR: &str = "counter name spoofed_neighbour drop";

/// Each comes after those it leads to.
fn chains() -> Vec<(&'static str, Vec<String>)> {
    let option = |kind: u32| {
        let mac = kind + 16;
        vec![format!(
            "@th,{kind},8 {{ 1, 2 }} iif . @th,{mac},48 != @named {NEIGHBOUR}"
        )]
    };
    let known6 = [
        "ip6 saddr fe80::/10",
        "iif . ip6 saddr @own6",
        "iif . ip6 saddr @behind6",
    ];
    // Who has no address yet asks all others.
    let nobody6 = "ip6 saddr :: ip6 daddr ff00::/8";
    let speaks6 = known6.into_iter().chain([nobody6]).flat_map(|who| {
        [
            // A number: what it is called stands in a file that not every machine has.
            format!("{who} meta l4proto 58 goto discovery"),
            format!("{who} accept"),
        ]
    });
    vec![
        ("option8", option(64)),
        ("option24", option(192)),
        // In a chain of its own, where nft (1.1.3) does not know what is there: behind the type it prints
        // the field by its name, and refuses to read that beside these elements.
        (
            "advertised",
            vec![format!(
                "@th,64,16 & 0xffc0 != 0xfe80 iif . @th,64,128 != @targets {NEIGHBOUR}"
            )],
        ),
        (
            "discovery",
            vec![
                format!("icmpv6 type {{ 134, 137 }} {NEIGHBOUR}"),
                "icmpv6 type 133 goto option8".to_owned(),
                "icmpv6 type 136 iif != @forwarders jump advertised".to_owned(),
                "icmpv6 type { 135, 136 } goto option24".to_owned(),
            ],
        ),
        (
            "speaks4",
            vec![
                "iif . ip saddr @own4 accept".to_owned(),
                "iif . ip saddr @behind4 accept".to_owned(),
                "ip saddr 0.0.0.0 ip daddr { 224.0.0.0/4, 255.255.255.255 } accept".to_owned(),
                SOURCE.to_owned(),
            ],
        ),
        ("speaks6", speaks6.chain([SOURCE.to_owned()]).collect()),
        (
            "claims",
            vec![
                // Whoever reads another form does not understand it either.
                "arp htype != 1 accept".to_owned(),
                "arp hlen != 6 accept".to_owned(),
                "arp plen != 4 accept".to_owned(),
                format!("iif . arp saddr ether != @macs {NEIGHBOUR}"),
                "arp saddr ip 0.0.0.0 accept".to_owned(),
                "iif . arp saddr ip @own4 accept".to_owned(),
                "iif . arp saddr ip @behind4 accept".to_owned(),
                NEIGHBOUR.to_owned(),
            ],
        ),
        (
            "port",
            vec![
                format!("iif . ether saddr != @macs {SOURCE}"),
                "ether type vmap { ip : goto speaks4, ip6 : goto speaks6, arp : goto claims }"
                    .to_owned(),
            ],
        ),
    ]
}

/// The table without elements: what nothing passes, and the chain at a hook. `counts` go on from what
/// they were.
pub(super) fn skeleton(table: &str, counts: impl Fn(&str) -> (u64, u64)) -> (String, String) {
    let table = &format!("bridge {table}");
    let sets = SETS.map(|(set, spec)| format!("add set {table} {set} {{ {spec} }}\n"));
    let chains = chains().into_iter();
    let chains = chains.map(|(name, rules)| chain(table, name, None, rules));
    let entrance = ["iif @ports goto port".to_owned()];
    let inside = counters(table, &REASONS, counts) + &sets.concat() + &chains.collect::<String>();
    let hook = Some(("prerouting", PRIORITY));
    (inside, chain(table, "prerouting", hook, entrance))
}

/// Commands that add endpoints, or delete them.
pub(super) fn change<'a>(
    table: &str,
    command: &str,
    endpoints: impl Iterator<Item = &'a GuardedEndpoint>,
) -> String {
    let mut sets: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for endpoint in endpoints {
        let index = endpoint.index;
        let mut note = |set, element: String| {
            sets.entry(set).or_default().insert(element);
        };
        note("ports", index.to_string());
        note("macs", format!("{index} . {}", endpoint.mac));
        note(
            "named",
            format!("{index} . {}", number(&endpoint.mac.octets())),
        );
        for address in &endpoint.addresses {
            let set = ["own4", "own6"][usize::from(address.is_ipv6())];
            note(set, format!("{index} . {address}"));
            if let IpAddr::V6(address) = address {
                note(
                    "targets",
                    format!("{index} . {}", number(&address.octets())),
                );
            }
        }
        for net in &endpoint.behind {
            let is_v6 = version(Family::of(net.addr())) == 6;
            note(
                ["behind4", "behind6"][usize::from(is_v6)],
                format!("{index} . {net}"),
            );
        }
        if !endpoint.behind.is_empty() {
            note("forwarders", index.to_string());
        }
    }
    let mut text = String::new();
    for (set, elements) in sets {
        let elements: Vec<String> = elements.into_iter().collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{command} element bridge {table} {set} {{ {} }}",
            elements.join(", ")
        );
    }
    text
}

/// As fields of a message are written.
fn number(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use overlay_core::objects::GuardedEndpoint;

    use super::change;

    #[test]
    fn an_endpoint_is_a_port_with_a_mac_and_addresses() {
        let endpoint = GuardedEndpoint {
            index: 17,
            mac: "02:45:0a:f4:01:0a".parse().unwrap(),
            addresses: ["10.244.1.10", "fd00::1"]
                .map(|address| address.parse().unwrap())
                .into(),
            behind: ["10.9.0.0/16".parse().unwrap()].into(),
        };
        let lines = [
            "add element bridge t behind4 { 17 . 10.9.0.0/16 }",
            "add element bridge t forwarders { 17 }",
            "add element bridge t macs { 17 . 02:45:0a:f4:01:0a }",
            "add element bridge t named { 17 . 0x02450af4010a }",
            "add element bridge t own4 { 17 . 10.244.1.10 }",
            "add element bridge t own6 { 17 . fd00::1 }",
            "add element bridge t ports { 17 }",
            "add element bridge t targets { 17 . 0xfd000000000000000000000000000001 }",
        ];
        assert_eq!(
            change("t", "add", [&endpoint].into_iter()),
            lines.join("\n") + "\n"
        );
        assert_eq!(change("t", "add", [].into_iter()), "");
    }
}
