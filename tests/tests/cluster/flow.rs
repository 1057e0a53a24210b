//! What flows while something happens to the store, and must come without a gap.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overlay_tests::{
    names::LabName,
    processes, run,
    script::{Step, words},
    state,
};

use crate::lab::Cluster;

const TASK: &str = "flow";

/// Pings, ten a second.
pub(crate) struct Flow(LabName);

impl Flow {
    /// From the container of one node to the first address of another's.
    pub(crate) fn start(cluster: &Cluster, from: u8, to: u8) -> Result<Self> {
        Self::to(cluster, from, cluster.addresses(to)?[0])
    }

    /// From the container of a node to an address.
    pub(crate) fn to(cluster: &Cluster, from: u8, address: IpAddr) -> Result<Self> {
        let lab: LabName = cluster.name.parse()?;
        let ping = format!(
            "ip netns exec {}-n{from}c1 ping -n -i 0.1 {address}",
            cluster.name
        );
        let start = Step::Start {
            task: TASK.to_owned(),
            argv: words(ping),
            log: state::log_file(&lab, TASK),
        };
        run::run_step(&lab, &start)?;
        Ok(Self(lab))
    }

    /// Ends it: all have come, each once.
    pub(crate) fn came_whole(self) -> Result<()> {
        let ping = processes::task(&self.0, TASK)?.context("ping runs")?;
        ping.signal(Signal::SIGINT)?;
        ensure!(
            ping.wait(Instant::now() + Duration::from_secs(20)),
            "ping lives"
        );
        let log = fs::read_to_string(state::log_file(&self.0, TASK))?;
        ensure!(
            log.contains(" 0% packet loss") && !log.contains("duplicates"),
            "{log}"
        );
        Ok(())
    }
}
