//! The tables of what is counted.

use std::cmp::Reverse;

use overlay_control::stats::{Counter, EndpointCounts, PeerCounts, Sender, Stats};
use overlay_insight::stats::{bytes, count};

use super::app::{App, Tab};

/// A table: the heads of its columns, and its rows.
pub(super) struct Content {
    pub(super) head: Vec<&'static str>,
    /// Columns in characters; the first takes what is left.
    pub(super) widths: Vec<u16>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) cells: Vec<String>,
    /// The value of the sorting column.
    order: Order,
}

/// Numbers before names, large ones first.
type Order = (Reverse<u64>, String);

impl App {
    /// The table of the tab, sorted; the health of peers is drawn otherwise.
    pub(super) fn table(&self) -> Content {
        let mut table = match self.tab {
            Tab::Peers => self.peers(),
            Tab::Endpoints => self.endpoints(),
            Tab::Drops => self.drops(),
            Tab::Kernel => self.passes(),
            Tab::Problems | Tab::Health => self.problems(),
        };
        table.rows.sort_by(|a, b| a.order.cmp(&b.order));
        table
    }

    /// Numbers are per second as soon as they are known.
    fn per_second(&self) -> &Stats {
        self.rates.as_ref().unwrap_or(&self.now)
    }

    fn row<const N: usize>(&self, name: String, numbers: [Number; N]) -> Row {
        let order = match self.sort.checked_sub(1).and_then(|at| numbers.get(at)) {
            Some(number) => (Reverse(number.value()), name.clone()),
            None => (Reverse(0), name.clone()),
        };
        let cells = numbers.iter().map(ToString::to_string);
        Row {
            cells: std::iter::once(name).chain(cells).collect(),
            order,
        }
    }

    fn peers(&self) -> Content {
        let networks = self.per_second().networks.iter();
        let rows = networks.flat_map(|network| {
            network.peers.iter().map(|peer| {
                let PeerCounts {
                    tx,
                    rx,
                    passed,
                    dropped,
                } = peer.counts;
                let name = format!("{} {}", network.name, peer.name);
                self.row(
                    name,
                    [
                        Number::Bytes(tx.bytes),
                        Number::Count(tx.packets),
                        Number::Bytes(rx.bytes),
                        Number::Count(rx.packets),
                        Number::Count(passed.packets),
                        Number::Count(dropped.packets),
                    ],
                )
            })
        });
        Content {
            head: vec![
                "PEER", "SENT", "PACKETS", "RECEIVED", "PACKETS", "KERNEL", "DROPPED",
            ],
            widths: vec![0, 10, 8, 10, 8, 8, 8],
            rows: rows.collect(),
        }
    }

    fn endpoints(&self) -> Content {
        let stats = self.per_second();
        let row = |name: &str, counts: &EndpointCounts| {
            self.row(
                name.to_owned(),
                [
                    Number::Bytes(counts.tx.bytes),
                    Number::Bytes(counts.rx.bytes),
                    Number::Bytes(counts.tx_local.bytes),
                    Number::Bytes(counts.rx_local.bytes),
                    Number::Count(counts.passed.packets),
                    Number::Count(counts.dropped.packets),
                ],
            )
        };
        let endpoints = stats.endpoints.iter();
        let mut rows: Vec<Row> = endpoints
            .map(|endpoint| row(endpoint.name.as_str(), &endpoint.counts))
            .collect();
        rows.push(row("(this node)", &stats.host));
        Content {
            head: vec![
                "ENDPOINT",
                "SENT",
                "RECEIVED",
                "SENT HERE",
                "GOT HERE",
                "KERNEL",
                "DROPPED",
            ],
            widths: vec![0, 10, 10, 10, 10, 8, 8],
            rows,
        }
    }

    /// Totals with their rates: what was dropped a while ago is still of interest.
    fn drops(&self) -> Content {
        let mut rows = Vec::new();
        let rates = self.rates.iter().flat_map(|rates| &rates.drops);
        for drops in &self.now.drops {
            let rates = rates.clone().find(|rates| rates.reason == drops.reason);
            let mut row = |who: &str, total: Counter, rate: Option<Counter>| {
                let name = format!("{} {who}", drops.reason);
                rows.push(self.row(name, with_rate(total, rate)));
            };
            for share in &drops.senders {
                let mut shares = rates.iter().flat_map(|rates| &rates.senders);
                let rate = shares.find(|rate| rate.sender == share.sender);
                row(
                    &who(&share.sender),
                    share.count,
                    rate.map(|rate| rate.count),
                );
            }
            if drops.unknown.packets > 0 {
                row(
                    "by unknown senders",
                    drops.unknown,
                    rates.map(|rates| rates.unknown),
                );
            }
        }
        Self::reasons(rows)
    }

    fn passes(&self) -> Content {
        let rates = self.rates.iter().flat_map(|rates| &rates.passes);
        let rows = self.now.passes.iter().map(|passes| {
            let name = format!("{}: {}", passes.reason, passes.kernel);
            let rate = rates.clone().find(|rate| rate.reason == passes.reason);
            self.row(name, with_rate(passes.count, rate.map(|rate| rate.count)))
        });
        Self::reasons(rows.collect())
    }

    fn reasons(rows: Vec<Row>) -> Content {
        Content {
            head: vec!["REASON", "PER SECOND", "PACKETS", "BYTES"],
            widths: vec![0, 10, 8, 10],
            rows,
        }
    }

    fn problems(&self) -> Content {
        let problems = self.now.problems.iter();
        Content {
            head: vec!["PROBLEM"],
            widths: vec![0],
            rows: problems
                .map(|problem| self.row(problem.to_string(), []))
                .collect(),
        }
    }
}

fn who(sender: &Sender) -> String {
    match sender {
        Sender::Peer { network, name } => format!("by peer {name} of {network}"),
        Sender::Endpoint { name } => format!("by {name}"),
        Sender::Host => "by this node".to_owned(),
        Sender::Former => "by former endpoints".to_owned(),
    }
}

fn with_rate(total: Counter, rate: Option<Counter>) -> [Number; 3] {
    [
        Number::Count(rate.unwrap_or_default().packets),
        Number::Count(total.packets),
        Number::Bytes(total.bytes),
    ]
}

/// A cell that sorts by its value.
#[derive(Clone, Copy)]
enum Number {
    Count(u64),
    Bytes(u64),
}

impl Number {
    fn value(self) -> u64 {
        match self {
            Self::Count(value) | Self::Bytes(value) => value,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self {
            Self::Count(value) => count(*value),
            Self::Bytes(value) => bytes(*value),
        })
    }
}
