//! Containers from scratch: kept apart, limited, on the overlay; and nothing is left of them.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    check,
    guard::Guard,
    lab,
    means::{Controller, Means},
    poll,
    processes::{self, MARK},
    run,
    scenario::{self, container},
    shape::{Scenario, Shape},
    topology::{Container, Topology},
};

/// The namespaces that a process has, by their names in `/proc/PID/ns`.
const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Bits 0, 1, 3, 5, 6, 7, 10 and 13 of capabilities(7): what files and users take, small ports, raw
/// sockets.
const CAPABILITIES: u64 = 0x24eb;

/// A lab of two containers, unless there is nothing to make them of, which is said.
fn shape(name: &str) -> Result<Option<Shape>> {
    let busybox = lab::busybox_program();
    if !busybox.is_file() {
        eprintln!("skipped: there is no busybox at {}", busybox.display());
        return Ok(None);
    }
    let shape = Shape::of(name, Scenario::Container, 2, 1)?;
    Ok(Some(shape))
}

/// Runs a line of a shell outside, and returns what it prints.
fn shell(line: &str) -> Result<String> {
    Ok(run::checked(["sh", "-c", line].map(str::to_owned))?)
}

/// The process id of a container's first process.
fn first(topology: &Topology, container: &Container) -> Result<u32> {
    let first = container::first_process(topology, container);
    Ok(shell(&format!("echo {first}"))?.trim().parse()?)
}

/// Runs a line of a shell in a container and in its cgroup.
fn inside(topology: &Topology, container: &Container, line: &str) -> Result<run::Output> {
    let joins = Means::here().hierarchies().into_iter().map(|hierarchy| {
        let folder = container::cgroup(&hierarchy, container);
        format!("echo $$ >{}/cgroup.procs; ", folder.display())
    });
    let outer = format!(
        "{}exec nsenter --target {} --all sh -c \"$1\"",
        joins.collect::<String>(),
        first(topology, container)?
    );
    Ok(run::output(
        ["sh", "-ec", &outer, "sh", line].map(str::to_owned),
    )?)
}

fn says(topology: &Topology, container: &Container, line: &str) -> Result<String> {
    let out = inside(topology, container, line)?;
    ensure!(out.success, "{line}: {}{}", out.stdout, out.stderr);
    Ok(out.stdout.trim_end().to_owned())
}

/// Asserts all that keeps the containers apart, and that they reach each other all the same.
fn are_containers(topology: &Topology) -> Result<()> {
    let matrix = check::all_pairs(topology)?;
    ensure!(matrix.faults().is_empty(), "\n{matrix}");
    let (one, two) = (
        &topology.nodes[0].containers[0],
        &topology.nodes[1].containers[0],
    );
    let page = format!("wget -q -O - http://{}/", two.address);
    ensure!(says(topology, one, &page)? == two.namespace);
    let means = Means::here();
    are_apart(&[
        std::process::id(),
        first(topology, one)?,
        first(topology, two)?,
    ])?;
    for container in [one, two] {
        let pid = first(topology, container)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            ensure!(
                field(&status, set)? == format!("{CAPABILITIES:016x}"),
                "{status}"
            );
        }
        ensure!(field(&status, "CapInh")? == "0000000000000000", "{status}");
        ensure!(field(&status, "NoNewPrivs")? == "1", "{status}");
        if means.users {
            ensure!(field(&status, "Uid")?.starts_with("100000"), "{status}");
        }
        ensure!(says(topology, container, "hostname")? == container.namespace);
        ensure!(says(topology, container, "id -u")? == "0");
        let first_command = says(topology, container, "tr '\\0' ' ' </proc/1/cmdline")?;
        ensure!(first_command.starts_with("httpd"), "{first_command}");
        let root = says(topology, container, "echo /*")?;
        ensure!(root == "/bin /dev /etc /proc /sys /tmp /www", "{root}");
        // Its cgroup is the root of all that it sees of them.
        let cgroups = says(topology, container, "cat /proc/1/cgroup")?;
        for controller in ["memory", "pids", "cpu"] {
            let its = |line: &&str| line.split(':').nth(1).is_some_and(|it| it == controller);
            if let Some(line) = cgroups.lines().find(its) {
                ensure!(line.ends_with(":/"), "{cgroups}");
            }
        }
    }
    Ok(())
}

/// Asserts that no two of these processes share a namespace of any kind.
fn are_apart(pids: &[u32]) -> Result<()> {
    let users = Means::here().users;
    for kind in KINDS.into_iter().filter(|&kind| users || kind != "user") {
        let mut seen = HashSet::new();
        for pid in pids {
            let namespace = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
            ensure!(
                seen.insert(namespace),
                "{kind} of {pid} is shared: {pids:?}"
            );
        }
    }
    Ok(())
}

fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.context("no such line")?.trim())
}

fn nothing_is_left(topology: &Topology) -> Result<()> {
    ensure!(processes::of_lab(&topology.shape.name)? == []);
    for container in topology.nodes.iter().flat_map(|node| &node.containers) {
        let namespace = Path::new("/run/netns").join(&container.namespace);
        ensure!(!namespace.exists(), "{} is left", namespace.display());
        for hierarchy in Means::here().hierarchies() {
            let folder = container::cgroup(&hierarchy, container);
            ensure!(!folder.exists(), "{} is left", folder.display());
        }
    }
    Ok(())
}

#[test]
fn containers_from_scratch_are_apart_and_on_the_overlay() -> Result<()> {
    let Some(shape) = shape("tscr")? else {
        return Ok(());
    };
    let guard = Guard::up(shape)?;
    let topology = guard.topology().clone();
    are_containers(&topology)?;
    guard.down()?;
    nothing_is_left(&topology)
}

#[test]
fn the_explained_commands_make_them_when_typed() -> Result<()> {
    let Some(shape) = shape("tscrt")? else {
        return Ok(());
    };
    let guard = Guard::underlay(shape)?;
    let topology = guard.topology().clone();
    let typed = scenario::containers(&topology, &lab::agent_program());
    let mark = format!("{MARK}={}", topology.shape.name);
    let script = format!("set -e\n{typed}");
    run::checked(["env", &mark, "sh", "-c", &script].map(str::to_owned))?;
    are_containers(&topology)?;
    // The commands that end it are typed, too; the guard has nothing left to do but the nodes.
    let down = scenario::down(&topology, &lab::agent_program());
    let down = format!("set -e\n{down}");
    run::checked(["sh", "-c", &down].map(str::to_owned))?;
    nothing_is_left(&topology)?;
    Ok(guard.down()?)
}

/// The number behind a word in a file of the container's cgroup; of all words when there is none.
fn counted(container: &Container, of: Controller, file: &str, word: &str) -> Result<u64> {
    let means = Means::here();
    let limits = means.limits();
    let limit = limits.iter().find(|limit| limit.controller == of);
    let hierarchy = &limit.context("no such controller")?.hierarchy;
    let text = fs::read_to_string(container::cgroup(hierarchy, container).join(file))?;
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    Ok(line.with_context(|| text.clone())?.trim().parse()?)
}

#[test]
fn their_limits_limit() -> Result<()> {
    let Some(shape) = shape("tscrl")? else {
        return Ok(());
    };
    let guard = Guard::up(shape)?;
    let topology = guard.topology();
    let (one, other) = (
        &topology.nodes[0].containers[0],
        &topology.nodes[1].containers[0],
    );
    let means = Means::here();
    let missing: Vec<Controller> = means.missing().collect();
    for absent in &missing {
        eprintln!(
            "not tried: this machine has no controller for {}",
            absent.name()
        );
    }
    if !missing.contains(&Controller::Memory) {
        // The shell tells what became of it, if it is not replaced by it.
        let copy = |size| format!("dd if=/dev/zero of=/dev/null bs={size} count=1; exit $?");
        says(topology, one, &copy("32M"))?;
        let killed = inside(topology, one, &copy("100M"))?;
        ensure!(killed.code == Some(137), "{killed:?}");
        let unified = means
            .unified_controllers()
            .any(|it| it == Controller::Memory);
        let file = if unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        ensure!(counted(one, Controller::Memory, file, "oom_kill ")? >= 1);
        ensure!(counted(other, Controller::Memory, file, "oom_kill ")? == 0);
    }
    if !missing.contains(&Controller::Cpu) {
        let before = counted(one, Controller::Cpu, "cpu.stat", "nr_throttled ")?;
        // On a machine that is busy with others it may take a while to get more than its share.
        let throttled = poll::until_well(|| {
            let tried = inside(topology, one, "timeout 1 sh -c 'while :; do :; done'")
                .and_then(|_| counted(one, Controller::Cpu, "cpu.stat", "nr_throttled "));
            match tried {
                Ok(after) if after > before => None,
                other => Some(format!("{before}, then {other:?}")),
            }
        });
        throttled.map_err(anyhow::Error::msg)?;
    }
    if !missing.contains(&Controller::Pids) {
        let many = "for each in $(seq 100); do sleep 1000 >/dev/null 2>&1 & done";
        let refused = inside(topology, one, many)?;
        ensure!(refused.stderr.contains("fork"), "{refused:?}");
        ensure!(counted(one, Controller::Pids, "pids.current", "")? <= 64);
        ensure!(counted(one, Controller::Pids, "pids.events", "max ")? >= 1);
        // Its neighbour has as many of its own.
        says(topology, other, "true")?;
    }
    let topology = topology.clone();
    guard.down()?;
    nothing_is_left(&topology)
}
