//! What the store and agents say of themselves.

use anyhow::{Context as _, Result};
use overlay_tests::{agent::Agent, run};
use serde_json::Value;

use crate::lab::{Cluster, SUBNETS};

impl Cluster {
    /// What `etcdctl` says to one member.
    pub(crate) fn etcdctl_at(&self, member: u8, command: &str) -> Result<String> {
        Ok(run::checked(self.etcdctl_argv(&self.url(member), command))?)
    }

    /// Puts a key by one member.
    pub(crate) fn put_at(&self, member: u8, key: &str, value: &str) -> Result<()> {
        let mut argv = self.etcdctl_argv(&self.url(member), "put");
        argv.extend([key, value].map(str::to_owned));
        run::checked(&argv)?;
        Ok(())
    }

    /// What `etcdctl` says in JSON.
    pub(crate) fn json(&self, command: &str) -> Result<Value> {
        let said = self.etcdctl(&format!("{command} --write-out=json"))?;
        serde_json::from_str(&said).with_context(|| format!("{command}: {said}"))
    }

    /// What a node has in the store: its key, and the key-value pair there.
    pub(crate) fn entry_of(&self, agent: &Agent) -> Result<(String, Value)> {
        let said = agent.json(&["cluster", "status"])?;
        let subnet = said["subnet"].as_str().context("a subnet")?;
        let key = format!("{SUBNETS}{subnet}");
        let found = self.json(&format!("get {key}"))?;
        let entry = found.pointer("/kvs/0").cloned();
        let entry = entry.with_context(|| format!("no {key}: {found}"))?;
        Ok((key, entry))
    }

    /// Asks the first member by HTTP, with a body or without.
    pub(crate) fn http(&self, path: &str, body: &str) -> Result<String> {
        let body = if body.is_empty() {
            String::new()
        } else {
            format!(" --data {body}")
        };
        let url = self.url(1);
        let curl = format!("curl --silent --show-error --fail {url}{path}{body}");
        Ok(run::checked(self.inside(1, &curl))?)
    }

    /// How many requests for ranges of keys the first member has had.
    pub(crate) fn ranges(&self) -> Result<u64> {
        const METRIC: &str = "grpc_server_msg_received_total{grpc_method=\"Range\"";
        let metrics = self.http("/metrics", "")?;
        let line = metrics.lines().find(|line| line.starts_with(METRIC));
        let value = line.and_then(|line| line.rsplit(' ').next());
        let value = value.with_context(|| format!("no {METRIC} in {metrics}"))?;
        Ok(value.parse()?)
    }
}

/// How often a node has connected to the store, and listed it.
pub(crate) fn connections(agent: &Agent) -> Result<u64> {
    let stats = agent.json(&["stats"])?;
    let connections = stats["cluster"]["connections"].as_u64();
    connections.with_context(|| format!("no connections in {stats}"))
}

/// The processes that an agent has started and that run.
pub(crate) fn children(agent: &Agent) -> Result<Vec<i32>> {
    let pid = agent.process()?.context("the agent runs")?.pid;
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile has none.
        let Ok(pids) = std::fs::read_to_string(task?.path().join("children")) else {
            continue;
        };
        for pid in pids.split_whitespace() {
            all.push(pid.parse()?);
        }
    }
    Ok(all)
}
