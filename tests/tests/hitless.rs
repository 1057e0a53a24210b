//! Nothing that happens to the agent loses a packet between containers of two nodes, nor
//! doubles one, nor changes their order.
//!
//! What is allowed: packets that are in the kernel's queues at the moment at which a program
//! is attached or detached may be overtaken by those that take the other path. So order is
//! asked for from all packets that were not under way while `fastpath` ran, and from every
//! packet where both paths before and after are the fast one.

use std::{
    fs,
    io::Read as _,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_common::ABI;
use overlay_tests::{
    agent::Agent,
    config::{Endpoint, Peer},
    counters,
    families::Family,
    guard::Guard,
    lab,
    load::{Load, Rates, drops::Drops},
    poll, run, scenario,
    script::{inside, words},
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    traffic::Pair,
};

/// TCX links, or the filters of older kernels: what is done without a gap by the one may not
/// be by the other.
const WAYS: [&str; 2] = ["auto", "clsact"];
const ATTACH: &str = "OVERLAY_ATTACH";
/// How long packets flow before and after what is tested.
const CALM: Duration = Duration::from_millis(500);
/// Rounds at ever lower rates, until the machine itself loses nothing.
const ROUNDS: usize = 4;

/// Whether packets may overtake others while something is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    KeptBut,
}

/// Two nodes with two containers each.
struct Stand {
    guard: Guard,
    /// How programs are attached.
    way: &'static str,
}

impl Stand {
    fn raise(name: &str, way: &'static str) -> Result<Self> {
        let shape = Shape::usual(name, Scenario::Overlay)?;
        let guard = Guard::by(shape, |topology, program| {
            let mut script = scenario::up(topology, program);
            script.reword(|argv| {
                if argv.get(1).is_some_and(|word| word == "run") {
                    argv.splice(0..0, ["env".to_owned(), format!("{ATTACH}={way}")]);
                }
            });
            script
        })?;
        Ok(Self { guard, way })
    }

    /// Does something while packets flow, again and again until no queue was full meanwhile.
    fn under_load(
        &self,
        what: &str,
        order: Order,
        mut act: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let topology = self.guard.topology();
        let namespaces = topology.namespaces();
        let mut rates = Rates::default();
        for _ in 0..ROUNDS {
            let before = Drops::of(&namespaces)?;
            let load = Load::start(&self.pair(), rates)?;
            thread::sleep(CALM);
            let window = load.during(&mut act)?;
            thread::sleep(CALM);
            let outcome = load.finish()?;
            let full = Drops::of(&namespaces)?.since(&before);
            let took = window.1.saturating_sub(window.0).as_millis();
            println!("{what} ({took} ms)\n{outcome}\n{full}");

            let transfer = outcome.transfer.context("no transfer")?;
            assert!(transfer.is_whole(), "{what}: {outcome}");
            let windows: &[_] = match order {
                Order::Kept => &[],
                Order::KeptBut => &[window],
            };
            for stream in outcome.streams() {
                assert_eq!(
                    (stream.refused, stream.came.doubled),
                    (0, 0),
                    "{what}: {outcome}"
                );
                let late: Vec<_> = stream.late_outside(windows).collect();
                assert!(late.is_empty(), "{what}: {late:?}\n{outcome}");
            }
            let overflowed: u64 = outcome.streams().map(|stream| stream.overflowed).sum();
            let excused = full.total() + overflowed;
            assert!(outcome.lost() <= excused, "{what}: {outcome}\n{full}");
            if excused == 0 {
                return Ok(());
            }
            rates = rates.halved();
        }
        anyhow::bail!("{what}: the machine's own queues were full at every rate");
    }

    fn agent(&self, node: u8) -> Agent {
        self.guard.agent(node).with(ATTACH, self.way)
    }

    /// Nothing is left to be done, and the programs carry what is sent.
    fn is_well(&self, agent: &Agent) -> Result<()> {
        let plan = agent.plan()?;
        assert!(plan.is_empty(), "{plan:?}\n{}", agent.log()?);
        let before = counters::carried(&agent.instance)?;
        self.pair().icmp(&[56])?;
        let carried = counters::carried(&agent.instance)? - before;
        assert_eq!((carried.sent, carried.received), (1, 1));
        Ok(())
    }

    /// A container of the first node, and one of the second.
    fn pair(&self) -> Pair<'_> {
        let nodes = &self.guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        Pair::between(from, to, Family::V4)
    }
}

#[test]
fn the_agent_s_death_and_start() -> Result<()> {
    for way in WAYS {
        let stand = Stand::raise("thkill", way)?;
        let agents = [1, 2].map(|node| stand.agent(node));
        let what = format!("kill -9 of both agents and start, {way}");
        stand.under_load(&what, Order::Kept, || {
            for agent in &agents {
                agent.kill()?;
            }
            thread::sleep(CALM);
            Ok(agents.iter().try_for_each(Agent::start)?)
        })?;
        stand.is_well(&agents[0])?;
        stand.under_load(&format!("restart, {way}"), Order::Kept, || {
            agents[0].stop()?;
            Ok(agents[0].start()?)
        })?;
        stand.is_well(&agents[0])?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn builds_with_other_maps() -> Result<()> {
    for way in WAYS {
        let stand = Stand::raise("thabi", way)?;
        let old = stand.agent(1);
        let new = old.with("OVERLAY_ABI", ABI + 1);
        let before = Snapshot::of(&old.instance)?;
        let monitor = Monitor::start(&old.instance)?;
        for (what, agent, other, number) in [
            ("upgrade", &new, &old, ABI + 1),
            ("downgrade", &old, &new, ABI),
        ] {
            stand.under_load(&format!("{what}, {way}"), Order::Kept, || {
                if abi(agent)? == u64::from(number) {
                    // A round before has done it.
                    replace(agent, other)?;
                }
                replace(other, agent)
            })?;
            stand.is_well(agent)?;
            assert_eq!(layouts(agent)?, [format!("v{number}")]);
        }
        // What the kernel's path needs was not even touched.
        assert_eq!(monitor.seen()?, Vec::<String>::new());
        let changes = Snapshot::of(&old.instance)?.changes_since(&before);
        let ids_alone = |line: &&String| line.contains("bpftool") || line.contains("tc -j filter");
        let others: Vec<_> = changes
            .lines
            .iter()
            .filter(|line| !ids_alone(line))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn programs_that_say_more_or_less() -> Result<()> {
    for way in WAYS {
        let stand = Stand::raise("thsay", way)?;
        let agent = stand.agent(1);
        stand.under_load(&format!("log levels, {way}"), Order::Kept, || {
            for level in ["warn", "debug", "off"] {
                agent.tell(&["log-level", level])?;
            }
            Ok(())
        })?;
        stand.is_well(&agent)?;
        stand.under_load(&format!("a capture, {way}"), Order::Kept, || {
            agent.tell(&["capture", "-w", "/dev/null", "--seconds", "1"])?;
            Ok(())
        })?;
        stand.is_well(&agent)?;
        stand.guard.down()?;
    }
    Ok(())
}

/// The folders of maps that are pinned.
fn layouts(agent: &Agent) -> Result<Vec<String>> {
    let [pins, ..] = lab::traces(&agent.instance);
    let mut names = Vec::new();
    for entry in fs::read_dir(pins)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with('v') {
            names.push(name);
        }
    }
    Ok(names)
}

/// The ABI of the build that runs.
fn abi(agent: &Agent) -> Result<u64> {
    let status = agent.json(&["status"])?;
    status["abi"].as_u64().context("no ABI in the status")
}

fn replace(running: &Agent, by: &Agent) -> Result<()> {
    running.stop()?;
    Ok(by.start()?)
}

/// What becomes of devices, addresses and routes of ours.
struct Monitor(Child);

impl Monitor {
    fn start(node: &str) -> Result<Self> {
        let argv = words(inside(node, "ip monitor link address route"));
        let child = run::command(&argv).stdout(Stdio::piped()).spawn()?;
        Ok(Self(child))
    }

    fn seen(mut self) -> Result<Vec<String>> {
        self.0.kill()?;
        let mut text = String::new();
        let mut output = self.0.stdout.take().context("no output")?;
        output.read_to_string(&mut text)?;
        // Link-local addresses are the kernel's, and appear late.
        let ours = text
            .lines()
            .filter(|line| line.contains("ovl") && !line.contains("fe80:"));
        Ok(ours.map(str::to_owned).collect())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("ip monitor was not ended: {error}");
        }
    }
}

#[test]
fn the_fast_path_off_and_on() -> Result<()> {
    for way in WAYS {
        let stand = Stand::raise("thfast", way)?;
        for node in [1, 2] {
            let agent = stand.agent(node);
            for (on, what) in [(false, "off"), (true, "on")] {
                let name = format!("fastpath {what} at node {node}, {way}");
                stand.under_load(&name, Order::KeptBut, || {
                    if agent.json(&["status"])?["fastpath"]["state"] == what {
                        // A round before has done it.
                        agent.fastpath(!on)?;
                    }
                    Ok(agent.fastpath(on)?)
                })?;
            }
        }
        let name = format!("fastpath off and on at once, {way}");
        stand.under_load(&name, Order::KeptBut, || {
            for on in [false, true, false, true] {
                stand.guard.fastpath(on)?;
            }
            Ok(())
        })?;
        stand.is_well(&stand.agent(1))?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn a_new_configuration() -> Result<()> {
    let stand = Stand::raise("thconfig", WAYS[0])?;
    let agent = stand.agent(1);
    let usual = stand.guard.first_config();
    let mut larger = usual.clone();
    larger.networks[0].peers.push(Peer {
        name: "elsewhere".to_owned(),
        vtep: "192.168.56.99".to_owned(),
        subnet: vec!["10.244.96.0/20".to_owned()],
        ..Peer::default()
    });
    larger.endpoints.push(Endpoint {
        name: "thconfig-new".to_owned(),
        network: "lab".to_owned(),
        netns: Some("thconfig-new".to_owned()),
        ..Endpoint::default()
    });
    let (usual, larger) = (usual.to_toml(), larger.to_toml());
    stand.under_load("a peer and an endpoint more, and less", Order::Kept, || {
        for (text, is_there) in [(&larger, true), (&usual, false)] {
            fs::write(agent.config_file(), text)?;
            let followed = poll::until_well(|| complaint(&agent, is_there));
            ensure!(followed == Ok(()), "{followed:?}\n{}", agent.log()?);
            thread::sleep(CALM);
        }
        Ok(())
    })?;
    stand.is_well(&agent)?;
    Ok(stand.guard.down()?)
}

/// None when the additional peer and endpoint are there, or are not.
fn complaint(agent: &Agent, is_there: bool) -> Option<String> {
    let look = || -> Result<Option<String>> {
        let routes = run::checked(inside(&agent.instance, "ip route show proto 111"))?;
        let endpoints = agent.tell(&["endpoint", "list"])?;
        let found = [
            routes.contains("10.244.96.0/20"),
            endpoints.contains("thconfig-new"),
        ];
        let plan = agent.plan()?;
        Ok((found != [is_there; 2] || !plan.is_empty())
            .then(|| format!("{routes}\n{endpoints}\n{plan:?}")))
    };
    look().unwrap_or_else(|error| Some(format!("{error:#}")))
}
