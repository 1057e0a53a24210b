//! Nodes that know only the store, and the store, whose members run on the first of them.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    families::Families,
    guard::Guard,
    poll,
    processes::{self, Process},
    run,
    script::{Step, words},
    shape::{Scenario, Shape},
    state,
};

use crate::certificates;

/// Before all leases.
pub(crate) const SUBNETS: &str = "/coreos.com/network/subnets/";

/// The nodes of a lab and the members of etcd on them.
pub(crate) struct Cluster {
    pub(crate) guard: Guard,
    pub(crate) name: &'static str,
    pub(crate) data: tempfile::TempDir,
    members: u8,
    tls: bool,
    /// What is added to the command of each member.
    pub(crate) more: String,
    /// Where etcd and `etcdctl` are, if not in `PATH`.
    pub(crate) programs: Option<PathBuf>,
    /// `NAME:PASSWORD` of whom `etcdctl` speaks for.
    pub(crate) user: Option<&'static str>,
}

impl Cluster {
    /// With one member that asks for nothing.
    pub(crate) fn up(name: &'static str, nodes: u8) -> Result<Self> {
        let cluster = Self::new(name, nodes, 1, false)?;
        cluster.start("first")?;
        Ok(cluster)
    }

    /// The same on an underlay with both families.
    pub(crate) fn dual(name: &'static str, nodes: u8) -> Result<Self> {
        let cluster = Self::on(name, Families::Both, nodes, 1, false)?;
        cluster.start("first")?;
        Ok(cluster)
    }

    /// With members that are not started yet.
    pub(crate) fn new(name: &'static str, nodes: u8, members: u8, tls: bool) -> Result<Self> {
        Self::on(name, Families::V4, nodes, members, tls)
    }

    fn on(
        name: &'static str,
        families: Families,
        nodes: u8,
        members: u8,
        tls: bool,
    ) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, nodes, 1)?.speaking(families, families)?;
        let cluster = Self {
            guard: Guard::underlay(shape)?,
            name,
            data: tempfile::tempdir()?,
            members,
            tls,
            more: String::new(),
            programs: None,
            user: None,
        };
        if tls {
            cluster.certify()?;
        }
        Ok(cluster)
    }

    /// Has all nodes know only the store, and waits until they are well; their agents.
    pub(crate) fn joined(&self) -> Result<Vec<Agent>> {
        let nodes = self.guard.topology().nodes.iter().map(|node| node.number);
        let nodes: Vec<u8> = nodes.collect();
        for &node in &nodes {
            self.configure(node, "")?;
        }
        self.init()?;
        let agents = nodes.iter().map(|&node| self.guard.agent(node));
        let agents: Vec<Agent> = agents.collect();
        for agent in &agents {
            agent.start_anyhow()?;
            agent.is_well()?;
        }
        Ok(agents)
    }

    /// A file of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// Makes a CA, and certificates by it for the members and for nodes.
    pub(crate) fn certify(&self) -> Result<()> {
        let nodes = self.guard.topology().nodes.iter();
        let addresses: Vec<String> = nodes.map(|node| node.underlay.to_string()).collect();
        certificates::write(self.data.path(), &addresses)
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The URL of a member, counted from 1.
    pub(crate) fn url(&self, member: u8) -> String {
        let node = &self.guard.topology().nodes[usize::from(member) - 1];
        format!("{}://{}:2379", self.scheme(), node.underlay)
    }

    fn urls(&self) -> Vec<String> {
        (1..=self.members).map(|member| self.url(member)).collect()
    }

    /// A command in the namespace of a node.
    pub(crate) fn inside(&self, node: u8, command: &str) -> Vec<String> {
        words(format!("ip netns exec {}-n{node} {command}", self.name))
    }

    /// Starts all members, with data of that name.
    pub(crate) fn start(&self, data: &str) -> Result<()> {
        for member in 1..=self.members {
            self.start_member(member, data)?;
        }
        (1..=self.members).try_for_each(|member| self.until_healthy(member))
    }

    fn program(&self, name: &str) -> String {
        let given = self.programs.as_ref();
        given.map_or_else(
            || name.to_owned(),
            |folder| folder.join(name).display().to_string(),
        )
    }

    pub(crate) fn start_member(&self, member: u8, data: &str) -> Result<()> {
        let peer = |member| {
            self.url(member)
                .replace("https", "http")
                .replace("2379", "2380")
        };
        let all: Vec<String> = (1..=self.members)
            .map(|member| format!("m{member}={}", peer(member)))
            .collect();
        let tls = if self.tls {
            format!(
                "--cert-file {0}/member.pem --key-file {0}/member.key --client-cert-auth --trusted-ca-file {0}/ca.pem",
                self.data.path().display()
            )
        } else {
            String::new()
        };
        let (url, own, lab) = (self.url(member), peer(member), self.name.parse()?);
        let start = Step::Start {
            task: task(member),
            argv: self.inside(
                member,
                &format!(
                    "{} --name m{member} --data-dir {}-{member} --listen-client-urls {url} --advertise-client-urls \
                     {url} --listen-peer-urls {own} --initial-advertise-peer-urls {own} --initial-cluster {} \
                     --log-level error {tls} {}",
                    self.program("etcd"),
                    self.file(data).display(),
                    all.join(","),
                    self.more,
                ),
            ),
            log: state::log_file(&lab, &task(member)),
        };
        Ok(run::run_step(&lab, &start)?)
    }

    /// Waits until a member answers, which it does when there is a majority.
    pub(crate) fn until_healthy(&self, member: u8) -> Result<()> {
        until("etcd", || {
            let command = self.etcdctl_argv(&self.url(member), "get health");
            run::checked(&command)?;
            Ok(())
        })
    }

    pub(crate) fn member(&self, member: u8) -> Result<Process> {
        let process = processes::task(&self.name.parse()?, &task(member))?;
        process.with_context(|| format!("member {member} runs"))
    }

    pub(crate) fn kill(&self, member: u8) -> Result<()> {
        let etcd = self.member(member)?;
        etcd.signal(Signal::SIGKILL)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        anyhow::ensure!(etcd.wait(deadline), "etcd lives");
        Ok(())
    }

    pub(crate) fn etcdctl_argv(&self, endpoints: &str, command: &str) -> Vec<String> {
        let tls = if self.tls {
            format!(
                "--cacert {0}/ca.pem --cert {0}/admin.pem --key {0}/admin.key",
                self.data.path().display()
            )
        } else {
            String::new()
        };
        let user = self.user.map(|user| format!("--user {user}"));
        let user = user.unwrap_or_default();
        self.inside(
            1,
            &format!(
                "env ETCDCTL_API=3 {} --endpoints={endpoints} {tls} {user} {command}",
                self.program("etcdctl")
            ),
        )
    }

    pub(crate) fn etcdctl(&self, command: &str) -> Result<String> {
        let argv = self.etcdctl_argv(&self.urls().join(","), command);
        Ok(run::checked(&argv)?)
    }

    /// Puts what flannel, or somebody else, would put.
    pub(crate) fn put(&self, key: &str, value: &str) -> Result<()> {
        let mut argv = self.etcdctl_argv(&self.urls().join(","), "put");
        argv.extend([key, value].map(str::to_owned));
        run::checked(&argv)?;
        Ok(())
    }

    /// The keys of all leases, without their prefix.
    pub(crate) fn leases(&self) -> Result<Vec<String>> {
        let keys = self.etcdctl(&format!("get --prefix --keys-only {SUBNETS}"))?;
        let keys = keys.lines().filter_map(|key| key.strip_prefix(SUBNETS));
        Ok(keys.map(str::to_owned).collect())
    }

    /// Writes the configuration of a node: `more` is in `[cluster]`, or follows it.
    pub(crate) fn configure(&self, node: u8, more: &str) -> Result<()> {
        self.configure_at(node, &self.urls(), more)
    }

    /// The same, with other members.
    pub(crate) fn configure_at(&self, node: u8, urls: &[String], more: &str) -> Result<()> {
        let agent = self.guard.agent(node);
        let name = &agent.instance;
        let text = format!(
            "[node]\nname = \"{name}\"\nunderlay = \"eth1\"\nprobe = \"off\"\n\n[cluster]\netcd = {urls:?}\nnetwork = \
             \"lab\"\n{more}\n[[endpoints]]\nname = \"c1\"\nnetwork = \"lab\"\nnetns = \"{name}c1\"\n"
        );
        Ok(fs::write(agent.config_file(), text)?)
    }

    /// A command of the agent's about the store, which is in the nodes' namespaces.
    pub(crate) fn cluster(&self, node: u8, arguments: &[&str]) -> Result<run::Output> {
        let agent = self.guard.agent(node);
        let config = agent.config_file();
        let config = config.to_string_lossy();
        let command = [
            &["cluster", arguments[0], "--config", &config],
            &arguments[1..],
        ]
        .concat();
        Ok(run::output(
            self.inside(1, &agent.argv(&command).join(" ")),
        )?)
    }

    /// Deletes a node's lease from the store, and waits until it is claimed again; its subnet.
    pub(crate) fn lose_lease(&self, agent: &Agent) -> Result<String> {
        let said = agent.json(&["cluster", "status"])?;
        let subnet = said["subnet"].as_str().context("a subnet")?.to_owned();
        self.etcdctl(&format!("del {SUBNETS}{subnet}"))?;
        until("the lease", || {
            let leases = self.leases()?;
            anyhow::ensure!(leases.contains(&subnet), "{leases:?}");
            Ok(())
        })?;
        Ok(subnet)
    }

    pub(crate) fn init(&self) -> Result<String> {
        let said = self.cluster(1, &["init", "--cidr", "10.244.0.0/16"])?;
        anyhow::ensure!(said.success, "{said:?}");
        Ok(said.stdout)
    }

    /// The addresses of a node's container.
    pub(crate) fn addresses(&self, node: u8) -> Result<Vec<IpAddr>> {
        let status = self.guard.agent(node).json(&["status"])?;
        let addresses = status["endpoints"][0]["addresses"].as_array();
        let addresses = addresses.filter(|addresses| !addresses.is_empty());
        let addresses = addresses.with_context(|| format!("no address in {status}"))?;
        let address = |text: &serde_json::Value| {
            let text = text.as_str().context("an address")?;
            Ok(text.parse()?)
        };
        addresses.iter().map(address).collect()
    }

    /// Waits until the container of one node reaches that of another at each of its addresses.
    pub(crate) fn reaches(&self, from: u8, to: u8) -> Result<()> {
        let namespace = format!("{}-n{from}c1", self.name);
        let reaches = |address: IpAddr| match check::ping(&namespace, address)? {
            Answer::Ttl(_) => Ok(()),
            answer @ Answer::None(_) => {
                anyhow::bail!("{address}: {answer:?}; {}", self.guard.agent(from).log()?)
            }
        };
        until("a ping", || {
            self.addresses(to)?.into_iter().try_for_each(reaches)
        })
    }
}

fn task(member: u8) -> String {
    format!("etcd{member}")
}

pub(crate) fn until(what: &str, attempt: impl Fn() -> Result<()>) -> Result<()> {
    poll::until_ok(attempt).with_context(|| what.to_owned())
}

/// Waits until `cluster status` has a text.
pub(crate) fn until_said(agent: &Agent, text: &str) -> Result<()> {
    until(text, || {
        let said = agent.ask(&["cluster", "status"])?;
        anyhow::ensure!(said.stdout.contains(text), "{said:?}; {}", agent.log()?);
        Ok(())
    })
}

/// Waits until doctor names a fault.
pub(crate) fn until_found(agent: &Agent, check: &str) -> Result<()> {
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

/// What the kernel has of a peer: route, neighbour and forwarding entry.
pub(crate) fn has_peer(agent: &Agent, subnet: &str, mac: &str, vtep: &str) -> Result<()> {
    let node = &agent.instance;
    let (hop, _) = subnet.split_once('/').context("a subnet")?;
    let family = if hop.contains(':') { "-6" } else { "-4" };
    let route = format!("ip -n {node} {family} route show {subnet}");
    let route = run::checked(route)?;
    anyhow::ensure!(route.contains(&format!("via {hop} ")), "{route}");
    let neighbour = format!("ip -n {node} {family} neigh show {hop}");
    let neighbour = run::checked(neighbour)?;
    anyhow::ensure!(neighbour.contains(mac), "{neighbour}");
    let entries = run::checked(format!("bridge -n {node} fdb show"))?;
    let dst = format!("dst {vtep} ");
    let of_vtep: Vec<&str> = entries.lines().filter(|line| line.contains(&dst)).collect();
    anyhow::ensure!(
        of_vtep.len() == 1 && of_vtep[0].starts_with(mac),
        "{entries}"
    );
    Ok(())
}
