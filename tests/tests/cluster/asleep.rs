//! Machines that sleep, and clocks that jump, while the store goes on.
//!
//! A test cannot have its machine sleep. What a sleep is for a node is shown in two halves: its processes
//! stand still while the store, and with it whatever has a time limit there, goes on; and its clocks
//! go apart, because `CLOCK_MONOTONIC`, which timers go by, is the only one that has stood still. The first
//! half stops the processes, the second changes what the C library tells the helper of two clocks. That a
//! kernel's clocks do that, and that a card comes back, is not shown.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{agent::Agent, poll, run};

use crate::{
    asked::{children, connections},
    flannel::{lease, there, until_there},
    flow::Flow,
    lab::{Cluster, SUBNETS, until, until_said},
};

/// Longer than a peer is doubted, and than a connection may be silent.
const SLEEP: Duration = Duration::from_secs(35);
/// Longer than a lease may go without a renewal and the store without a look, in seconds.
const HOURS: i64 = 2 * 3_600;
/// In seconds.
const CENTURY: i64 = 100 * 365 * 86_400;
/// A timer of the helper's may stand still for so long before it looks at the clock, and more.
const PATIENCE: Duration = Duration::from_mins(2);

fn key(number: u8) -> String {
    format!("{SUBNETS}10.244.{number}.0-24")
}

/// An agent and its helper that stand still, until this goes.
struct Asleep(Vec<i32>);

impl Asleep {
    fn put(agent: &Agent) -> Result<Self> {
        let mut asleep = Self(vec![agent.process()?.context("the agent runs")?.pid]);
        asleep.0.extend(children(agent)?);
        ensure!(asleep.0.len() > 1, "it has no helper");
        for &pid in &asleep.0 {
            kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        }
        Ok(asleep)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        for &pid in &self.0 {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGCONT) {
                eprintln!("{pid} sleeps on: {error}");
            }
        }
    }
}

#[test]
fn a_node_that_slept_has_its_subnet_again_and_knows_what_has_happened() -> Result<()> {
    let cluster = Cluster::up("tesleep", 2)?;
    let agents = cluster.joined()?;
    let agent = &agents[0];
    for number in [240, 241] {
        cluster.put(&key(number), &lease(number, 0))?;
        until_there(agent, number, number, 0)?;
    }
    let addresses = cluster.addresses(1)?;
    let (own, entry) = cluster.entry_of(agent)?;
    let its_lease = entry["lease"].as_u64().context("a lease")?;
    // What forwards is in the kernel, also on the node whose agent stands still.
    let flow = Flow::start(&cluster, 2, 1)?;

    let asleep = Asleep::put(agent)?;
    cluster.etcdctl(&format!("del {}", key(240)))?;
    cluster.put(&key(241), &lease(241, 1))?;
    cluster.put(&key(242), &lease(242, 0))?;
    thread::sleep(SLEEP);
    for number in [240, 241] {
        there(agent, number, number, 0)?;
    }
    // It was a day.
    cluster.etcdctl(&format!("lease revoke {its_lease:x}"))?;
    ensure!(!cluster.etcdctl(&format!("get {own}"))?.contains(&own));
    drop(asleep);

    until("its entry", || {
        let (again, new) = cluster.entry_of(agent)?;
        ensure!(
            again == own && new["value"] == entry["value"],
            "{again}: {new}"
        );
        Ok(())
    })?;
    until_there(agent, 242, 242, 0)?;
    until_there(agent, 241, 241, 1)?;
    // Of whom it hears only now: the doubt begins.
    let route = format!("ip -n {} route show 10.244.240.0/24", agent.instance);
    let gone = poll::until_well_within(PATIENCE, || match run::checked(&route) {
        Ok(route) if route.is_empty() => None,
        other => Some(format!("{other:?}; {}", agent.log().unwrap_or_default())),
    });
    assert_eq!(gone, Ok(()));
    agent.is_well()?;
    assert_eq!(cluster.addresses(1)?, addresses);
    agent.until_done()?;
    cluster.reaches(1, 2)?;
    flow.came_whole()?;
    Ok(cluster.guard.down()?)
}

/// An agent whose helper is told jumps of the clocks.
struct Jumping {
    agent: Agent,
    jumps: File,
}

impl Jumping {
    fn of(cluster: &Cluster, node: u8) -> Result<Self> {
        let agent = cluster.guard.agent(node);
        let program = PathBuf::from(agent.argv(&[]).remove(0));
        let folder = cluster.data.path();
        // The helper is nobody.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let [source, library, jumps, elsewhere, helper] = [
            "clocks.c",
            "clocks.so",
            "jumps",
            "overlay-agent",
            "overlay-cluster",
        ]
        .map(|name| folder.join(name));
        fs::write(&source, include_str!("clocks.c"))?;
        let cc = format!(
            "cc -shared -fPIC -O2 -Wall -Werror -o {} {}",
            library.display(),
            source.display()
        );
        run::checked(cc).context("cc, which Rust needs, too")?;
        fs::write(&jumps, [0; 16])?;
        fs::copy(&program, &elsewhere)?;
        let text = format!(
            "#!/bin/sh\nexec /usr/bin/env JUMPS={} LD_PRELOAD={} {} \"$@\"\n",
            jumps.display(),
            library.display(),
            program.with_file_name("overlay-cluster").display()
        );
        fs::write(&helper, text)?;
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            agent: Agent::new(&cluster.name.parse()?, &elsewhere, agent.instance),
            jumps: File::options().write(true).open(&jumps)?,
        })
    }

    /// So many seconds are added to the time of day, and to that since the start of the machine.
    fn jump(&self, time_of_day: i64, since_start: i64) -> Result<()> {
        let bytes = [time_of_day, since_start].map(i64::to_ne_bytes).concat();
        Ok(self.jumps.write_all_at(&bytes, 0)?)
    }
}

/// The timers of a machine that has slept for hours have run for seconds: the lease is renewed all
/// the same, and nobody is told of that.
fn sleeps(cluster: &Cluster, node: &Jumping) -> Result<()> {
    const SOME: i64 = 86_395;
    let (_, entry) = cluster.entry_of(&node.agent)?;
    let its_lease = entry["lease"].as_u64().context("a lease")?;
    let left = || -> Result<i64> {
        let said = cluster.json(&format!("lease timetolive {its_lease:x}"))?;
        said["ttl"].as_i64().with_context(|| format!("{said}"))
    };
    until("some seconds of the lease", || {
        ensure!(left()? < SOME);
        Ok(())
    })?;
    node.jump(0, HOURS)?;
    let renewed = poll::until_well_within(PATIENCE, || match left() {
        Ok(left) if left > SOME => None,
        other => Some(format!(
            "{other:?} left; {}",
            node.agent.log().unwrap_or_default()
        )),
    });
    assert_eq!(renewed, Ok(()));
    let (_, now) = cluster.entry_of(&node.agent)?;
    assert_eq!(now, entry);
    Ok(())
}

/// Whatever the time of day is, who comes is heard of by the connection that is there.
fn is_told_the_time(cluster: &Cluster, node: &Jumping) -> Result<()> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let back = -i64::try_from(since_1970)?;
    let connected = connections(&node.agent)?;
    for (jump, number) in [(back, 240), (CENTURY, 241), (-HOURS, 242)] {
        node.jump(jump, HOURS)?;
        cluster.put(&key(number), &lease(number, 0))?;
        until_there(&node.agent, number, number, 0)?;
    }
    assert_eq!(connections(&node.agent)?, connected);
    node.agent.is_well()?;
    // For a new one a machine that takes it for 1970 finds no certificate that is valid.
    node.jump(back, HOURS)?;
    cluster.kill(1)?;
    cluster.start("data")?;
    until_said(&node.agent, "or set this node's clock")?;
    for number in [240, 241, 242] {
        there(&node.agent, number, number, 0)?;
    }
    node.jump(0, HOURS)?;
    Ok(node.agent.is_well()?)
}

#[test]
fn clocks_that_jump_take_nothing_and_a_wrong_one_is_named() -> Result<()> {
    let cluster = Cluster::new("teclock", 2, 1, true)?;
    cluster.start("data")?;
    let node = Jumping::of(&cluster, 1)?;
    let other = cluster.guard.agent(2);
    let [ca, certificate, certificates_key] =
        ["ca.pem", "node.pem", "node.key"].map(|name| cluster.file(name).display().to_string());
    let access = format!("ca = {ca:?}\ncert = {certificate:?}\nkey = {certificates_key:?}\n");
    for number in [1, 2] {
        cluster.configure(number, &access)?;
    }
    cluster.init()?;
    for agent in [&node.agent, &other] {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    cluster.reaches(1, 2)?;
    let flow = Flow::start(&cluster, 1, 2)?;
    sleeps(&cluster, &node)?;
    is_told_the_time(&cluster, &node)?;
    cluster.reaches(2, 1)?;
    flow.came_whole()?;
    Ok(cluster.guard.down()?)
}
