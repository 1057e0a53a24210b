//! Revisions that a node has not heard of yet, and that the store does not have any more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::run;
use serde_json::Value;

use crate::{
    asked::connections,
    flannel::{lease, there, until_there},
    flow::Flow,
    lab::{Cluster, SUBNETS, until, until_said},
    proxied::{IS_SWALLOWED, PASSES, PORT, Proxy},
};

/// Range requests that follow one look at the store: for leases, the configuration and what was used.
const LOOK: u64 = 3;

fn key(number: u8) -> String {
    format!("{SUBNETS}10.244.{number}.0-24")
}

/// Writes something that is no node's, and has the store forget all that was before.
fn forget(cluster: &Cluster) -> Result<()> {
    // "/other": "x"
    let put = cluster.http("/v3/kv/put", r#"{"key":"L290aGVy","value":"eA=="}"#)?;
    let put: Value = serde_json::from_str(&put)?;
    let revision = put["header"]["revision"].as_str().context("a revision")?;
    cluster.http("/v3/kv/compaction", &format!("{{\"revision\":{revision}}}"))?;
    Ok(())
}

/// While the way is cut a node changes, one goes, and one comes; what tells of it is gone afterwards.
fn forgotten_while_away(cluster: &Cluster, proxy: &Proxy) -> Result<()> {
    let agent = cluster.guard.agent(1);
    for number in [240, 241] {
        cluster.put(&key(number), &lease(number, 0))?;
        until_there(&agent, number, number, 0)?;
    }
    let heard = agent.json(&["cluster", "status"])?["revision"].clone();
    let heard = heard.as_u64().context("a revision")?;
    proxy.set(IS_SWALLOWED);
    cluster.put(&key(240), &lease(240, 1))?;
    cluster.etcdctl(&format!("del {}", key(241)))?;
    cluster.put(&key(242), &lease(242, 0))?;
    forget(cluster)?;
    let next = format!("get {} --rev={}", key(240), heard + 1);
    let refused = run::output(cluster.etcdctl_argv(&cluster.url(1), &next))?;
    ensure!(
        !refused.success && refused.stderr.contains("has been compacted"),
        "{refused:?}"
    );
    until_said(&agent, "etcd cannot be followed, the last known peers stay")?;
    for number in [240, 241] {
        there(&agent, number, number, 0)?;
    }
    proxy.set(PASSES);
    until_there(&agent, 242, 242, 0)?;
    // Also of one that was there before the new value counts, and who is missing is in doubt.
    until_there(&agent, 240, 240, 1)?;
    until_said(&agent, "(1 not in etcd any more)")?;
    there(&agent, 241, 241, 0)?;
    Ok(agent.is_well()?)
}

/// The store forgets so fast that the revision of each list is gone before it is watched from there.
fn forgotten_while_it_looks(cluster: &Cluster) -> Result<()> {
    let (agent, other) = (cluster.guard.agent(1), cluster.guard.agent(2));
    // Its data plane goes on, and it asks for nothing.
    other.stop()?;
    let connected = connections(&agent)?;
    let config = "/coreos.com/network/config";
    let same = cluster.etcdctl(&format!("get --print-value-only {config}"))?;
    let before = cluster.ranges()?;
    cluster.put(config, same.trim_end())?;
    let deadline = Instant::now() + Duration::from_mins(2);
    // The first look is because of that, and the others because nothing can be watched.
    while cluster.ranges()? < before + 3 * LOOK {
        ensure!(
            Instant::now() < deadline,
            "it looks no more: {} requests; {}",
            cluster.ranges()? - before,
            agent.log()?
        );
        forget(cluster)?;
    }
    there(&agent, 242, 242, 0)?;
    cluster.put(&key(243), &lease(243, 0))?;
    until_there(&agent, 243, 243, 0)?;
    assert_eq!(connections(&agent)?, connected, "{}", agent.log()?);
    other.start_anyhow()?;
    Ok(())
}

#[test]
fn what_the_store_has_forgotten_is_listed_again_and_takes_nothing() -> Result<()> {
    let cluster = Cluster::up("tecomp", 2)?;
    let agents = [1, 2].map(|node| cluster.guard.agent(node));
    let proxy = Proxy::open(&cluster, &agents[0].instance)?;
    cluster.configure_at(1, &[format!("http://127.0.0.1:{PORT}")], "")?;
    cluster.configure(2, "")?;
    cluster.init()?;
    for agent in &agents {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    cluster.reaches(1, 2)?;
    let flow = Flow::start(&cluster, 1, 2)?;
    forgotten_while_away(&cluster, &proxy)?;
    forgotten_while_it_looks(&cluster)?;
    until("the end of who has gone", || {
        let route = format!("ip -n {} route show 10.244.241.0/24", agents[0].instance);
        let route = run::checked(route)?;
        ensure!(route.is_empty(), "{route}");
        Ok(())
    })?;
    flow.came_whole()?;
    for agent in &agents {
        agent.is_well()?;
    }
    Ok(cluster.guard.down()?)
}
