//! What the kernel has in a namespace, to be compared with what it has later.

use std::fmt;

use crate::{
    error::Result,
    run,
    script::{inside, words},
};

/// What is looked at. Neither counters nor what the kernel learns by itself: both change
/// without anybody's doing.
const VIEWS: [&str; 13] = [
    "ip -d link show",
    "ip -4 addr show",
    "ip -4 route show table all",
    "ip -6 addr show scope global",
    "ip -6 route show",
    "ip rule show",
    "ip neigh show nud permanent",
    "bridge fdb show",
    "tc qdisc show",
    "tc filter show dev eth1 ingress",
    "bpftool net show",
    "nft list ruleset",
    // Not the per-route and statistics parts, which are read-only.
    "sysctl -a -r ^net\\.(ipv4\\.(ip_forward|conf)|ipv6\\.conf|core)",
];

/// The answers to all views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    views: Vec<(&'static str, Vec<String>)>,
}

impl Snapshot {
    /// Looks into a namespace.
    pub fn of(namespace: &str) -> Result<Self> {
        let look = |view: &'static str| {
            let out = run::output(&words(inside(namespace, view)))?;
            // `ip` warns when some other namespace goes while it looks.
            let text = if out.success { out.stdout } else { out.stderr };
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| !view.contains("fdb") || is_set(line))
                .map(steady)
                .collect();
            lines.sort();
            Ok((view, lines))
        };
        Ok(Self {
            views: VIEWS.into_iter().map(look).collect::<Result<_>>()?,
        })
    }

    /// The same without what the kernel chose: numbers of devices, of namespaces, of programs
    /// and of a bridge's ports, MACs of devices.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        let view = |(view, lines): &(&'static str, Vec<String>)| {
            let mut lines: Vec<String> = lines.iter().map(|line| anonymous(view, line)).collect();
            lines.sort();
            (*view, lines)
        };
        Self {
            views: self.views.iter().map(view).collect(),
        }
    }

    /// All lines of all views.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.views
            .iter()
            .flat_map(|(_, lines)| lines.iter().map(String::as_str))
    }

    /// The lines of one view, sorted.
    pub fn view(&self, command: &str) -> Option<&[String]> {
        self.views
            .iter()
            .find(|(view, _)| *view == command)
            .map(|(_, lines)| lines.as_slice())
    }

    /// What is there now and was not before (`+`), and the other way round (`-`).
    pub fn changes_since(&self, before: &Self) -> Changes {
        let mut lines = Vec::new();
        for ((view, now), (_, then)) in self.views.iter().zip(&before.views) {
            let added = now
                .iter()
                .filter(|line| !then.contains(line))
                .map(|line| ('+', line));
            let removed = then
                .iter()
                .filter(|line| !now.contains(line))
                .map(|line| ('-', line));
            lines.extend(
                removed
                    .chain(added)
                    .map(|(sign, line)| format!("{view}: {sign} {line}")),
            );
        }
        Changes { lines }
    }
}

/// Whether somebody set a forwarding entry; the kernel learns others, and joins multicast
/// groups in its own time.
fn is_set(entry: &str) -> bool {
    entry.contains("permanent") && !entry.starts_with("33:33:") && !entry.starts_with("01:00:5e:")
}

/// A line without what changes by itself: the values of a bridge's timers, such as
/// `gc_timer 12.34`, and the carrier, of which the kernel tells with a delay.
fn steady(line: &str) -> String {
    let line = line.replace("NO-CARRIER,", "").replace(",LOWER_UP", "");
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let value = words
            .last()
            .is_some_and(|last| last.ends_with("_timer") || *last == "state");
        if value {
            words.pop();
        } else if word != "linkdown" {
            words.push(word);
        }
    }
    words.join(" ")
}

/// A line without what the kernel chose.
fn anonymous(view: &str, line: &str) -> String {
    // The last three are in the order in which a bridge got its ports.
    const BEFORE_A_NUMBER: [&str; 7] = [
        "prog_id",
        "link_id",
        "link-netnsid",
        "iif",
        "port_id",
        "port_no",
        "designated_port",
    ];
    let is_number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => digits.chars().all(|c| c.is_ascii_hexdigit()),
        None => word.chars().all(|c| c.is_ascii_digit()),
    };
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let index = word.strip_suffix(':').is_some_and(is_number) && words.is_empty();
        let after = words.last().is_some_and(|last| {
            BEFORE_A_NUMBER.contains(last) || (*last == "id" && view.starts_with("bpftool"))
        });
        if index || (after && is_number(word)) {
            continue;
        }
        // `eth1(2)`, `eth0@if7`
        let name = word.split_once("@if").map_or(word, |(name, _)| name);
        let name = match name.split_once('(') {
            Some((name, _)) if view.starts_with("bpftool") => name,
            _ => name,
        };
        // Those of devices, which can be random; that ours are right, the plan tells.
        let of_device = view.contains("link") || line.contains(" master ");
        let is_mac = name.len() == 17 && name.matches(':').count() == 5;
        words.push(if of_device && is_mac { "(MAC)" } else { name });
    }
    words.join(" ")
}

/// The difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// One line a difference.
    pub lines: Vec<String>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
