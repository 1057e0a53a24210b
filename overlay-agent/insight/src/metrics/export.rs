//! The exported metrics: names and units by the conventions of Prometheus.
//!
//! Of very many peers those without traffic are left out, so that a node that never talks to most
//! of them is as quick to ask as any other. Reasons, and else all peers, are there from the
//! beginning: a counter that appears with its first packet has no rate for it.

use overlay_common::reasons::{DropReason, PassReason};
use overlay_control::{
    FastPathState,
    stats::{Counter, EndpointCounts, Export, Sender, SenderCount, Stats},
};
use overlay_core::objects::KERNEL_REASONS;
use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Counter as CounterValue, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// The page that a scrape gets.
pub(super) fn page(export: &Export) -> prometheus::Result<Vec<u8>> {
    let mut page = Vec::new();
    TextEncoder::new().encode(&families(export), &mut page)?;
    Ok(page)
}

/// Every metric that has a value.
pub(super) fn families(export: &Export) -> Vec<MetricFamily> {
    let Export { stats, mesh } = export;
    let mut page = Page::default();
    page.node(stats);
    page.programs(stats);
    page.kernel(stats);
    page.peers(stats);
    page.cluster(stats.cluster.as_ref());
    page.health(mesh);
    page.endpoints(stats);
    page.reasons(stats);
    page.maps(stats);
    page.families
}

pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];
/// Labels that are put together.
pub(super) type OwnLabels<'a> = Vec<(&'a str, &'a str)>;
/// A counter of an endpoint's.
type Of = fn(&EndpointCounts) -> Counter;

#[derive(Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    fn node(&mut self, stats: &Stats) {
        let abi = stats.abi.to_string();
        let gauges: [(&str, &str, OwnLabels<'_>, usize); 6] = [
            (
                "overlay_build_info",
                "Version of the agent and layout of its maps; always 1.",
                vec![
                    ("version", &stats.version),
                    ("abi", &abi),
                    ("node", stats.node.as_str()),
                ],
                1,
            ),
            (
                "overlay_healthy",
                "Whether everything is as it should be.",
                Vec::new(),
                stats.healthy.into(),
            ),
            (
                "overlay_problems",
                "Number of current problems; see overlay-agent status.",
                Vec::new(),
                stats.problems.len(),
            ),
            (
                "overlay_fastpath_on",
                "1 if the fast path is attached.",
                Vec::new(),
                (stats.fastpath == FastPathState::On).into(),
            ),
            (
                "overlay_config_last_reload_successful",
                "1 if the configuration file is in force, 0 if it was refused.",
                Vec::new(),
                stats.reload.successful.into(),
            ),
            (
                "overlay_endpoints",
                "Containers of this node.",
                Vec::new(),
                stats.endpoints.len(),
            ),
        ];
        for (name, help, labels, value) in gauges {
            self.gauges(name, help, [(&labels[..], value)]);
        }
        self.count(
            "overlay_repairs_total",
            "Things that others removed or changed and the agent has put right.",
            stats.repairs,
        );
        let networks = stats.networks.iter().map(|network| {
            let labels = vec![("network", network.name.as_str())];
            (labels, network.peers.len() + network.silent)
        });
        let networks: Vec<_> = networks.collect();
        let networks = networks.iter().map(|(labels, peers)| (&labels[..], *peers));
        self.gauges("overlay_peers", "Other nodes of a network.", networks);
    }

    fn programs(&mut self, stats: &Stats) {
        let mut counts = Vec::new();
        for program in &stats.programs {
            for (fate, count) in [
                ("delivered", program.delivered),
                ("passed", program.passed),
                ("dropped", program.dropped),
            ] {
                counts.push((
                    vec![("program", &program.program[..]), ("fate", fate)],
                    count,
                ));
            }
        }
        self.counters(
            "overlay_program",
            "that left a program, by what became of them",
            &counts,
        );
    }

    fn peers(&mut self, stats: &Stats) {
        let (mut tx, mut rx) = (Vec::new(), Vec::new());
        let (mut passed, mut dropped) = (Vec::new(), Vec::new());
        for network in &stats.networks {
            for peer in &network.peers {
                let labels = vec![
                    ("network", network.name.as_str()),
                    ("peer", peer.name.as_str()),
                ];
                tx.push((labels.clone(), peer.counts.tx));
                rx.push((labels.clone(), peer.counts.rx));
                passed.push((labels.clone(), peer.counts.passed));
                dropped.push((labels, peer.counts.dropped));
            }
        }
        self.counters(
            "overlay_peer_transmit",
            "sent to a peer on the fast path",
            &tx,
        );
        self.counters(
            "overlay_peer_receive",
            "received from a peer on the fast path",
            &rx,
        );
        self.counters(
            "overlay_peer_pass",
            "received from a peer and left to the kernel",
            &passed,
        );
        self.counters(
            "overlay_peer_drop",
            "received from a peer and dropped",
            &dropped,
        );
    }

    fn endpoints(&mut self, stats: &Stats) {
        let mut all: Vec<(OwnLabels<'_>, &EndpointCounts)> = stats
            .endpoints
            .iter()
            .map(|endpoint| {
                let labels = vec![
                    ("network", endpoint.network.as_str()),
                    ("endpoint", endpoint.name.as_str()),
                ];
                (labels, &endpoint.counts)
            })
            .collect();
        // No name of an endpoint has parentheses.
        all.push((vec![("network", ""), ("endpoint", "(node)")], &stats.host));
        all.push((
            vec![("network", ""), ("endpoint", "(former)")],
            &stats.former,
        ));
        let families: [(&str, &str, Of); 6] = [
            (
                "overlay_endpoint_transmit",
                "sent by an endpoint to peers on the fast path",
                |counts| counts.tx,
            ),
            (
                "overlay_endpoint_receive",
                "received by an endpoint from peers on the fast path",
                |counts| counts.rx,
            ),
            (
                "overlay_endpoint_local_transmit",
                "sent by an endpoint to others of this node on the fast path",
                |counts| counts.tx_local,
            ),
            (
                "overlay_endpoint_local_receive",
                "received by an endpoint from others of this node on the fast path",
                |counts| counts.rx_local,
            ),
            (
                "overlay_endpoint_pass",
                "sent by an endpoint and left to the kernel",
                |counts| counts.passed,
            ),
            (
                "overlay_endpoint_drop",
                "sent by an endpoint and dropped",
                |counts| counts.dropped,
            ),
        ];
        for (name, help, of) in families {
            let counts: Vec<_> = all
                .iter()
                .map(|(labels, counts)| (labels.clone(), of(counts)))
                .collect();
            self.counters(name, help, &counts);
        }
    }

    fn reasons(&mut self, stats: &Stats) {
        let reasons = DropReason::ALL.iter().map(|reason| reason.name());
        let drops = reasons
            .chain(KERNEL_REASONS.map(|(name, _)| name))
            .map(|name| {
                let counted = stats.drops.iter().find(|drops| drops.reason == name);
                let count = counted.map(|drops| drops.count).unwrap_or_default();
                (vec![("reason", name)], count)
            });
        let drops: Vec<_> = drops.collect();
        self.counters("overlay_drop", "dropped, by reason", &drops);
        let passes = PassReason::ALL.iter().map(|reason| {
            let name = reason.name();
            let counted = stats.passes.iter().find(|passes| passes.reason == name);
            let count = counted.map(|passes| passes.count).unwrap_or_default();
            (vec![("reason", name)], count)
        });
        let passes: Vec<_> = passes.collect();
        self.counters("overlay_pass", "left to the kernel, by reason", &passes);
        let drops = stats.drops.iter();
        let shares = drops.flat_map(|drops| by_sender(&drops.reason, &drops.senders));
        self.counters(
            "overlay_sender_drop",
            "dropped, by reason and by who sent them",
            &shares.collect::<Vec<_>>(),
        );
        let passes = stats.passes.iter();
        let shares = passes.flat_map(|passes| by_sender(&passes.reason, &passes.senders));
        self.counters(
            "overlay_sender_pass",
            "left to the kernel, by reason and by the peer that sent them",
            &shares.collect::<Vec<_>>(),
        );
    }

    fn maps(&mut self, stats: &Stats) {
        let labels: Vec<_> = stats
            .maps
            .iter()
            .map(|fill| vec![("map", &fill.map[..])])
            .collect();
        let of = |value: fn(&overlay_control::stats::MapFill) -> usize| {
            let fills = labels.iter().zip(&stats.maps);
            fills.map(move |(labels, fill)| (&labels[..], value(fill)))
        };
        self.gauges(
            "overlay_map_entries",
            "Entries of an eBPF map.",
            of(|fill| fill.entries),
        );
        self.gauges(
            "overlay_map_max_entries",
            "Entries that an eBPF map has room for.",
            of(|fill| fill.capacity),
        );
    }

    /// Packets and bytes of the same things.
    pub(super) fn counters(&mut self, name: &str, what: &str, counts: &[(OwnLabels<'_>, Counter)]) {
        for (unit, title) in [("packets", "Packets"), ("bytes", "Bytes of frames")] {
            let of = |count: &Counter| match unit {
                "packets" => count.packets,
                _ => count.bytes,
            };
            let metrics = counts.iter().map(|(labels, count)| {
                let mut value = CounterValue::default();
                value.set_value(number(of(count)));
                let mut metric = labelled(labels);
                metric.set_counter(value);
                metric
            });
            self.family(
                &format!("{name}_{unit}_total"),
                &format!("{title} {what}."),
                MetricType::COUNTER,
                metrics.collect(),
            );
        }
    }

    /// One number that only grows.
    fn count(&mut self, name: &str, help: &str, count: u64) {
        let mut value = CounterValue::default();
        value.set_value(number(count));
        let mut metric = Metric::default();
        metric.set_counter(value);
        self.family(name, help, MetricType::COUNTER, vec![metric]);
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a>, usize)>,
    ) {
        let metrics = values.into_iter();
        let metrics = metrics.map(|(labels, value)| gauge(labels, number(value as u64)));
        self.family(name, help, MetricType::GAUGE, metrics.collect());
    }

    pub(super) fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        metrics: Vec<Metric>,
    ) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

/// The shares of those who sent packets, for one reason.
fn by_sender<'a>(
    reason: &'a str,
    shares: &'a [SenderCount],
) -> impl Iterator<Item = (OwnLabels<'a>, Counter)> {
    shares.iter().map(move |share| {
        let (kind, network, name) = match &share.sender {
            Sender::Peer { network, name } => ("peer", network.as_str(), name.as_str()),
            Sender::Endpoint { name } => ("endpoint", "", name.as_str()),
            Sender::Host => ("endpoint", "", "(node)"),
            Sender::Former => ("endpoint", "", "(former)"),
        };
        let labels = vec![
            ("reason", reason),
            ("kind", kind),
            ("network", network),
            ("sender", name),
        ];
        (labels, share.count)
    })
}

pub(super) fn gauge(labels: Labels<'_>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

/// Prometheus has no other numbers; up to 2⁵³ they are exact.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number(number: u64) -> f64 {
    number as f64
}
