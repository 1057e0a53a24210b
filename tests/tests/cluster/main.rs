//! A cluster whose peers and subnets come from a real etcd: nodes find each other, and nothing that
//! happens to the store takes from the data plane what works.

mod access;
mod asked;
mod asleep;
mod certificates;
mod changes;
mod coalesced;
mod compacted;
mod dual_stack;
mod flannel;
mod flow;
mod keys;
mod lab;
mod members;
mod migrated;
mod newer;
mod proxied;
mod restored;
mod subnet_env;

use std::{fs, thread};

use anyhow::{Context as _, Result};
use overlay_tests::{agent::Agent, run, schema::Schema, snapshot::Snapshot};

use crate::{
    asked::children,
    lab::{Cluster, SUBNETS, until, until_found, until_said},
};

/// An agent's helper is nobody, can become nobody else, and has nothing of the agent's.
fn the_helper_may_do_nothing(agent: &Agent) -> Result<()> {
    let children = children(agent)?;
    let [pid] = children[..] else {
        anyhow::bail!("not one helper: {children:?}");
    };
    let rights = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "Name:\toverlay-cluster",
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "Groups:\t",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(
            rights.lines().any(|it| it.trim_end() == line.trim_end()),
            "{line}: {rights}"
        );
    }
    assert_eq!(fs::read(format!("/proc/{pid}/environ"))?, b"");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd"))?.as_os_str(), "/");
    for file in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let file = file?;
        // Behind its standard ones there are sockets and timers of its own.
        let is_standard = ["0", "1", "2"].iter().any(|it| file.file_name() == *it);
        let target = fs::read_link(file.path())?;
        let is_nothing = !target.is_absolute() || target.as_os_str() == "/dev/null";
        assert!(is_standard || is_nothing, "{}", target.display());
    }
    Ok(())
}

/// Waits until Prometheus is told this of the store, and of all that there is.
fn is_measured(agent: &Agent, metrics: &[(&str, u64)]) -> Result<()> {
    let curl = format!(
        "ip netns exec {} curl --silent --show-error --fail http://127.0.0.1:9466/metrics",
        agent.instance
    );
    let labels = "{network=\"lab\"}";
    until("a metric", || {
        let page = run::checked(&curl)?;
        for (name, value) in metrics {
            let line = format!("overlay_cluster_{name}{labels} {value}");
            anyhow::ensure!(page.lines().any(|it| it == line), "no {line} in {page}");
        }
        for name in ["contact_age_seconds", "revision", "connections_total"] {
            let start = format!("overlay_cluster_{name}{labels} ");
            anyhow::ensure!(page.contains(&start), "no {start} in {page}");
        }
        Ok(())
    })
}

/// A command about the store in JSON, which is as the schema says.
fn in_json(definition: &str, said: &run::Output) -> Result<()> {
    let text = if said.stdout.is_empty() {
        &said.stderr
    } else {
        &said.stdout
    };
    let value = serde_json::from_str(text).with_context(|| format!("{said:?}"))?;
    let faults = Schema::read()?.faults(definition, &value);
    anyhow::ensure!(faults.is_empty(), "{definition}: {faults:#?}");
    Ok(())
}

/// What a cluster that is well, and `init`, tell programs.
fn answers_in_json(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let status = agent.ask(&["cluster", "status", "-o", "json"])?;
    in_json("cluster_status", &status)?;
    let of = |words: &[&str]| cluster.cluster(1, &[&["init", "-o", "json"], words].concat());
    in_json("cluster_role", &of(&["--role"])?)?;
    in_json("cluster_init", &of(&["--cidr", "10.244.0.0/16"])?)?;
    in_json("error", &of(&["--cidr", "10.99.0.0/16"])?)
}

/// Writes more entries that are none than are told, and removes them.
fn many_foreign_entries(cluster: &Cluster, agent: &Agent) -> Result<()> {
    for number in 0..20 {
        cluster.put(&format!("{SUBNETS}10.98.{number}.0-24"), "no lease")?;
    }
    until_said(agent, "and 4 more entries are left out")?;
    let said = agent.json(&["cluster", "status"])?;
    let problems = said["problems"].as_array().context("problems")?;
    assert_eq!(problems.len(), 17, "{said:#}");
    assert_eq!(problems[0]["subject"], "cluster 10.98.0.0-24");
    in_json(
        "cluster_status",
        &agent.ask(&["cluster", "status", "-o", "json"])?,
    )?;
    cluster.etcdctl(&format!("del --prefix {SUBNETS}10.98."))?;
    Ok(agent.is_well()?)
}

/// Looks from the second node at a node of flannel's, and at what is none.
fn foreign_entries(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let flannel = r#"{"PublicIP":"192.168.56.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"}}"#;
    cluster.put(&format!("{SUBNETS}10.244.250.0-24"), flannel)?;
    cluster.put(
        &format!("{SUBNETS}10.99.0.0-24"),
        &flannel.replace("99\"", "98\""),
    )?;
    cluster.put(&format!("{SUBNETS}10.244.251.0-24"), "no lease")?;
    until_said(agent, "10.99.0.0-24 is left out")?;
    until_said(
        agent,
        "10.244.251.0-24\" is left out: its value is not a JSON object",
    )?;
    until_found(agent, "cluster-entry")?;
    let route = run::checked("ip -n tetcd-n2 route show 10.244.250.0/24")?;
    assert!(route.contains("via 10.244.250.0"), "{route}");
    cluster.reaches(2, 3)?;
    for key in ["10.99.0.0-24", "10.244.251.0-24", "10.244.250.0-24"] {
        cluster.etcdctl(&format!("del {SUBNETS}{key}"))?;
    }
    Ok(())
}

/// Who leaves gives the subnet back: the third node.
fn leaves(cluster: &Cluster, agent: &Agent, subnet: &str) -> Result<()> {
    let refused = cluster.cluster(3, &["leave"])?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    agent.tell(&["down"])?;
    let left = cluster.cluster(3, &["leave"])?;
    assert!(left.success, "{left:?}");
    in_json(
        "cluster_leave",
        &cluster.cluster(3, &["leave", "-o", "json"])?,
    )?;
    let left = left.stdout;
    assert_eq!(left.trim(), subnet);
    assert!(!cluster.leases()?.iter().any(|it| it == subnet));
    Ok(())
}

#[test]
fn nodes_that_know_only_the_store_reach_each_other_whatever_becomes_of_it() -> Result<()> {
    let cluster = Cluster::up("tetcd", 3)?;
    let agents: Vec<Agent> = (1..=3).map(|node| cluster.guard.agent(node)).collect();
    for node in 1..=3 {
        cluster.configure(node, "")?;
    }
    let written = cluster.init()?;
    assert!(written.contains(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":1}}"#));
    for agent in &agents {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        cluster.reaches(from, to)?;
    }
    let own = cluster.leases()?;
    assert_eq!(own.len(), 3, "{own:?}");
    agents[0].until_done()?;
    let file = agents[0].config_file();
    let checked = agents[0].call(&["check", "--config", &file.to_string_lossy()])?;
    assert!(checked.success, "{checked:?}");
    // Byte for byte what flannel writes, and ours behind it.
    let node = &cluster.guard.topology().nodes[1];
    let value = format!(
        r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}},"Overlay":{{"Node":"{}"}}}}"#,
        node.underlay,
        node.vtep_mac(overlay_tests::families::Family::V4),
        node.namespace,
    );
    let values = cluster.etcdctl(&format!("get --prefix --print-value-only {SUBNETS}"))?;
    assert!(values.contains(&value), "{values}");

    the_helper_may_do_nothing(&agents[1])?;
    is_measured(
        &agents[0],
        &[("connected", 1), ("leases", 2), ("doubtful_leases", 0)],
    )?;
    foreign_entries(&cluster, &agents[1])?;
    many_foreign_entries(&cluster, &agents[1])?;
    answers_in_json(&cluster, &agents[1])?;

    // A lost lease is claimed again, and the subnet stays the node's.
    let subnet = cluster.lose_lease(&agents[2])?;

    // A store that is away, also when a node starts.
    let before = Snapshot::of(&agents[1].instance)?;
    cluster.kill(1)?;
    until_said(
        &agents[0],
        "etcd cannot be followed, the last known peers stay",
    )?;
    until_found(&agents[0], "cluster-away")?;
    is_measured(&agents[0], &[("connected", 0)])?;
    let away = agents[0].json(&["stats"])?["cluster"].clone();
    assert!(away["contact_age_ms"].as_u64() > Some(0), "{away}");
    agents[0].stop()?;
    agents[0].start_anyhow()?;
    until_said(&agents[0], "not connected to")?;
    for (from, to) in [(1, 2), (2, 1), (1, 3)] {
        cluster.reaches(from, to)?;
    }
    let changes = Snapshot::of(&agents[1].instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");

    // One that comes back empty, and counts from one again.
    cluster.start("second")?;
    until("another connection", || {
        let cluster = agents[1].json(&["stats"])?["cluster"].clone();
        let again = cluster["connections"].as_u64() > Some(1);
        anyhow::ensure!(again && cluster["contact_age_ms"] == 0, "{cluster}");
        Ok(())
    })?;
    until_said(&agents[1], "there is no /coreos.com/network/config in etcd")?;
    cluster.init()?;
    for agent in &agents {
        agent.is_well()?;
    }
    until("all leases", || {
        let mut leases = cluster.leases()?;
        let mut own = own.clone();
        own.sort();
        leases.sort();
        anyhow::ensure!(leases == own, "{leases:?}, not {own:?}");
        Ok(())
    })?;
    cluster.reaches(1, 3)?;

    // Revisions that a node needs are gone.
    let revision = agents[1].json(&["cluster", "status"])?["revision"].clone();
    cluster.etcdctl(&format!("compact {revision}"))?;
    cluster.reaches(3, 2)?;

    leaves(&cluster, &agents[2], &subnet)?;
    Ok(cluster.guard.down()?)
}

#[test]
fn of_two_nodes_that_want_one_subnet_one_has_it_and_the_other_says_so() -> Result<()> {
    let cluster = Cluster::up("tetwo", 2)?;
    for node in 1..=2 {
        cluster.configure(node, "subnet = \"10.244.9.0/24\"")?;
    }
    cluster.init()?;
    let agents = [cluster.guard.agent(1), cluster.guard.agent(2)];
    // At the same time, so that both find it free.
    thread::scope(|scope| -> Result<()> {
        let starts = [0, 1].map(|index| {
            let agent = &agents[index];
            scope.spawn(move || agent.start_anyhow())
        });
        for start in starts {
            let started = start.join();
            started.map_err(|_| anyhow::anyhow!("a start has panicked"))??;
        }
        Ok(())
    })?;
    until("a subnet", || {
        let leases = cluster.leases()?;
        anyhow::ensure!(!leases.is_empty());
        Ok(())
    })?;
    let values = cluster.etcdctl(&format!("get --prefix --print-value-only {SUBNETS}"))?;
    let (has, has_not) = if values.contains("tetwo-n1") {
        (1, 2)
    } else {
        (2, 1)
    };
    let of = |node: u8| &agents[usize::from(node) - 1];
    of(has).is_well()?;
    until_said(
        of(has_not),
        &format!("the subnet 10.244.9.0-24 that is asked for is taken by node tetwo-n{has}"),
    )?;
    assert_eq!(cluster.leases()?, ["10.244.9.0-24"]);
    // It takes what it is given as soon as it asks for something else.
    cluster.configure(has_not, "")?;
    of(has_not).is_well()?;
    cluster.reaches(1, 2)?;
    Ok(cluster.guard.down()?)
}

#[test]
fn doctor_finds_a_helper_that_is_missing_and_a_network_that_cannot_be() -> Result<()> {
    let cluster = Cluster::up("tenone", 2)?;
    cluster.configure(1, "")?;
    cluster.init()?;
    let agent = cluster.guard.agent(1);
    let program = agent.argv(&[]).remove(0);
    let elsewhere = cluster.data.path().join("overlay-agent");
    fs::copy(&program, &elsewhere)?;
    let alone = Agent::new(&cluster.name.parse()?, &elsewhere, agent.instance.clone());
    alone.start_anyhow()?;
    until_found(&alone, "cluster-helper")?;
    alone.stop()?;

    // The store's network has the same VNI.
    let other = "\n[[networks]]\nname = \"other\"\nvni = 1\ncidr = \"10.99.0.0/16\"\nsubnet = \"10.99.1.0/24\"\n";
    cluster.configure(1, other)?;
    agent.start_anyhow()?;
    until_found(&agent, "cluster-refused")?;
    // No file can be made there.
    cluster.configure(1, "subnet_env = \"/proc/overlay/subnet.env\"\n")?;
    until_found(&agent, "cluster-subnet-env")?;
    cluster.configure(1, "")?;
    agent.is_well()?;
    // A network that is in use stays, whatever is written beside it.
    cluster.configure(1, other)?;
    until_found(&agent, "config-refused")?;
    anyhow::ensure!(agent.json(&["status"])?["networks"][0]["name"] == "lab");
    cluster.configure(1, "")?;
    agent.is_well()?;
    Ok(cluster.guard.down()?)
}
