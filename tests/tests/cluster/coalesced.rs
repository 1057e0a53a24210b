//! etcd's own proxy between nodes and the store: it watches once for all of them.

use anyhow::{Context as _, Result};
use overlay_tests::{run, script::Step, state};

use crate::{
    flannel::{lease, until_there},
    lab::{Cluster, SUBNETS, until},
};

const PORT: u16 = 2390;

/// How often a method of the store has been called.
fn calls(cluster: &Cluster, method: &str) -> Result<f64> {
    let metrics = cluster.inside(1, &format!("curl -sf {}/metrics", cluster.url(1)));
    let metrics = run::checked(&metrics)?;
    let handled = metrics
        .lines()
        .filter(|line| line.starts_with("grpc_server_handled_total{"))
        .filter(|line| line.contains(&format!("grpc_method=\"{method}\"")))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(_, count)| count.parse::<f64>());
    handled.sum::<Result<f64, _>>().context("counts")
}

#[test]
fn nodes_behind_etcds_proxy_do_not_list_the_store_again_and_again() -> Result<()> {
    let cluster = Cluster::up("tecoal", 3)?;
    let node = &cluster.guard.topology().nodes[0];
    let (listen, lab) = (format!("{}:{PORT}", node.underlay), cluster.name.parse()?);
    let member = cluster.url(1);
    let command = format!(
        "etcd grpc-proxy start --endpoints {} --listen-addr {listen} --advertise-client-url {listen}",
        member.trim_start_matches("http://")
    );
    let start = Step::Start {
        task: "proxy".to_owned(),
        argv: cluster.inside(1, &command),
        log: state::log_file(&lab, "proxy"),
    };
    run::run_step(&lab, &start)?;
    let url = format!("http://{listen}");
    until("the proxy", || {
        let command = format!("env ETCDCTL_API=3 etcdctl --endpoints={url} get health");
        run::checked(cluster.inside(1, &command))?;
        Ok(())
    })?;
    let nodes = [1, 2, 3];
    for node in nodes {
        cluster.configure_at(node, std::slice::from_ref(&url), "")?;
    }
    cluster.init()?;
    let agents = nodes.map(|node| cluster.guard.agent(node));
    for agent in &agents {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    cluster.reaches(1, 2)?;
    cluster.reaches(3, 1)?;

    let own = cluster.leases()?;
    assert_eq!(own.len(), 3, "{own:?}");
    let is_free = |number: &u8| !own.contains(&format!("10.244.{number}.0-24"));
    let before = calls(&cluster, "Range")?;
    for number in (100..250).filter(is_free).take(10) {
        cluster.put(&format!("{SUBNETS}10.244.{number}.0-24"), &lease(number, 0))?;
        for agent in &agents {
            until_there(agent, number, number, 0)
                .with_context(|| agent.log().unwrap_or_default())?;
        }
    }
    // Whoever lists asks for everything at least twice.
    let requests = calls(&cluster, "Range")? - before;
    assert!(
        requests < 10.0,
        "{requests} range requests while ten nodes came"
    );
    // Who starts again renews the lease that it has.
    for agent in &agents {
        agent.stop()?;
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    let leases = cluster.leases()?;
    let has = |lease: &String| leases.contains(lease);
    assert!(own.iter().all(has), "{leases:?}, not {own:?}");
    cluster.reaches(2, 3)?;
    Ok(cluster.guard.down()?)
}
