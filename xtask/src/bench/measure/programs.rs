//! What the kernel itself says that the programs take, while they carry a flood.

use anyhow::{Context as _, Result};
use overlay_common::programs;
use overlay_tests::run_time::{self, RunTime, Statistics};

use super::{Bench, Reading, iperf};
use crate::bench::{labs::Way, witness::watched};

pub(super) fn measure(bench: &Bench, way: &Way) -> Result<Vec<Reading>> {
    let encapsulates = run_time::find(&way.client_node, programs::FROM_ENDPOINT)?;
    let decapsulates = run_time::find(&way.server_node, programs::FROM_UNDERLAY)?;
    let statistics = Statistics::on()?;
    let times = || Ok::<_, anyhow::Error>([RunTime::of(encapsulates)?, RunTime::of(decapsulates)?]);
    let before = times()?;
    watched(way, || iperf::udp(bench, way, 1))?;
    let after = times()?;
    drop(statistics);
    let mean = |program: usize| {
        let taken = after[program].since(before[program]);
        taken.mean().context("the program did not run")
    };
    Ok(vec![
        Reading::new("from_endpoint_ns", mean(0)?)?,
        Reading::new("from_underlay_ns", mean(1)?)?,
    ])
}
