//! CPU time per packet at a rate that every path carries.
//!
//! The kernel samples what a CPU does, but measures how long it idles; so the time is that
//! of all CPUs less their idle time, with ends that send and receive in batches and then
//! sleep, and less what the same ends take when there is nothing to send.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Bench, Reading};
use crate::bench::{
    labs::Way,
    load::{
        datagrams::{self, Receiver},
        on,
    },
    witness::{Known, watched},
};

/// Datagrams a millisecond.
const BATCH: usize = 50;
/// Fewer than this share of what was sent did not arrive by chance.
const ARRIVED: f64 = 0.98;
/// What a clock tick of `/proc/stat` is, in seconds (`USER_HZ`).
const TICK: f64 = 0.01;

/// Packets, and for how long CPUs were busy.
struct Load {
    sent: u64,
    received: u64,
    /// CPU-seconds per second.
    busy: f64,
    seconds: f64,
}

pub(super) fn measure(bench: &Bench, way: &Way) -> Result<Vec<Reading>> {
    let silent = run(bench, way, 0)?;
    let (loaded, _) = watched(way, || {
        let load = run(bench, way, BATCH)?;
        let known = Known {
            sent: count(load.sent),
            received: count(load.received),
        };
        Ok((known, load))
    })?;
    let (sent, received) = (count(loaded.sent), count(loaded.received));
    ensure!(
        received >= sent * ARRIVED,
        "only {received} of {sent} packets arrived at a rate of 50,000 a second"
    );
    let busy = (loaded.busy - silent.busy) * loaded.seconds;
    ensure!(
        busy > TICK,
        "the CPUs idled no less with packets than without: other programs take what time is left"
    );
    Ok(vec![Reading::new("cpu_per_packet", busy * 1e9 / sent)?])
}

fn run(bench: &Bench, way: &Way, batch: usize) -> Result<Load> {
    let sink = on(&way.server, bench.cores.server, || {
        Receiver::open(way.listening)
    })?;
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| on(&way.server, bench.cores.server, || sink.run(&end)));
        let load = on(&way.client, bench.cores.client, || {
            let (started, before) = (Instant::now(), CpuTime::read()?);
            let sent = datagrams::paced(way.address, batch, bench.times.cpu)?;
            let (after, elapsed) = (CpuTime::read()?, started.elapsed());
            Ok((sent, after.busy_since(&before, elapsed), elapsed))
        });
        end.store(true, Ordering::Relaxed);
        let received = receiving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (sent, busy, elapsed) = load?;
        Ok(Load {
            sent,
            received,
            busy,
            seconds: elapsed.as_secs_f64(),
        })
    })
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 packets")]
fn count(packets: u64) -> f64 {
    packets as f64
}

/// The first line of `/proc/stat`, in ticks over all CPUs, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuTime {
    /// Idle, waiting for a disk or not.
    idle: f64,
    /// Taken by the hypervisor.
    pub(crate) stolen: f64,
    cpus: f64,
}

impl CpuTime {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat is not understood")
    }

    fn parse(text: &str) -> Option<Self> {
        let total = text.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal
        let ticks: Vec<f64> = total
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        let cpus = text
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("cpu"));
        Some(Self {
            idle: ticks.get(3)? + ticks.get(4)?,
            stolen: *ticks.get(7)?,
            cpus: f64::from(u32::try_from(cpus.count()).ok()?),
        })
    }

    /// CPU-seconds per second that were not idle.
    pub(crate) fn busy_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        self.cpus - (self.idle - earlier.idle) * TICK / elapsed.as_secs_f64()
    }

    /// Share of all CPUs' time that the hypervisor took.
    pub(crate) fn stolen_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        (self.stolen - earlier.stolen) * TICK / (elapsed.as_secs_f64() * self.cpus)
    }

    /// Share of all CPUs' time that was not idle.
    pub(crate) fn load_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        self.busy_since(earlier, elapsed) / self.cpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_not_idle() {
        let earlier = "cpu  100 0 50 1000 20 0 5 2 0 0\ncpu0 50 0 25 500 10 0 2 1 0 0\n\
                       cpu1 50 0 25 500 10 0 3 1 0 0\nintr 1\n";
        let later = "cpu  200 0 150 1290 30 0 5 12 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\n\
                     cpu1 1 0 0 0 0 0 0 0 0 0\nintr 1\n";
        let [earlier, later] = [earlier, later].map(|text| CpuTime::parse(text).unwrap());
        // Two CPUs for two seconds are 400 ticks, of which 300 were idle.
        let elapsed = Duration::from_secs(2);
        assert!((later.busy_since(&earlier, elapsed) - 0.5).abs() < 1e-9);
        assert!((later.load_since(&earlier, elapsed) - 0.25).abs() < 1e-9);
        assert!((later.stolen_since(&earlier, elapsed) - 0.025).abs() < 1e-9);
        assert_eq!(CpuTime::parse("nothing"), None);
    }
}
