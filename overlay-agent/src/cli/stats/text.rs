//! Tables that fit a terminal.

use std::{cmp::Reverse, ops::Range};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use overlay_control::stats::{
    Counter, DropStats, EndpointCounts, EndpointStats, NetworkStats, PassStats, PathCounts,
    PeerCounts, Sender, Stats,
};
use overlay_insight::stats::{bytes, count};

/// Columns of a terminal that nobody has made wider.
const WIDTH: u16 = 80;

/// The counts from the beginning.
pub(super) fn totals(stats: &Stats, all: bool) -> String {
    Page::new("since the maps were made".to_owned()).of(stats, all)
}

/// The counts of a second, and when it was.
pub(super) fn rates(stats: &Stats, all: bool, at: &str) -> String {
    Page::new(format!("per second, {at}")).of(stats, all)
}

struct Page {
    text: String,
    /// The meaning of the numbers.
    are: String,
}

impl Page {
    fn new(are: String) -> Self {
        Self {
            text: String::new(),
            are,
        }
    }

    fn of(mut self, stats: &Stats, all: bool) -> String {
        let health = if stats.healthy { "healthy" } else { "degraded" };
        let (node, instance) = (&stats.node, &stats.instance);
        let are = self.are.clone();
        self.line(&format!(
            "node {node}  instance {instance}  {health}  {are}"
        ));
        for network in &stats.networks {
            self.network(network, all);
        }
        let besides = [("(this node)", &stats.host), ("(former)", &stats.former)];
        self.endpoints(&stats.endpoints, besides);
        self.programs(stats);
        self.drops(&stats.drops);
        self.passes(&stats.passes);
        self.text
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A table, of which some columns are numbers.
    fn table<const N: usize>(
        &mut self,
        numbers: Range<usize>,
        head: [&str; N],
        rows: Vec<[String; N]>,
    ) {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header(head)
            .add_rows(rows);
        for (number, column) in table.column_iter_mut().enumerate() {
            if numbers.contains(&number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_padding((0, if number + 1 == N { 0 } else { 2 }));
        }
        self.text.push('\n');
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }

    fn network(&mut self, network: &NetworkStats, all: bool) {
        let mut peers: Vec<_> = network
            .peers
            .iter()
            .filter(|peer| all || peer.counts != PeerCounts::default())
            .collect();
        peers.sort_by_key(|peer| {
            let counts = &peer.counts;
            Reverse(counts.tx.bytes + counts.rx.bytes + counts.dropped.bytes)
        });
        let row = |name: &str, vtep: String, counts: &PeerCounts| {
            let PeerCounts {
                tx,
                rx,
                passed,
                dropped,
            } = counts;
            [
                name.to_owned(),
                vtep,
                count(tx.packets),
                bytes(tx.bytes),
                count(rx.packets),
                bytes(rx.bytes),
                count(passed.packets),
                count(dropped.packets),
            ]
        };
        let mut rows: Vec<_> = peers
            .iter()
            .map(|peer| row(peer.name.as_str(), peer.vtep.to_string(), &peer.counts))
            .collect();
        rows.push(row("all", String::new(), &network.total));
        let PathCounts { tx, rx } = network.kernel;
        rows.push([
            "(kernel)".to_owned(),
            String::new(),
            count(tx.packets),
            bytes(tx.bytes),
            count(rx.packets),
            bytes(rx.bytes),
            String::new(),
            String::new(),
        ]);
        let head = [
            &format!("PEERS OF {}", network.name),
            "VTEP",
            "SENT",
            "",
            "RECEIVED",
            "",
            "KERNEL",
            "DROPPED",
        ];
        self.table(2..8, head, rows);
        let silent = network.silent + network.peers.len() - peers.len();
        if silent > 0 {
            self.line(&format!("peers without traffic: {silent} (--all)"));
        }
    }

    fn endpoints(&mut self, endpoints: &[EndpointStats], besides: [(&str, &EndpointCounts); 2]) {
        let row = |name: &str, counts: &EndpointCounts| {
            let EndpointCounts { tx, rx, .. } = counts;
            [
                name.to_owned(),
                count(tx.packets),
                bytes(tx.bytes),
                count(rx.packets),
                bytes(rx.bytes),
                count(counts.passed.packets),
                count(counts.dropped.packets),
            ]
        };
        // A table of its own: in one line they would not fit a terminal.
        let local = |name: &str, counts: &EndpointCounts| {
            let (tx, rx) = (counts.tx_local, counts.rx_local);
            [
                name.to_owned(),
                count(tx.packets),
                bytes(tx.bytes),
                count(rx.packets),
                bytes(rx.bytes),
            ]
        };
        let mut endpoints: Vec<_> = endpoints.iter().collect();
        endpoints.sort_by_key(|endpoint| {
            let counts = &endpoint.counts;
            let all = [counts.tx, counts.tx_local, counts.rx, counts.rx_local];
            Reverse(all.iter().map(|count| count.bytes).sum::<u64>())
        });
        let endpoints = endpoints.iter();
        let mut all: Vec<_> = endpoints
            .map(|endpoint| (endpoint.name.as_str(), &endpoint.counts))
            .collect();
        let besides = besides.into_iter();
        all.extend(besides.filter(|(_, counts)| **counts != EndpointCounts::default()));
        let rows = all.iter().map(|(name, counts)| row(name, counts));
        let head = [
            "ENDPOINT",
            "TO PEERS",
            "",
            "FROM PEERS",
            "",
            "TO KERNEL",
            "DROPPED",
        ];
        self.table(1..7, head, rows.collect());
        let speaks = |counts: &EndpointCounts| {
            (counts.tx_local, counts.rx_local) != (Counter::default(), Counter::default())
        };
        let rows = all.iter().filter(|(_, counts)| speaks(counts));
        let rows: Vec<_> = rows.map(|(name, counts)| local(name, counts)).collect();
        if !rows.is_empty() {
            let head = ["ENDPOINT", "TO OTHERS HERE", "", "FROM OTHERS HERE", ""];
            self.table(1..5, head, rows);
        }
    }

    fn programs(&mut self, stats: &Stats) {
        let rows = stats.programs.iter().map(|program| {
            [
                program.program.clone(),
                count(program.delivered.packets),
                count(program.passed.packets),
                count(program.dropped.packets),
            ]
        });
        let rows = rows.collect();
        let head = ["PROGRAM", "DELIVERED", "TO KERNEL", "DROPPED"];
        self.table(1..4, head, rows);
    }

    /// By reason, and below each reason by sender.
    fn drops(&mut self, drops: &[DropStats]) {
        let mut drops: Vec<_> = drops.iter().collect();
        drops.sort_by_key(|reason| Reverse(reason.count.packets));
        let mut rows = Vec::new();
        for drops in drops {
            rows.push(reason(&drops.reason, drops.count, &drops.text));
            let senders = drops.senders.iter();
            let mut shares: Vec<_> = senders
                .map(|share| (name(&share.sender), share.count))
                .collect();
            if drops.unknown.packets > 0 {
                shares.push(("- unknown senders".to_owned(), drops.unknown));
            }
            shares.sort_by_key(|(_, count)| Reverse(count.packets));
            rows.extend(shares.iter().map(|(name, count)| reason(name, *count, "")));
        }
        self.reasons("DROPPED", rows);
    }

    fn passes(&mut self, passes: &[PassStats]) {
        let mut passes: Vec<_> = passes.iter().collect();
        passes.sort_by_key(|reason| Reverse(reason.count.packets));
        let mut rows = Vec::new();
        for passes in passes {
            let text = format!("{}: {}", passes.text, passes.kernel);
            rows.push(reason(&passes.reason, passes.count, &text));
            let mut shares: Vec<_> = passes.senders.iter().collect();
            shares.sort_by_key(|share| Reverse(share.count.packets));
            let shares = shares.into_iter();
            rows.extend(shares.map(|share| reason(&name(&share.sender), share.count, "")));
        }
        self.reasons("LEFT TO THE KERNEL", rows);
    }

    fn reasons(&mut self, what: &str, rows: Vec<[String; 4]>) {
        if rows.is_empty() {
            return;
        }
        let head = [what, "PACKETS", "BYTES", ""];
        self.table(1..3, head, rows);
    }
}

fn reason(name: &str, of: Counter, text: &str) -> [String; 4] {
    [
        name.to_owned(),
        count(of.packets),
        bytes(of.bytes),
        text.to_owned(),
    ]
}

/// The name of a sender, in a line below the reason.
fn name(sender: &Sender) -> String {
    match sender {
        Sender::Peer { network, name } => format!("- peer {name} ({network})"),
        Sender::Endpoint { name } => format!("- endpoint {name}"),
        Sender::Host => "- this node".to_owned(),
        Sender::Former => "- former endpoints".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use overlay_control::stats::{
        Counter, EndpointCounts, EndpointStats, NetworkStats, PathCounts, PeerCounts, PeerStats,
    };

    use super::{Page, WIDTH};

    #[test]
    fn large_numbers_do_not_break_lines() {
        let much = Counter {
            packets: 99_900_000,
            bytes: 1_000 << 20,
        };
        let counts = EndpointCounts {
            tx: much,
            rx: much,
            tx_local: much,
            rx_local: much,
            passed: much,
            dropped: much,
        };
        let endpoint = EndpointStats {
            name: "a-container-1".parse().unwrap(),
            network: "lab".parse().unwrap(),
            slot: None,
            counts,
        };
        let mut page = Page::new(String::new());
        page.endpoints(
            &[endpoint],
            [("(this node)", &counts), ("(former)", &counts)],
        );
        let lines: Vec<&str> = page.text.lines().collect();
        // Two tables of three with a head and an empty line before.
        assert_eq!(lines.len(), 2 * (3 + 2), "{}", page.text);
        for line in lines {
            assert!(line.len() <= usize::from(WIDTH), "{}", page.text);
        }
    }

    #[test]
    fn the_peers_of_a_lab_take_a_line_each() {
        let count = |packets, bytes| Counter { packets, bytes };
        let counts = PeerCounts {
            tx: count(60, 10_752),
            rx: count(12, 1_126),
            passed: count(47, 8_704),
            dropped: count(0, 0),
        };
        let network = NetworkStats {
            name: "lab".parse().unwrap(),
            vni: 1.try_into().unwrap(),
            peers: vec![PeerStats {
                name: "lab-n2".parse().unwrap(),
                vtep: "192.168.56.12".parse().unwrap(),
                slot: Some(1),
                counts,
            }],
            silent: 0,
            total: counts,
            kernel: PathCounts {
                tx: count(0, 0),
                rx: count(47, 8_704),
            },
        };
        let mut page = Page::new(String::new());
        page.network(&network, false);
        let lines: Vec<&str> = page.text.lines().collect();
        // A head, the peer, all of them, and the kernel.
        assert_eq!(lines.len(), 1 + 4, "{}", page.text);
        assert!(lines[1].starts_with("PEERS OF lab  VTEP"), "{}", page.text);
    }
}
