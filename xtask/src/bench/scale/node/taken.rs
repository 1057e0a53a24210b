//! What the agent of a node takes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::Node;

/// What is left to do after a start or a change is done when the agent has taken less than this
/// share of a CPU for a second,
const CALM: f64 = 0.02;
/// which is waited for so many seconds.
const PATIENCE: usize = 60;

/// In MiB.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Memory {
    pub(in crate::bench) now: f64,
    pub(in crate::bench) peak: f64,
}

impl Node {
    /// Waits until the agent has nothing left to do.
    pub(in crate::bench) fn settle(&self) -> Result<()> {
        for _ in 0..PATIENCE {
            if self.share(1)? < CALM {
                break;
            }
        }
        Ok(())
    }

    /// The share of a CPU that the agent takes in so many seconds.
    pub(in crate::bench) fn share(&self, seconds: u64) -> Result<f64> {
        let (before, since) = (self.cpu_time()?, Instant::now());
        thread::sleep(Duration::from_secs(seconds));
        let used = self.cpu_time()?.saturating_sub(before);
        Ok(used.as_secs_f64() / since.elapsed().as_secs_f64())
    }

    pub(in crate::bench) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mib = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib / 1024.0)
        };
        Ok(Memory {
            now: mib("VmRSS:").with_context(|| format!("find VmRSS in {path}"))?,
            peak: mib("VmHWM:").with_context(|| format!("find VmHWM in {path}"))?,
        })
    }

    /// What all of its threads have run so far.
    pub(in crate::bench) fn cpu_time(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.pid()?);
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
            let path = task
                .with_context(|| format!("list {tasks}"))?
                .path()
                .join("schedstat");
            // A thread that has ended meanwhile does not count.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let ran = text
                .split_whitespace()
                .next()
                .and_then(|ran| ran.parse().ok());
            sum += Duration::from_nanos(ran.with_context(|| format!("read {}", path.display()))?);
        }
        Ok(sum)
    }
}
