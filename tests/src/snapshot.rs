//! A snapshot of the kernel's objects in a namespace, to be compared with a later one.

use std::fmt;

use serde_json::Value;

use crate::{error::Result, run, script::inside, told};

/// What is looked at. Neither counters nor what the kernel learns by itself: both change
/// without anybody's doing.
const VIEWS: [&str; 13] = [
    "ip -d -j link show",
    "ip -4 -j addr show",
    "ip -4 -j route show table all",
    "ip -6 -j addr show scope global",
    "ip -6 -j route show",
    "ip -j rule show",
    "ip -j neigh show nud permanent",
    "bridge -j fdb show",
    "tc -j qdisc show",
    "tc -j filter show dev eth1 ingress",
    "bpftool -j net show",
    "nft -j list ruleset",
    SETTINGS,
];

/// The one that is not JSON. Not the per-route and statistics parts, which are read-only.
const SETTINGS: &str = "sysctl -a -r ^net\\.(ipv4\\.(ip_forward|conf)|ipv6\\.conf|core)";

/// The answers to all views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    views: Vec<(&'static str, Vec<String>)>,
}

impl Snapshot {
    /// Looks into a namespace.
    pub fn of(namespace: &str) -> Result<Self> {
        let look = |view: &'static str| {
            let out = run::output(inside(namespace, view))?;
            let mut lines: Vec<String> = if view == SETTINGS || !out.success {
                // `ip` warns when some other namespace goes while it looks.
                let text = if out.success { out.stdout } else { out.stderr };
                text.lines().map(str::to_owned).collect()
            } else {
                told::lines(&out.stdout, &is_steady)?
            };
            lines.retain(|line| !view.starts_with("bridge") || is_set(line));
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
    let permanent = entry.contains("state=permanent");
    permanent && !entry.contains("mac=33:33:") && !entry.contains("mac=01:00:5e:")
}

/// Whether a word does not change by itself, as a bridge's timers and what it has learned do,
/// and the carrier, of which the kernel tells with a delay.
fn is_steady(path: &str, value: &Value) -> bool {
    let key = told::key(path);
    match key {
        "flags" => !["NO-CARRIER", "LOWER_UP", "linkdown"].contains(&value.as_str().unwrap_or("")),
        "state" => !path.starts_with("linkinfo"),
        // What nft says of itself.
        _ if path.starts_with("metainfo") => false,
        "operstate" | "fdb_n_learned" => false,
        // What traffic there was, not what it met.
        "bytes" | "packets" => !path.starts_with("counter."),
        // nft's are in the order of making; those of qdiscs are somebody's choice.
        "handle" => path == "handle",
        _ => !key.ends_with("_timer"),
    }
}

/// A line without what the kernel chose.
fn anonymous(view: &str, line: &str) -> String {
    // The last three are in the order in which a bridge got its ports.
    const NUMBERS: [&str; 8] = [
        "ifindex",
        "link_index",
        "link_netnsid",
        "prog_id",
        "link_id",
        "id",
        "port_id",
        "port_no",
    ];
    // Those of devices, which can be random; that ours are right, the plan tells.
    let of_device = view.contains("link") || line.contains("master=");
    let words = line.split_whitespace().filter_map(|word| {
        let Some((path, value)) = word.split_once('=') else {
            return Some(word.to_owned());
        };
        let key = told::key(path);
        // A VXLAN device's is no number of the kernel's.
        let chosen = NUMBERS.contains(&key) && !path.starts_with("linkinfo.info_data");
        if chosen || key == "designated_port" {
            return None;
        }
        // The guard's notes stand for numbers of devices, too.
        if ["made_of_", "seen_"]
            .iter()
            .any(|note| value.starts_with(note))
        {
            return Some(format!("{path}=(NOTE)"));
        }
        let is_mac = value.len() == 17 && value.matches(':').count() == 5;
        Some(if of_device && is_mac {
            format!("{path}=(MAC)")
        } else {
            word.to_owned()
        })
    });
    words.collect::<Vec<_>>().join(" ")
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
