//! Raising a lab and taking it down.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use nix::{sys::signal::Signal, unistd::geteuid};

use crate::{
    agent::Agent,
    error::{Error, Result},
    means::Means,
    names::LabName,
    poll, processes, run,
    scenario::{
        self,
        container::{cgroup, keeper_file},
    },
    script::{Script, Step},
    shape::{Scenario, Shape},
    state::{Lock, State},
    topology::Topology,
};

/// Told what is being done, in one line at a time.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// The outcome of `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The lab was built.
    Now,
    /// It was up already.
    Before,
}

/// Raises a lab, unless it is up; a lab that was left half-built is taken down first.
///
/// When a step fails, what was built is removed again.
pub fn up(shape: &Shape, agent: &Path, progress: Progress<'_>) -> Result<Raised> {
    let topology = Topology::new(shape.clone());
    let script = scenario::up(&topology, agent);
    raise(&topology, agent, &script, progress)
}

/// [`up`], with a script of the caller's own, which makes no more than the scenario's would.
pub fn raise(
    topology: &Topology,
    agent: &Path,
    script: &Script,
    progress: Progress<'_>,
) -> Result<Raised> {
    require_root()?;
    let shape = &topology.shape;
    let lock = Lock::take(&shape.name)?;
    match State::load(&shape.name)? {
        Some(State {
            shape: running,
            ready: true,
            ..
        }) if running == *shape => {
            return Ok(Raised::Before);
        }
        Some(State {
            shape: running,
            ready: true,
            ..
        }) => {
            return Err(Error::OtherShape {
                running: Box::new(running),
            });
        }
        Some(half) => {
            progress("A lab of this name was left half-built: taking it down first");
            demolish(&half, progress)?;
        }
        None => {
            if let Some(folder) = lock.foreign() {
                return Err(Error::ForeignFolder(folder));
            }
        }
    }
    if let Err(error) = precheck(topology, agent) {
        lock.forget()?;
        return Err(error);
    }

    let mut state = State {
        shape: shape.clone(),
        agent: agent.to_owned(),
        ready: false,
    };
    state.save()?;
    if let Err(error) = run::script(&shape.name, script, progress) {
        progress("That failed: taking down what was built");
        demolish(&state, progress)?;
        lock.forget()?;
        return Err(error);
    }
    state.ready = true;
    state.save()?;
    Ok(Raised::Now)
}

/// Nodes of a lab whose agents do not run, by their instances.
pub fn missing(topology: &Topology) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for instance in topology.instances() {
        if processes::task(&topology.shape.name, instance)?.is_none() {
            missing.push(instance.to_owned());
        }
    }
    Ok(missing)
}

/// Starts the agents that do not run, and waits until they are well; their instances.
pub fn start_missing(topology: &Topology, program: &Path) -> Result<Vec<String>> {
    let missing = missing(topology)?;
    for instance in &missing {
        Agent::new(&topology.shape.name, program, instance.clone()).start()?;
    }
    Ok(missing)
}

/// Takes a lab down, however much of it there is; false when there was none.
pub fn down(name: &LabName, progress: Progress<'_>) -> Result<bool> {
    require_root()?;
    let lock = Lock::take(name)?;
    let state = State::load(name)?;
    if let Some(state) = &state {
        demolish(state, progress)?;
    }
    lock.forget()?;
    Ok(state.is_some())
}

/// The record of a lab that is up.
pub fn find(name: &LabName) -> Result<State> {
    State::load(name)?
        .filter(|state| state.ready)
        .ok_or_else(|| Error::NotUp(name.clone()))
}

/// The agent's program: `OVERLAY_AGENT`, or what the workspace built.
pub fn agent_program() -> PathBuf {
    agent_program_in("release")
}

/// The same, where the one to fall back on is in another of the target directory's folders.
pub fn agent_program_in(folder: &str) -> PathBuf {
    if let Some(path) = env::var_os("OVERLAY_AGENT") {
        return path.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join(folder).join("overlay-agent")
}

/// The static busybox of which containers from scratch are made: `OVERLAY_BUSYBOX`, or what the
/// set-up unpacked.
pub fn busybox_program() -> PathBuf {
    if let Some(path) = env::var_os("OVERLAY_BUSYBOX") {
        return path.into();
    }
    let home = || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("overlay/clients/bookworm/bin/busybox")
}

/// Says what is missing when the caller is not root.
pub fn require_root() -> Result<()> {
    if geteuid().is_root() {
        Ok(())
    } else {
        Err(Error::NotRoot)
    }
}

/// Finds what would make the script fail half-way, or meet what is not the lab's.
fn precheck(topology: &Topology, agent: &Path) -> Result<()> {
    if topology.shape.scenario.needs_agent() && !agent.is_file() {
        return Err(Error::NoAgent(agent.to_owned()));
    }
    let busybox = busybox_program();
    if topology.shape.scenario == Scenario::Container && !busybox.is_file() {
        return Err(Error::NoBusybox(busybox));
    }
    if let Some(foreign) = topology.namespaces().into_iter().find(|name| exists(name)) {
        return Err(Error::ForeignNamespace(foreign));
    }
    match topology.instances().find(|instance| has_traces(instance)) {
        Some(foreign) => Err(Error::ForeignInstance(foreign.to_owned())),
        None => Ok(()),
    }
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// Runs the script that takes the lab down, as far as there is something to take down,
/// and ends the processes before their namespaces go.
fn demolish(state: &State, progress: Progress<'_>) -> Result<()> {
    let (topology, name) = (state.topology(), &state.shape.name);
    for instance in topology.instances().filter(|instance| has_traces(instance)) {
        progress(&format!("Agent {instance} removes what it made"));
        if let Err(error) = run::checked(scenario::agents::down(&state.agent, instance)) {
            // Not the end: without its namespaces and pins, nothing of it can stay.
            progress(&format!("Agent {instance} could not: {error}"));
        }
    }
    if state.shape.scenario == Scenario::Container {
        end_containers(&topology)?;
    }
    progress("Ending processes and removing namespaces");
    processes::end_all(name)?;
    for namespace in topology
        .namespaces()
        .into_iter()
        .filter(|namespace| exists(namespace))
    {
        run::run_step(name, &Step::run(format!("ip netns del {namespace}")))?;
    }
    if state.shape.scenario == Scenario::Container {
        remove_cgroups(&topology)?;
    }
    topology
        .instances()
        .flat_map(traces)
        .try_for_each(|path| remove(&path))
}

/// The first process of a process namespace heeds no request to end, and its keeper passes none on.
fn end_containers(topology: &Topology) -> Result<()> {
    let processes = processes::of_lab(&topology.shape.name)?;
    for container in topology.nodes.iter().flat_map(|node| &node.containers) {
        let file = keeper_file(topology, container);
        let keeper = match fs::read_to_string(&file) {
            Ok(pid) => pid,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::file("read", file)(source)),
        };
        let keeper = keeper.trim().parse();
        if let Some(keeper) = processes.iter().find(|one| keeper == Ok(one.pid)) {
            keeper.signal(Signal::SIGKILL)?;
        }
    }
    Ok(())
}

/// A cgroup can go when the last process has left it, which is soon after that was killed.
fn remove_cgroups(topology: &Topology) -> Result<()> {
    let hierarchies = Means::here().hierarchies();
    for container in topology.nodes.iter().flat_map(|node| &node.containers) {
        for folder in hierarchies
            .iter()
            .map(|hierarchy| cgroup(hierarchy, container))
        {
            let gone = poll::until_well(|| match fs::remove_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error),
                _ => None,
            });
            gone.map_err(|why| Error::file("remove", folder)(io::Error::other(why)))?;
        }
    }
    Ok(())
}

/// The folders of an agent outside its namespace: pins, socket, state.
pub fn traces(instance: &str) -> [PathBuf; 3] {
    ["/sys/fs/bpf/overlay", "/run/overlay", "/var/lib/overlay"]
        .map(|folder| Path::new(folder).join(instance))
}

fn has_traces(instance: &str) -> bool {
    traces(instance).iter().any(|path| path.exists())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::File {
            operation: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
