//! One measurement of one subject.

mod cpu;
mod iperf;
mod programs;
mod sockperf;

pub(crate) use cpu::CpuTime;

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    cores::Cores,
    labs::{Labs, Way},
    load::transactions::{self, Kind},
    metric,
    offloads::Wire,
    options::Times,
    subject::Subject,
    witness::{Known, watched},
};

/// How super-packets of TCP get over the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are.
    Gso,
    /// Cut into frames of the MTU, and merged by GRO.
    Wire,
}

/// A measurement of a subject in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    Tcp(u32, Framing),
    Udp(u32),
    Rtt,
    Requests,
    Connections,
    Cpu,
    Programs,
    LocalUdp,
    LocalRtt,
    LocalTcp,
}

use Framing::{Gso, Wire as OnWire};
use Measurement::{
    Connections, Cpu, LocalRtt, LocalTcp, LocalUdp, Programs, Requests, Rtt, Tcp, Udp,
};

impl Measurement {
    pub(crate) const ALL: &[Self] = &[
        Tcp(1, Gso),
        Tcp(4, Gso),
        Tcp(1, OnWire),
        Tcp(4, OnWire),
        Udp(1),
        Udp(32),
        Rtt,
        Requests,
        Connections,
        Cpu,
        Programs,
        LocalUdp,
        LocalRtt,
        LocalTcp,
    ];

    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Tcp(1, Gso) => "tcp-1-gso",
            Tcp(_, Gso) => "tcp-4-gso",
            Tcp(1, OnWire) => "tcp-1-wire",
            Tcp(_, OnWire) => "tcp-4-wire",
            Udp(1) => "udp-1",
            Udp(_) => "udp-32",
            Rtt => "rtt",
            Requests => "rr",
            Connections => "crr",
            Cpu => "cpu",
            Programs => "programs",
            LocalUdp => "local-udp",
            LocalRtt => "local-rtt",
            LocalTcp => "local-tcp",
        }
    }

    /// Whether it is worth its time in a first look.
    pub(crate) const fn is_brief(self) -> bool {
        !matches!(self, Tcp(4, _) | Udp(32))
    }

    /// The subjects that it means something for.
    pub(crate) const fn subjects(self) -> &'static [Subject] {
        match self {
            Programs => &[Subject::Overlay],
            LocalUdp | LocalRtt | LocalTcp => Subject::LOCAL,
            // A tunnel in user space does not keep up with the rate at which it is measured.
            Cpu => Subject::IN_KERNEL,
            Tcp(1, _) | Udp(1) | Rtt => Subject::UNSHAPED,
            // So many flows that both uplinks get their share.
            Udp(_) => Subject::FLOWS,
            _ => Subject::PLAIN,
        }
    }

    /// The metric that is shown while it runs.
    pub(crate) const fn headline(self) -> &'static str {
        match self {
            Tcp(1, Gso) => "tcp_1_gso",
            Tcp(_, Gso) => "tcp_4_gso",
            Tcp(1, OnWire) => "tcp_1_wire",
            Tcp(_, OnWire) => "tcp_4_wire",
            Udp(1) => "udp_1_received",
            Udp(_) => "udp_32_received",
            Rtt => "rtt_mean",
            Requests => "rr_16",
            Connections => "crr_16",
            Cpu => "cpu_per_packet",
            Programs => "from_endpoint_ns",
            LocalUdp => "local_udp_received",
            LocalRtt => "local_rtt_mean",
            LocalTcp => "local_tcp",
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metric's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
}

impl Reading {
    /// A value of a metric, which must be one of [`metric::METRICS`], and a number.
    pub(crate) fn new(id: &str, value: f64) -> Result<Self> {
        let metric = metric::find(id).with_context(|| format!("there is no metric {id}"))?;
        ensure!(
            value.is_finite() && value > 0.0,
            "{id} is {value}: nothing was measured"
        );
        Ok(Self {
            metric: metric.id,
            value,
        })
    }
}

/// State shared by measurements.
pub(crate) struct Bench {
    pub(crate) labs: Labs,
    pub(crate) cores: Cores,
    pub(crate) times: Times,
    /// The congestion control of TCP.
    pub(crate) congestion: String,
}

impl Bench {
    /// Measures a subject once.
    pub(crate) fn measure(&self, what: Measurement, subject: Subject) -> Result<Vec<Reading>> {
        let way = match what {
            LocalUdp | LocalRtt | LocalTcp => self.labs.local(subject)?,
            _ => self.labs.across(subject)?,
        };
        match what {
            Tcp(streams, framing) => self.tcp(&way, streams, framing),
            LocalTcp => {
                let (gigabits, _) = watched(&way, || iperf::tcp(self, &way, 1))?;
                Ok(vec![Reading::new("local_tcp", gigabits)?])
            }
            Udp(flows) => self.udp(&way, flows, &format!("udp_{flows}")),
            LocalUdp => self.udp(&way, 1, "local_udp"),
            Rtt => self.rtt(&way, &["rtt_mean", "rtt_p50", "rtt_p99", "rtt_p999"]),
            LocalRtt => self.rtt(&way, &["local_rtt_mean", "", "local_rtt_p99", ""]),
            Requests => self.transactions(&way, Kind::Request, self.times.requests, "rr_16"),
            Connections => {
                self.transactions(&way, Kind::Connection, self.times.connections, "crr_16")
            }
            Cpu => cpu::measure(self, &way),
            Programs => programs::measure(self, &way),
        }
    }

    fn tcp(&self, way: &Way, streams: u32, framing: Framing) -> Result<Vec<Reading>> {
        /// A frame of the lab's underlay: its MTU and an Ethernet header.
        const FRAME: f64 = 1514.0;
        let offloads = (framing == OnWire).then(|| Wire::on(way)).transpose()?;
        let (gigabits, moved) = watched(way, || iperf::tcp(self, way, streams))?;
        drop(offloads);
        let mean = moved.mean_frame();
        match framing {
            OnWire => ensure!(
                mean <= FRAME,
                "frames on the underlay had {mean:.0} bytes in the mean: they were not cut"
            ),
            // A tunnel in user space has no super-packets.
            Gso if way.subject == Subject::Tun => {}
            Gso => ensure!(
                mean > 2.0 * FRAME,
                "frames on the underlay had {mean:.0} bytes in the mean: they were cut"
            ),
        }
        let suffix = if framing == OnWire { "wire" } else { "gso" };
        let mut readings = vec![Reading::new(&format!("tcp_{streams}_{suffix}"), gigabits)?];
        if streams == 1
            && framing == OnWire
            && let Some(merged) = moved.merged(way)
        {
            readings.push(Reading::new("gro_1_wire", merged)?);
        }
        Ok(readings)
    }

    fn udp(&self, way: &Way, flows: u32, id: &str) -> Result<Vec<Reading>> {
        let (rates, _) = watched(way, || iperf::udp(self, way, flows))?;
        Ok(vec![
            Reading::new(&format!("{id}_sent"), rates.sent)?,
            Reading::new(&format!("{id}_received"), rates.received)?,
        ])
    }

    /// Mean, median, 99th and 99.9th percentile, under these names; under no name, left out.
    fn rtt(&self, way: &Way, ids: &[&str; 4]) -> Result<Vec<Reading>> {
        let (rtt, _) = watched(way, || sockperf::ping_pong(self, way))?;
        ids.iter()
            .zip([rtt.mean, rtt.p50, rtt.p99, rtt.p999])
            .filter(|(id, _)| !id.is_empty())
            .map(|(id, value)| Reading::new(id, value))
            .collect()
    }

    fn transactions(
        &self,
        way: &Way,
        kind: Kind,
        time: Duration,
        id: &str,
    ) -> Result<Vec<Reading>> {
        let (rate, _) = watched(way, || {
            let done = transactions::run(way, self.cores, kind, time)?;
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            let transactions = done.transactions as f64;
            // A connection is three packets at the very least: SYN, request, FIN.
            let packets = match kind {
                Kind::Request => transactions,
                Kind::Connection => 3.0 * transactions,
            };
            Ok((Known::both(packets), transactions / done.seconds))
        })?;
        Ok(vec![Reading::new(id, rate)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_shows_a_metric_that_there_is() {
        for measurement in Measurement::ALL {
            assert!(
                metric::find(measurement.headline()).is_some(),
                "{measurement}"
            );
        }
    }

    #[test]
    fn a_reading_is_of_a_known_metric_and_a_number() {
        assert!(Reading::new("rtt_mean", 6.2).is_ok());
        assert!(Reading::new("rtt_meen", 6.2).is_err());
        for nothing in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Reading::new("rtt_mean", nothing).is_err(), "{nothing}");
        }
    }
}
