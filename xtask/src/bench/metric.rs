//! The metrics: names, units, and whether more or less is better.

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Better {
    /// The word in `results.json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// Metrics that belong on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Tcp,
    Udp,
    Latency,
    Transactions,
    Cpu,
    Local,
    Growth,
}

impl Group {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tcp,
        Self::Udp,
        Self::Latency,
        Self::Transactions,
        Self::Cpu,
        Self::Local,
        Self::Growth,
    ];

    /// The name of its chart's file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Latency => "latency",
            Self::Transactions => "transactions",
            Self::Cpu => "cpu",
            Self::Local => "local",
            Self::Growth => "growth",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP throughput",
            Self::Udp => "Small packets",
            Self::Latency => "Round trips",
            Self::Transactions => "Transactions",
            Self::Cpu => "CPU",
            Self::Local => "On one node",
            Self::Growth => "With many peers",
        }
    }

    /// How it is measured, for people.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Tcp => {
                "iperf3, sender and receiver on a core each. “gso”: super-packets cross the \
                 underlay, as between virtual machines. “wire”: they are cut into frames of the \
                 MTU before the underlay, and merged again by GRO behind it."
            }
            Self::Udp => {
                "iperf3 sends UDP datagrams of 64 bytes as fast as one core can. What is sent but \
                 not received was dropped at the receiving socket, whose core was busy."
            }
            Self::Latency => {
                "sockperf ping-pong, UDP datagrams of 64 bytes, both ends spinning on a core of \
                 their own: time there and back."
            }
            Self::Transactions => {
                "16 TCP flows at once, 64 bytes there and 64 back; and 16 clients that connect, \
                 ask, hear and close."
            }
            Self::Cpu => {
                "Time that all CPUs together are not idle, at 50,000 UDP datagrams of 64 bytes \
                 per second, less that of the same programs when they send nothing. And what the \
                 kernel's own statistics say of each eBPF program under a flood of datagrams."
            }
            Self::Local => {
                "Container to container on one node: overlay's local delivery (overlay), the \
                 kernel's bridge (overlay-off), and a program that only redirects (ceiling)."
            }
            Self::Growth => {
                "10 to 100,000 peers, with a subnet and a VTEP each, and a flood of datagrams to \
                 random containers of all of them; the programs also alone, by BPF_PROG_TEST_RUN \
                 on trains of packets to random peers: the first of a train finds nothing of \
                 its peer in the caches."
            }
        }
    }
}

/// One number that a subject is given in every round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Metric {
    /// Its key in `results.json`.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) group: Group,
}

const fn metric(
    group: Group,
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
) -> Metric {
    Metric {
        id,
        title,
        unit,
        better,
        group,
    }
}

use Better::{Higher, Lower};
use Group::{Cpu, Growth, Latency, Local, Tcp, Transactions, Udp};

/// Every metric, in the order of tables and charts.
#[rustfmt::skip]
pub(crate) const METRICS: &[Metric] = &[
    metric(Tcp, "tcp_1_gso", "TCP, 1 stream, gso", "Gbit/s", Higher),
    metric(Tcp, "tcp_4_gso", "TCP, 4 streams, gso", "Gbit/s", Higher),
    metric(Tcp, "tcp_1_wire", "TCP, 1 stream, wire", "Gbit/s", Higher),
    metric(Tcp, "tcp_4_wire", "TCP, 4 streams, wire", "Gbit/s", Higher),
    metric(Tcp, "gro_1_wire", "Frames that GRO merged into one, 1 stream, wire", "frames", Higher),
    metric(Udp, "udp_1_sent", "UDP 64 B, 1 flow, sent", "packets/s", Higher),
    metric(Udp, "udp_1_received", "UDP 64 B, 1 flow, received", "packets/s", Higher),
    metric(Udp, "udp_32_sent", "UDP 64 B, 32 flows, sent", "packets/s", Higher),
    metric(Udp, "udp_32_received", "UDP 64 B, 32 flows, received", "packets/s", Higher),
    metric(Latency, "rtt_mean", "Round trip, mean", "µs", Lower),
    metric(Latency, "rtt_p50", "Round trip, median", "µs", Lower),
    metric(Latency, "rtt_p99", "Round trip, 99th percentile", "µs", Lower),
    metric(Latency, "rtt_p999", "Round trip, 99.9th percentile", "µs", Lower),
    metric(Transactions, "rr_16", "Request and response, 16 flows", "1/s", Higher),
    metric(Transactions, "crr_16", "Connect, request, response, close, 16 clients", "1/s", Higher),
    metric(Cpu, "cpu_per_packet", "CPU time per packet at 50,000 packets/s", "ns", Lower),
    metric(Cpu, "from_endpoint_ns", "Program from_endpoint (encapsulates), live", "ns", Lower),
    metric(Cpu, "from_underlay_ns", "Program from_underlay (decapsulates), live", "ns", Lower),
    metric(Local, "local_udp_sent", "One node: UDP 64 B, sent", "packets/s", Higher),
    metric(Local, "local_udp_received", "One node: UDP 64 B, received", "packets/s", Higher),
    metric(Local, "local_rtt_mean", "One node: round trip, mean", "µs", Lower),
    metric(Local, "local_rtt_p99", "One node: round trip, 99th percentile", "µs", Lower),
    metric(Local, "local_tcp", "One node: TCP, 1 stream", "Gbit/s", Higher),
    metric(Growth, "pps_10_peers", "Sent to 10 peers", "packets/s", Higher),
    metric(Growth, "pps_1000_peers", "Sent to 1,000 peers", "packets/s", Higher),
    metric(Growth, "pps_10000_peers", "Sent to 10,000 peers", "packets/s", Higher),
    metric(Growth, "pps_100000_peers", "Sent to 100,000 peers", "packets/s", Higher),
    metric(Growth, "encap_ns_10_peers", "Encapsulation, 10 peers", "ns", Lower),
    metric(Growth, "encap_ns_1000_peers", "Encapsulation, 1,000 peers", "ns", Lower),
    metric(Growth, "encap_ns_10000_peers", "Encapsulation, 10,000 peers", "ns", Lower),
    metric(Growth, "encap_ns_100000_peers", "Encapsulation, 100,000 peers", "ns", Lower),
    metric(Growth, "encap_first_ns_10_peers", "Encapsulation, first packet, 10 peers", "ns", Lower),
    metric(Growth, "encap_first_ns_1000_peers", "Encapsulation, first packet, 1,000 peers", "ns", Lower),
    metric(Growth, "encap_first_ns_10000_peers", "Encapsulation, first packet, 10,000 peers", "ns", Lower),
    metric(Growth, "encap_first_ns_100000_peers", "Encapsulation, first packet, 100,000 peers", "ns", Lower),
    metric(Growth, "decap_ns_10_peers", "Decapsulation, 10 peers", "ns", Lower),
    metric(Growth, "decap_ns_1000_peers", "Decapsulation, 1,000 peers", "ns", Lower),
    metric(Growth, "decap_ns_10000_peers", "Decapsulation, 10,000 peers", "ns", Lower),
    metric(Growth, "decap_ns_100000_peers", "Decapsulation, 100,000 peers", "ns", Lower),
    metric(Growth, "decap_first_ns_10_peers", "Decapsulation, first packet, 10 peers", "ns", Lower),
    metric(Growth, "decap_first_ns_1000_peers", "Decapsulation, first packet, 1,000 peers", "ns", Lower),
    metric(Growth, "decap_first_ns_10000_peers", "Decapsulation, first packet, 10,000 peers", "ns", Lower),
    metric(Growth, "decap_first_ns_100000_peers", "Decapsulation, first packet, 100,000 peers", "ns", Lower),
];

/// Numbers of peers that growth is measured at.
pub(crate) const PEERS: [u32; 4] = [10, 1_000, 10_000, 100_000];

/// The metric of this name.
pub(crate) fn find(id: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_keys() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert_eq!(find(metric.id), Some(&METRICS[at]), "{} twice", metric.id);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(metric.id.chars().all(plain), "{}", metric.id);
        }
    }

    #[test]
    fn growth_has_a_metric_for_every_number_of_peers() {
        for peers in PEERS {
            for what in [
                "pps",
                "encap_ns",
                "encap_first_ns",
                "decap_ns",
                "decap_first_ns",
            ] {
                assert!(find(&format!("{what}_{peers}_peers")).is_some());
            }
        }
    }

    #[test]
    fn groups_follow_each_other() {
        assert!(METRICS.is_sorted_by_key(|metric| metric.group));
    }
}
