//! A node with an agent, which goes when the value goes.

mod taken;

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
};
use serde_json::{Value, json};

use super::peers::{NAME, UNDERLAY};

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_mins(5);
/// How often is looked whether something is done.
const LOOK: Duration = Duration::from_millis(1);

pub(in crate::bench) struct Node {
    /// Of its namespace and of its agent's instance.
    name: &'static str,
    agent: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
    containers: usize,
    /// How the agent attaches its programs.
    way: &'static str,
}

/// A change of the configuration.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Change {
    /// Until all was applied.
    pub(in crate::bench) time: Duration,
    /// What the agent ran meanwhile.
    pub(in crate::bench) cpu: Duration,
    pub(in crate::bench) steps: u64,
}

impl Node {
    /// Makes the namespace with an underlay; the remains of a run that was killed are removed.
    pub(in crate::bench) fn make(agent: &Path, way: &'static str) -> Result<Self> {
        Self::named(NAME, agent, way)
    }

    /// One beside others.
    pub(in crate::bench) fn named(
        name: &'static str,
        agent: &Path,
        way: &'static str,
    ) -> Result<Self> {
        let node = Self {
            name,
            agent: agent.to_owned(),
            folder: std::env::temp_dir().join(name),
            process: None,
            containers: 0,
            way,
        };
        node.clear()?;
        fs::create_dir_all(&node.folder)
            .with_context(|| format!("create {}", node.folder.display()))?;
        for command in [
            format!("ip netns add {name}"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} link add eth1 type veth peer name eth2"),
            format!("ip -n {name} addr add {UNDERLAY} dev eth1"),
            format!("ip -n {name} link set eth1 up"),
            format!("ip -n {name} link set eth2 up"),
        ] {
            run::checked(command)?;
        }
        Ok(node)
    }

    /// Attaches a program that does nothing to so many devices; how long each took.
    pub(in crate::bench) fn attach_alone(&self, number: usize) -> Result<Vec<Duration>> {
        let here = format!("-n {}", self.name);
        let add = |number| format!("link add alone{number} type veth peer name peer{number}\n");
        self.run_batch(&here, &(0..number).map(add).collect::<String>())?;
        let times = netns::inside(self.name, || {
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
    pub(in crate::bench) fn configure(&self, text: &str) -> Result<()> {
        let new = self.folder.join("new.toml");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, self.config()).with_context(|| format!("rename {}", new.display()))
    }

    /// Starts the agent; how long it took until it answers.
    pub(in crate::bench) fn start(&mut self) -> Result<Duration> {
        let log = fs::File::create(self.log()).context("create the agent's log")?;
        let start = Instant::now();
        let mut command = self.command(&["run", "--netns", self.name, "--config"]);
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
    pub(in crate::bench) fn change(&mut self, text: &str) -> Result<Change> {
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
    pub(in crate::bench) fn make_containers(&mut self, number: usize) -> Result<()> {
        self.batch("add", self.containers..number)?;
        self.containers = number;
        Ok(())
    }

    /// Attaches a container through the API.
    pub(in crate::bench) fn attach(&self, number: usize) -> Result<Duration> {
        let name = self.container(number);
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
    pub(in crate::bench) fn detach(&self, number: usize) -> Result<Duration> {
        let name = self.container(number);
        let start = Instant::now();
        let reply = self.call(&json!({ "op": "endpoint_del", "name": name }))?;
        let time = start.elapsed();
        ensure!(reply == json!("done"), "delete {name}: {reply}");
        Ok(time)
    }

    /// Attaches a container as people do.
    pub(in crate::bench) fn attach_by_command(&self, number: usize) -> Result<Duration> {
        let name = self.container(number);
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
            .args(["--instance", self.name])
            .output()
            .context("run the agent")?;
        let time = start.elapsed();
        let error = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "attach {name}: {error}");
        Ok(time)
    }

    /// Its name, which is that of its namespace and of the agent's instance.
    pub(in crate::bench) fn name(&self) -> &'static str {
        self.name
    }

    /// Where its files are.
    pub(in crate::bench) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes everything, and says whether that worked.
    pub(in crate::bench) fn down(mut self) -> Result<()> {
        self.end();
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        let down = self
            .command(&["down", "--instance", self.name])
            .output()
            .context("run the agent")?;
        let listed = run::checked("ip netns list")?;
        let of_ours = |line: &str| {
            let name = line.split_whitespace().next()?;
            name.starts_with(self.name)
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
        let line = |number| format!("netns {what} {}\n", self.container(number));
        self.run_batch("", &numbers.map(line).collect::<String>())
    }

    fn container(&self, number: usize) -> String {
        format!("{}-c{number}", self.name)
    }

    fn run_batch(&self, options: &str, lines: &str) -> Result<()> {
        let file = self.folder.join("batch");
        fs::write(&file, lines).with_context(|| format!("write {}", file.display()))?;
        run::checked(format!("ip {options} -batch {}", file.display()))?;
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
        self.folder.join("run").join(self.name).join("api.sock")
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
