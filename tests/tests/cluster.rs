//! A cluster whose peers and subnets come from a real etcd: nodes find each other, and nothing that
//! happens to the store takes from the data plane what works.

use std::{fs, net::IpAddr, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    poll, processes, run,
    script::{Step, words},
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    state,
};

const SUBNETS: &str = "/coreos.com/network/subnets/";

/// Nodes that know only the store, which runs on the first one.
struct Cluster {
    guard: Guard,
    name: &'static str,
    data: tempfile::TempDir,
    url: String,
}

impl Cluster {
    fn up(name: &'static str, nodes: u8) -> Result<Self> {
        let shape = Shape::new(name.parse()?, Scenario::Overlay, Some(nodes), Some(1))?;
        let guard = Guard::underlay(shape)?;
        let url = format!("http://{}:2379", guard.topology().nodes[0].underlay);
        let cluster = Self {
            guard,
            name,
            data: tempfile::tempdir()?,
            url,
        };
        cluster.start_etcd("first")?;
        Ok(cluster)
    }

    fn inside(&self, command: &str) -> Vec<String> {
        words(format!("ip netns exec {}-n1 {command}", self.name))
    }

    fn start_etcd(&self, data: &str) -> Result<()> {
        let (url, lab) = (&self.url, self.name.parse()?);
        let peer = url.replace("2379", "2380");
        let data = self.data.path().join(data);
        let start = Step::Start {
            task: "etcd".to_owned(),
            argv: self.inside(&format!(
                "etcd --data-dir {} --listen-client-urls {url} --advertise-client-urls {url} --listen-peer-urls \
                 {peer} --initial-advertise-peer-urls {peer} --initial-cluster default={peer} --log-level error",
                data.display()
            )),
            log: state::log_file(&lab, "etcd"),
        };
        run::run_step(&lab, &start)?;
        until("etcd", || self.etcdctl("endpoint health").map(drop))
    }

    fn kill_etcd(&self) -> Result<()> {
        let etcd = processes::task(&self.name.parse()?, "etcd")?.context("etcd runs")?;
        etcd.signal(Signal::SIGKILL)?;
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        anyhow::ensure!(etcd.wait(deadline), "etcd lives");
        Ok(())
    }

    fn etcdctl(&self, command: &str) -> Result<String> {
        let command = format!(
            "env ETCDCTL_API=3 etcdctl --endpoints={} {command}",
            self.url
        );
        Ok(run::checked(&self.inside(&command))?)
    }

    /// Puts what flannel, or somebody else, would put.
    fn put(&self, key: &str, value: &str) -> Result<()> {
        let mut command = self.inside(&format!(
            "env ETCDCTL_API=3 etcdctl --endpoints={}",
            self.url
        ));
        command.extend(["put", key, value].map(str::to_owned));
        run::checked(&command)?;
        Ok(())
    }

    /// The keys of all leases, without their prefix.
    fn leases(&self) -> Result<Vec<String>> {
        let keys = self.etcdctl(&format!("get --prefix --keys-only {SUBNETS}"))?;
        let keys = keys.lines().filter_map(|key| key.strip_prefix(SUBNETS));
        Ok(keys.map(str::to_owned).collect())
    }

    fn configure(&self, node: u8, more: &str) -> Result<()> {
        let agent = self.guard.agent(node);
        let name = &agent.instance;
        let text = format!(
            "[node]\nname = \"{name}\"\nunderlay = \"eth1\"\nprobe = \"off\"\n\n[cluster]\netcd = \"{}\"\nnetwork = \
             \"lab\"\n{more}\n[[endpoints]]\nname = \"c1\"\nnetwork = \"lab\"\nnetns = \"{name}c1\"\n",
            self.url
        );
        Ok(fs::write(agent.config_file(), text)?)
    }

    fn init(&self) -> Result<String> {
        let agent = self.guard.agent(1);
        let config = agent.config_file();
        let config = config.to_string_lossy();
        // The store is in the node's namespace.
        let arguments = [
            "cluster",
            "init",
            "--config",
            &config,
            "--cidr",
            "10.244.0.0/16",
        ];
        let command = agent.argv(&arguments).join(" ");
        Ok(run::checked(&self.inside(&command))?)
    }

    fn address(&self, node: u8) -> Result<IpAddr> {
        let status = self.guard.agent(node).json(&["status"])?;
        let address = status["endpoints"][0]["addresses"][0].as_str();
        Ok(address
            .with_context(|| format!("no address in {status}"))?
            .parse()?)
    }

    /// Waits until the container of one node reaches that of another.
    fn reaches(&self, from: u8, to: u8) -> Result<()> {
        let namespace = format!("{}-n{from}c1", self.name);
        until("a ping", || {
            match check::ping(&namespace, self.address(to)?)? {
                Answer::Ttl(_) => Ok(()),
                answer @ Answer::None(_) => {
                    anyhow::bail!("{answer:?}; {}", self.guard.agent(from).log()?)
                }
            }
        })
    }
}

fn until(what: &str, attempt: impl Fn() -> Result<()>) -> Result<()> {
    let outcome = poll::until_well(|| attempt().err().map(|error| format!("{error:#}")));
    outcome.map_err(|why| anyhow::anyhow!("{what}: {why}"))
}

/// Waits until `cluster status` has a text.
fn until_said(agent: &Agent, text: &str) -> Result<()> {
    until(text, || {
        let said = agent.ask(&["cluster", "status"])?;
        anyhow::ensure!(said.stdout.contains(text), "{said:?}; {}", agent.log()?);
        Ok(())
    })
}

fn until_well(agent: &Agent) -> Result<()> {
    until("status", || {
        let said = agent.ask(&["status"])?;
        anyhow::ensure!(said.success, "{said:?}; {}", agent.log()?);
        Ok(())
    })
}

/// Waits until doctor names a fault.
fn until_found(agent: &Agent, check: &str) -> Result<()> {
    until(check, || {
        let found = agent.json(&["doctor", "--sample", "0.1"])?.to_string();
        anyhow::ensure!(
            found.contains(&format!("\"{check}\"")),
            "{found}; {}",
            agent.log()?
        );
        Ok(())
    })
}

fn the_helper_may_do_nothing() -> Result<()> {
    let helper = run::checked(&words("pgrep -f overlay-cluster.follow -U nobody"))?;
    let pid = helper.lines().next().context("a helper")?;
    let rights = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(rights.contains(line), "{rights}");
    }
    Ok(())
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
        "10.244.251.0-24\" is left out: its value is no JSON object",
    )?;
    until_found(agent, "cluster-entry")?;
    let route = run::checked(&words("ip -n tetcd-n2 route show 10.244.250.0/24"))?;
    assert!(route.contains("via 10.244.250.0"), "{route}");
    cluster.reaches(2, 3)?;
    for key in ["10.99.0.0-24", "10.244.251.0-24", "10.244.250.0-24"] {
        cluster.etcdctl(&format!("del {SUBNETS}{key}"))?;
    }
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
        until_well(agent)?;
    }
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        cluster.reaches(from, to)?;
    }
    let own = cluster.leases()?;
    assert_eq!(own.len(), 3, "{own:?}");
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

    the_helper_may_do_nothing()?;
    foreign_entries(&cluster, &agents[1])?;

    // A lost lease is claimed again, and the subnet stays the node's.
    let subnet = agents[2].json(&["cluster", "status"])?;
    let subnet = subnet["subnet"].as_str().context("a subnet")?.to_owned();
    cluster.etcdctl(&format!("del {SUBNETS}{subnet}"))?;
    until("the lease", || {
        let leases = cluster.leases()?;
        anyhow::ensure!(leases.contains(&subnet), "{leases:?}");
        Ok(())
    })?;

    // A store that is away, also when a node starts.
    let before = Snapshot::of(&agents[1].instance)?;
    cluster.kill_etcd()?;
    until_said(
        &agents[0],
        "no connection to etcd, the last known peers stay",
    )?;
    until_found(&agents[0], "cluster-away")?;
    agents[0].stop()?;
    agents[0].start_anyhow()?;
    until_said(&agents[0], "not connected to")?;
    for (from, to) in [(1, 2), (2, 1), (1, 3)] {
        cluster.reaches(from, to)?;
    }
    let changes = Snapshot::of(&agents[1].instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");

    // One that comes back empty, and counts from one again.
    cluster.start_etcd("second")?;
    until_said(&agents[1], "there is no /coreos.com/network/config in etcd")?;
    cluster.init()?;
    for agent in &agents {
        until_well(agent)?;
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

    // Who leaves gives the subnet back.
    let config = agents[2].config_file();
    let leave = ["cluster", "leave", "--config", &config.to_string_lossy()];
    let refused = agents[2].ask(&leave)?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    agents[2].tell(&["down"])?;
    let command = agents[2].argv(&leave).join(" ");
    let left = run::checked(&cluster.inside(&command))?;
    assert_eq!(left.trim(), subnet);
    assert!(!cluster.leases()?.contains(&subnet));
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
    agents[0].start_anyhow()?;
    until_well(&agents[0])?;
    agents[1].start_anyhow()?;
    until_said(
        &agents[1],
        "the subnet 10.244.9.0-24 that is asked for is taken by node tetwo-n1",
    )?;
    assert_eq!(cluster.leases()?, ["10.244.9.0-24"]);
    // It takes what it is given as soon as it asks for something else.
    cluster.configure(2, "")?;
    until_well(&agents[1])?;
    cluster.reaches(1, 2)?;
    let env = Path::new(cluster.data.path()).join("subnet.env");
    cluster.configure(1, &format!("subnet_env = \"{}\"", env.display()))?;
    until("subnet.env", || {
        let text = fs::read_to_string(&env)?;
        let expected = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        anyhow::ensure!(text == expected, "{text}");
        Ok(())
    })?;
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
    cluster.configure(1, "")?;
    until_well(&agent)?;
    Ok(cluster.guard.down()?)
}
