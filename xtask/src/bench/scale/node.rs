//! A node with an agent, which goes when the value goes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::net::if_::if_nametoindex;
use overlay_tests::{
    bpf::{Hook, Program},
    netns, run,
    script::words,
};
use serde_json::{Value, json};

use super::peers::{NAME, UNDERLAY};

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_mins(5);
/// How often is looked whether something is done.
const LOOK: Duration = Duration::from_millis(1);

pub(super) struct Node {
    agent: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
    containers: usize,
    /// How the agent attaches its programs.
    way: &'static str,
}

/// A change of the configuration.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// Until all was applied.
    pub(super) time: Duration,
    /// What the agent ran meanwhile.
    pub(super) cpu: Duration,
    pub(super) steps: u64,
}

/// In MiB.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: f64,
    pub(super) peak: f64,
}

impl Node {
    /// Makes the namespace with an underlay; the remains of a run that was killed are removed.
    pub(super) fn make(agent: &Path, way: &'static str) -> Result<Self> {
        let node = Self {
            agent: agent.to_owned(),
            folder: std::env::temp_dir().join(NAME),
            process: None,
            containers: 0,
            way,
        };
        node.clear()?;
        fs::create_dir_all(&node.folder)
            .with_context(|| format!("create {}", node.folder.display()))?;
        for command in [
            format!("ip netns add {NAME}"),
            format!("ip -n {NAME} link set lo up"),
            format!("ip -n {NAME} link add eth1 type veth peer name eth2"),
            format!("ip -n {NAME} addr add {UNDERLAY} dev eth1"),
            format!("ip -n {NAME} link set eth1 up"),
            format!("ip -n {NAME} link set eth2 up"),
        ] {
            run::checked(&words(command))?;
        }
        Ok(node)
    }

    /// Attaches a program that does nothing to so many devices; how long each took.
    pub(super) fn attach_alone(&self, number: usize) -> Result<Vec<Duration>> {
        let here = format!("-n {NAME}");
        let add = |number| format!("link add alone{number} type veth peer name peer{number}\n");
        self.run_batch(&here, &(0..number).map(add).collect::<String>())?;
        let times = netns::inside(NAME, || {
            let program = Program::nothing()?;
            let attach = |number| {
                let device = if_nametoindex(format!("alone{number}").as_str())?;
                let start = Instant::now();
                let _attached = program.attach(device, Hook::Ingress)?;
                Ok(start.elapsed())
            };
            (0..number).map(attach).collect::<Result<_>>()
        })??;
        let delete = |number| format!("link del alone{number}\n");
        self.run_batch(&here, &(0..number).map(delete).collect::<String>())?;
        Ok(times)
    }

    /// Writes the configuration at once, as an editor does.
    pub(super) fn configure(&self, text: &str) -> Result<()> {
        let new = self.folder.join("new.toml");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, self.config()).with_context(|| format!("rename {}", new.display()))
    }

    /// Starts the agent; how long it took until it answers.
    pub(super) fn start(&mut self) -> Result<Duration> {
        let log = fs::File::create(self.log()).context("create the agent's log")?;
        let start = Instant::now();
        let mut command = self.command(&["run", "--netns", NAME, "--config"]);
        let child = command
            .arg(self.config())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(child.with_context(|| format!("start {}", self.agent.display()))?);
        let socket = self.socket();
        self.until("answers", |_| {
            Ok(UnixStream::connect(&socket).ok().map(drop))
        })?;
        Ok(start.elapsed())
    }

    /// Changes the configuration, and waits until all is applied.
    pub(super) fn change(&mut self, text: &str) -> Result<Change> {
        let before = applied(&self.read_log()?).len();
        let ran = self.cpu_time()?;
        let start = Instant::now();
        self.configure(text)?;
        let steps = self.until("applies the change", |node| {
            Ok(applied(&node.read_log()?).get(before).copied())
        })?;
        Ok(Change {
            time: start.elapsed(),
            cpu: self.cpu_time()?.saturating_sub(ran),
            steps,
        })
    }

    /// Makes namespaces for containers.
    pub(super) fn make_containers(&mut self, number: usize) -> Result<()> {
        self.batch("add", self.containers..number)?;
        self.containers = number;
        Ok(())
    }

    /// Attaches a container through the API.
    pub(super) fn attach(&self, number: usize) -> Result<Duration> {
        let name = container(number);
        let request = json!({
            "op": "endpoint_add",
            "name": name,
            "network": "lab",
            "netns": name,
            "pid": null,
            "interface": null,
        });
        let start = Instant::now();
        let reply = self.call(&request)?;
        let time = start.elapsed();
        ensure!(reply.get("endpoint").is_some(), "attach {name}: {reply}");
        Ok(time)
    }

    /// Deletes one through the API.
    pub(super) fn detach(&self, number: usize) -> Result<Duration> {
        let name = container(number);
        let start = Instant::now();
        let reply = self.call(&json!({ "op": "endpoint_del", "name": name }))?;
        let time = start.elapsed();
        ensure!(reply == json!("done"), "delete {name}: {reply}");
        Ok(time)
    }

    /// Attaches a container as people do.
    pub(super) fn attach_by_command(&self, number: usize) -> Result<Duration> {
        let name = container(number);
        let start = Instant::now();
        let mut command = self.command(&[
            "endpoint",
            "add",
            &name,
            "--network",
            "lab",
            "--netns",
            &name,
        ]);
        let out = command
            .args(["--instance", NAME])
            .output()
            .context("run the agent")?;
        let time = start.elapsed();
        let error = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "attach {name}: {error}");
        Ok(time)
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.pid()?);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mib = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib / 1024.0)
        };
        Ok(Memory {
            now: mib("VmRSS:").with_context(|| format!("find VmRSS in {path}"))?,
            peak: mib("VmHWM:").with_context(|| format!("find VmHWM in {path}"))?,
        })
    }

    /// What all of its threads have run so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.pid()?);
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
            let path = task
                .with_context(|| format!("list {tasks}"))?
                .path()
                .join("schedstat");
            // A thread that has ended meanwhile does not count.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let ran = text
                .split_whitespace()
                .next()
                .and_then(|ran| ran.parse().ok());
            sum += Duration::from_nanos(ran.with_context(|| format!("read {}", path.display()))?);
        }
        Ok(sum)
    }

    /// Removes everything, and says whether that worked.
    pub(super) fn down(mut self) -> Result<()> {
        self.end();
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        let down = self
            .command(&["down", "--instance", NAME])
            .output()
            .context("run the agent")?;
        let listed = run::checked(&words("ip netns list"))?;
        let of_ours = |line: &str| {
            let name = line.split_whitespace().next()?;
            name.starts_with(NAME)
                .then(|| format!("netns del {name}\n"))
        };
        let lines: String = listed.lines().filter_map(of_ours).collect();
        fs::create_dir_all(&self.folder)?;
        self.run_batch("", &lines)?;
        fs::remove_dir_all(&self.folder)?;
        let text = String::from_utf8_lossy(&down.stderr);
        // Without anything of an earlier run there is no such instance.
        ensure!(
            down.status.success() || lines.is_empty() || text.contains("no "),
            "down: {text}"
        );
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take()
            && let Err(error) = process.kill().and_then(|()| process.wait())
        {
            eprintln!("the agent was not ended: {error}");
        }
    }

    fn batch(&self, what: &str, numbers: std::ops::Range<usize>) -> Result<()> {
        let line = |number| format!("netns {what} {}\n", container(number));
        self.run_batch("", &numbers.map(line).collect::<String>())
    }

    fn run_batch(&self, options: &str, lines: &str) -> Result<()> {
        let file = self.folder.join("batch");
        fs::write(&file, lines).with_context(|| format!("write {}", file.display()))?;
        run::checked(&words(format!("ip {options} -batch {}", file.display())))?;
        Ok(())
    }

    fn call(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(self.socket()).context("connect to the agent")?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .context("ask the agent")?;
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .context("hear the agent")?;
        serde_json::from_str(&answer).with_context(|| format!("understand {answer:?}"))
    }

    fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            let process = self.process.as_mut().context("the agent was not started")?;
            if let Some(status) = process.try_wait().context("wait for the agent")? {
                bail!(
                    "the agent ended with {status} before it {what}:\n{}",
                    self.read_log()?
                );
            }
            ensure!(
                Instant::now() < deadline,
                "nothing {what}:\n{}",
                self.read_log()?
            );
            thread::sleep(LOOK);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.agent);
        command
            .args(arguments)
            .env("OVERLAY_STATE_DIR", self.folder.join("state"))
            .env("OVERLAY_RUNTIME_DIR", self.folder.join("run"))
            .env("OVERLAY_ATTACH", self.way)
            .env_remove("OVERLAY_LOG");
        command
    }

    fn pid(&self) -> Result<u32> {
        Ok(self
            .process
            .as_ref()
            .context("the agent was not started")?
            .id())
    }

    fn config(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn read_log(&self) -> Result<String> {
        fs::read_to_string(self.log()).context("read the agent's log")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run").join(NAME).join("api.sock")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.folder.exists() {
            self.end();
            if let Err(error) = self.clear() {
                eprintln!("the node was not removed: {error:#}");
            }
        }
    }
}

fn container(number: usize) -> String {
    format!("{NAME}-c{number}")
}

/// The numbers of steps that a log tells of.
fn applied(log: &str) -> Vec<u64> {
    let steps = |line: &str| {
        let (_, told) = line.split_once("applied ")?;
        told.trim_end_matches('s')
            .strip_suffix(" step")?
            .parse()
            .ok()
    };
    log.lines().filter_map(steps).collect()
}
