//! The agent with no more than it needs: what it gives up, and that it works as nobody.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    check::{self, Answer},
    guard::Guard,
    poll, run,
    script::{Step, inside, words},
    shape::{Scenario, Shape},
    state,
};
use serde_json::Value;

/// `nobody`, who owns nothing.
const USER: u32 = 65534;
/// Bits of what the agent keeps: `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`,
/// `CAP_PERFMON` and `CAP_BPF`.
const KEPT: u64 = 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;
/// What it is started with.
const GIVEN: [&str; 6] = [
    "net_admin",
    "bpf",
    "perfmon",
    "sys_admin",
    "sys_ptrace",
    "net_broadcast",
];

/// A line of each thread's status.
fn of_each_thread(pid: i32, field: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        found.push(
            value
                .with_context(|| format!("no {field}"))?
                .trim()
                .to_owned(),
        );
    }
    Ok(found)
}

/// Every thread has given up what is not needed.
fn is_bounded(pid: i32) -> Result<()> {
    for field in ["CapPrm:", "CapEff:"] {
        for set in of_each_thread(pid, field)? {
            assert_eq!(u64::from_str_radix(&set, 16)?, KEPT, "{field} {set}");
        }
    }
    for field in ["CapInh:", "CapAmb:"] {
        for set in of_each_thread(pid, field)? {
            let more = u64::from_str_radix(&set, 16)? & !(1 << 12);
            assert_eq!(more, 0, "{field} {set}");
        }
    }
    for set in of_each_thread(pid, "NoNewPrivs:")? {
        assert_eq!(set, "1");
    }
    Ok(())
}

#[test]
fn what_is_not_needed_is_given_up() -> Result<()> {
    let shape = Shape::of("tpriv", Scenario::Overlay, 2, 2)?;
    let guard = Guard::configured(shape, |_, config| {
        // A packet filter, which another program sets for the agent.
        config.networks[0].masquerade = Some(true);
    })?;
    let agent = guard.agent(1);
    let process = agent.process()?.context("no agent runs")?;
    is_bounded(process.pid)?;
    for set in of_each_thread(process.pid, "CapBnd:")? {
        assert_eq!(u64::from_str_radix(&set, 16)? & !KEPT, 0, "CapBnd: {set}");
    }

    // It still repairs, on the node, in a container and in the packet filter,
    let table = format!("inet overlay-{}", agent.instance);
    for (namespace, command) in [
        (&agent.instance, "ip link del ovl1".to_owned()),
        (&agent.instance, format!("nft delete table {table}")),
        (&"tpriv-n1c1".to_owned(), "ip route del default".to_owned()),
    ] {
        run::checked(inside(namespace, &command))?;
        guard.is_whole(&agent, &command)?;
    }
    // makes namespaces, and finds those of processes that can more than it.
    agent.tell(&[
        "endpoint",
        "add",
        "made",
        "--network",
        "lab",
        "--netns",
        "tpriv-made",
    ])?;
    agent.tell(&["endpoint", "del", "made"])?;
    let namespace = overlay_tests::netns::Temporary::make("tpriv-p")?;
    let start = Step::Start {
        task: "sleeper".to_owned(),
        argv: words(inside("tpriv-p", "sleep 1000")),
        log: state::log_file(&guard.topology().shape.name, "sleeper"),
    };
    run::run_step(&guard.topology().shape.name, &start)?;
    let sleeper = poll_for_sleep(&guard);
    agent.tell(&[
        "endpoint",
        "add",
        "proc",
        "--network",
        "lab",
        "--pid",
        &sleeper,
    ])?;
    let answer = check::ping("tpriv-p", guard.topology().nodes[1].containers[0].address)?;
    assert_eq!(answer, Answer::Ttl(62));
    agent.tell(&["endpoint", "del", "proc"])?;
    drop(namespace);
    Ok(guard.down()?)
}

/// The process that has become `sleep`, and so has entered its namespace.
fn poll_for_sleep(guard: &Guard) -> String {
    let mut found = String::new();
    let entered = poll::until_well(|| {
        let task = overlay_tests::processes::task(&guard.topology().shape.name, "sleeper");
        match task {
            Ok(Some(process)) if process.command.starts_with("sleep") => {
                found = process.pid.to_string();
                None
            }
            other => Some(format!("{other:?}")),
        }
    });
    assert_eq!(entered, Ok(()));
    found
}

/// Folders of a user's own, and a BPF file system that goes with the value.
struct Home(PathBuf);

impl Home {
    fn make(guard: &Guard) -> Result<Self> {
        let folder = state::folder(&guard.topology().shape.name).join("home");
        fs::create_dir_all(folder.join("bpf"))?;
        for part in ["state", "run"] {
            fs::create_dir_all(folder.join(part))?;
            chown(folder.join(part), Some(USER), Some(USER))?;
        }
        let bpf = folder.join("bpf");
        run::checked(format!("mount -t bpf bpf {}", bpf.display()))?;
        let home = Self(folder);
        fs::create_dir(bpf.join("overlay"))?;
        chown(bpf.join("overlay"), Some(USER), Some(USER))?;
        Ok(home)
    }

    /// The agent's command line, of a copy that nobody can read what is around of.
    fn argv(&self, program: &[String], arguments: &str) -> Result<Vec<String>> {
        let copy = self.0.join("overlay-agent");
        if !copy.exists() {
            fs::copy(&program[0], &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        }
        let at = self.0.display();
        Ok(words(format!(
            "{at}/overlay-agent --state-dir {at}/state --runtime-dir {at}/run \
             --bpf-dir {at}/bpf/overlay {arguments}"
        )))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let line = format!("umount -l {}", self.0.join("bpf").display());
        if let Err(error) = run::checked(line) {
            eprintln!("{} was not unmounted: {error}", self.0.display());
        }
    }
}

fn setpriv(user: u32, capabilities: &[&str], argv: Vec<String>) -> Vec<String> {
    let set = capabilities.iter().map(|name| format!(",+{name}"));
    let set: String = set.collect();
    let mut line = words(format!(
        "setpriv --reuid {user} --regid {user} --clear-groups --bounding-set -all{set} \
         --inh-caps -all{set} --ambient-caps -all{set}"
    ));
    line.extend(argv);
    line
}

#[test]
fn it_works_as_nobody() -> Result<()> {
    let guard = Guard::up(Shape::of("tnobody", Scenario::Overlay, 2, 2)?)?;
    let (agent, node) = (guard.agent(1), &guard.topology().nodes[0]);
    agent.tell(&["down"])?;
    let name = &guard.topology().shape.name;
    for container in &node.containers {
        // Of somebody who may make namespaces.
        run::checked(format!("ip netns add {}", container.namespace))?;
    }
    let home = Home::make(&guard)?;
    let program = agent.argv(&[]);
    let config = agent.config_file();
    let run = format!(
        "run --config {} --netns {}",
        config.display(),
        node.namespace
    );
    let status = format!("status --output json --instance {}", node.namespace);
    let start = Step::Start {
        task: "nobody".to_owned(),
        argv: setpriv(USER, &GIVEN, home.argv(&program, &run)?),
        log: state::log_file(name, "nobody"),
    };
    run::run_step(name, &start)?;
    let ready = Step::Await {
        argv: setpriv(USER, &[], home.argv(&program, &status)?),
        task: "nobody".to_owned(),
    };
    run::run_step(name, &ready)?;
    let process = overlay_tests::processes::task(name, "nobody")?.context("no agent runs")?;
    is_bounded(process.pid)?;
    assert_eq!(fs::metadata(format!("/proc/{}", process.pid))?.uid(), USER);

    let there = &guard.topology().nodes[1].containers[0];
    let here = &node.containers[0];
    assert_eq!(
        check::ping(&here.namespace, there.address)?,
        Answer::Ttl(62)
    );
    assert_eq!(
        check::ping(&there.namespace, here.address)?,
        Answer::Ttl(62)
    );
    assert_eq!(
        check::ping(&node.namespace, there.address)?,
        Answer::Ttl(63)
    );
    let told: Value = run::json(&home.argv(&program, &status)?)?;
    assert_eq!(told["fastpath"]["state"], "on", "{told}");
    let traffic = &told["networks"][0]["peers"][0]["traffic"];
    assert!(traffic["tx_packets"].as_u64() >= Some(2), "{told}");
    assert!(traffic["rx_packets"].as_u64() >= Some(2), "{told}");

    for (file, mode) in [
        ("run", None),
        ("run/{}", Some(0o700)),
        ("run/{}/api.sock", Some(0o600)),
        ("state/{}", Some(0o700)),
        ("state/{}/state.json", Some(0o600)),
    ] {
        let path = home.0.join(file.replace("{}", &node.namespace));
        let found = fs::metadata(&path).with_context(|| path.display().to_string())?;
        assert_eq!(found.uid(), USER, "{}", path.display());
        if let Some(mode) = mode {
            assert_eq!(found.mode() & 0o7777, mode, "{}", path.display());
        }
    }
    // Another user cannot reach it, and is not told that there is none.
    for command in [
        &*status,
        "status",
        "endpoint list",
        "explain node node",
        "ping node",
        "monitor",
        "capture -w /dev/null",
        "endpoint del nobody",
    ] {
        let out = run::output(setpriv(USER - 1, &[], home.argv(&program, command)?))?;
        assert_eq!(out.code, Some(4), "{command}: {}{}", out.stdout, out.stderr);
    }

    let down = format!("down --instance {}", node.namespace);
    run::checked(setpriv(USER, &[], home.argv(&program, &down)?))?;
    let left = run::checked(format!("ip -n {} -o link show", node.namespace))?;
    assert!(!left.contains("ovl"), "{left}");
    assert!(!home.0.join("bpf/overlay").join(&node.namespace).exists());
    drop(home);
    Ok(guard.down()?)
}

#[test]
fn what_is_missing_is_named() -> Result<()> {
    let guard = Guard::underlay(Shape::of("tlack", Scenario::Overlay, 2, 2)?)?;
    let agent = guard.agent(1);
    let config = agent.config_file();
    fs::write(&config, guard.first_config().to_toml())?;
    for missing in ["net_admin", "sys_admin"] {
        let given: Vec<&str> = GIVEN.into_iter().filter(|name| *name != missing).collect();
        let argv = agent.argv(&["run", "--config", &config.to_string_lossy()]);
        let out = run::output(setpriv(0, &given, argv))?;
        assert_eq!(out.code, Some(4), "{}", out.stderr);
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(out.stderr.contains(&name), "no {name} in {}", out.stderr);
        let traces = Path::new("/run/overlay").join(&agent.instance);
        assert!(!traces.exists(), "something was made");
    }
    Ok(guard.down()?)
}
