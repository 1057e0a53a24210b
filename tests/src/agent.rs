//! The agent's command line, as scripts use it.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    lab,
    names::LabName,
    poll,
    processes::{self, Process},
    run::{self, Output},
    script::Step,
    state,
};

/// One instance of the agent, running or not.
#[derive(Clone, Debug)]
pub struct Agent {
    lab: LabName,
    program: PathBuf,
    /// Its instance's name, which is its node's namespace too.
    pub instance: String,
    /// Its environment, as `NAME=VALUE`.
    environment: Vec<String>,
}

impl Agent {
    /// The instance of a node.
    pub fn new(lab: &LabName, program: &Path, instance: String) -> Self {
        Self {
            lab: lab.clone(),
            program: program.to_owned(),
            instance,
            environment: Vec::new(),
        }
    }

    /// The same instance run with a variable in its environment.
    #[must_use]
    pub fn with(&self, variable: &str, value: impl fmt::Display) -> Self {
        let mut agent = self.clone();
        agent.environment.push(format!("{variable}={value}"));
        agent
    }

    /// Runs a command of this instance to its end.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--instance", &self.instance]);
        self.call(&arguments)
    }

    /// Runs a command that must succeed; its standard output.
    pub fn tell(&self, arguments: &[&str]) -> Result<String> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--instance", &self.instance]);
        run::checked(self.argv(&arguments))
    }

    /// The answer of a command in JSON, whatever its exit code.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        let out = self.ask(&arguments)?;
        parse(&out.stdout, || {
            format!("overlay-agent {}: {}", arguments.join(" "), out.stderr)
        })
    }

    /// The answer of the daemon to a request, without a process in between.
    pub fn request(&self, request: &Value) -> Result<Value> {
        let [_, runtime, _] = lab::traces(&self.instance);
        let socket = runtime.join("api.sock");
        let ask = || {
            let mut stream = UnixStream::connect(&socket)?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(Error::file("ask", &socket))?;
        parse(&answer, || request.to_string())
    }

    /// Runs a command that is about no instance, such as `check`.
    pub fn call(&self, arguments: &[&str]) -> Result<Output> {
        run::output(self.argv(arguments))
    }

    /// A command line of this program, to be run by other means.
    pub fn argv(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        let environment = match self.environment.as_slice() {
            [] => Vec::new(),
            set => [&["env".to_owned()], set].concat(),
        };
        environment
            .into_iter()
            .chain([program])
            .chain(arguments.iter().map(|&word| word.to_owned()))
            .collect()
    }

    /// Its configuration file in the lab.
    pub fn config_file(&self) -> PathBuf {
        state::config_file(&self.lab, &self.instance)
    }

    /// Its log in the lab.
    pub fn log_file(&self) -> PathBuf {
        state::log_file(&self.lab, &self.instance)
    }

    /// Attaches a container to the lab's network; what is said of it.
    pub fn attach(&self, name: &str, netns: &str) -> Result<Value> {
        let arguments = [
            "endpoint",
            "add",
            name,
            "--network",
            "lab",
            "--netns",
            netns,
        ];
        let answer = self.tell(&[&arguments[..], &["--output", "json"]].concat())?;
        let mut all = parse(&answer, || arguments.join(" "))?;
        Ok(all[0].take())
    }

    /// Waits until nothing is left to do: containers that come soon after others have their programs
    /// later.
    pub fn until_done(&self) -> Result<()> {
        self.until("plan", || self.plan(), Vec::is_empty).map(drop)
    }

    /// Attaches or detaches the programs.
    pub fn fastpath(&self, on: bool) -> Result<()> {
        self.tell(&["fastpath", if on { "on" } else { "off" }])
            .map(drop)
    }

    /// The steps that `run` would take now.
    pub fn plan(&self) -> Result<Vec<Value>> {
        let config = self.config_file();
        let config = config.to_string_lossy();
        let arguments = [
            "plan",
            "--config",
            &config,
            "--netns",
            &self.instance,
            "--output",
            "json",
        ];
        let out = self.call(&arguments)?;
        let plan = parse(&out.stdout, || {
            format!("overlay-agent plan: {}", out.stderr)
        })?;
        plan["steps"].as_array().cloned().ok_or_else(|| {
            Error::output("overlay-agent plan", format!("no list \"steps\" in {plan}"))
        })
    }

    /// Packets that were dropped, by whomever, by reason: as many as the programs and the kernel say.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let stats = self.json(&["stats"])?;
        let wrong = |why: &str| Error::output("overlay-agent stats", format!("{why} {stats}"));
        let drops = stats["drops"].as_array();
        let drops = drops.ok_or_else(|| wrong("no list \"drops\" in"))?;
        let count = |drops: &Value| {
            let name = drops["reason"].as_str().unwrap_or_default().to_owned();
            (name, drops["packets"].as_u64().unwrap_or_default())
        };
        let drops: BTreeMap<_, _> = drops.iter().map(count).collect();
        let of_programs = stats["programs"].as_array();
        let of_programs = of_programs.ok_or_else(|| wrong("no list \"programs\" in"))?;
        let sum: u64 = of_programs
            .iter()
            .filter_map(|program| program["dropped"]["packets"].as_u64())
            .sum();
        if sum != drops.values().sum::<u64>() {
            return Err(wrong("reasons and programs differ in"));
        }
        Ok(drops)
    }

    /// Those of them that were dropped after others.
    pub fn drops_since(&self, before: &BTreeMap<String, u64>) -> Result<Vec<(String, u64)>> {
        let more = |(name, count): (String, u64)| {
            let more = count - before.get(&name).copied().unwrap_or_default();
            (more > 0).then_some((name, more))
        };
        Ok(self.drops()?.into_iter().filter_map(more).collect())
    }

    /// The daemon's process.
    pub fn process(&self) -> Result<Option<Process>> {
        processes::task(&self.lab, &self.instance)
    }

    /// Starts the daemon with the lab's configuration and waits until it is well.
    pub fn start(&self) -> Result<()> {
        let ready = Step::Await {
            argv: self.argv(&["status", "--instance", &self.instance]),
            task: self.instance.clone(),
        };
        run::run_step(&self.lab, &self.start_step())?;
        run::run_step(&self.lab, &ready)
    }

    fn start_step(&self) -> Step {
        let config = self.config_file().to_string_lossy().into_owned();
        Step::Start {
            task: self.instance.clone(),
            argv: self.argv(&["run", "--config", &config, "--netns", &self.instance]),
            log: self.log_file(),
        }
    }

    /// Starts the daemon where it may not live; whether it was well before it ended.
    pub fn try_start(&self) -> Result<bool> {
        let Step::Start { argv, log, task } = self.start_step() else {
            return Ok(false);
        };
        let mut child = run::spawn(&self.lab, &task, &argv, &log)?;
        let ask = self.argv(&["status", "--instance", &self.instance]);
        loop {
            if child
                .try_wait()
                .map_err(Error::file("wait for", &log))?
                .is_some()
            {
                return Ok(false);
            }
            if run::output(&ask)?.success {
                // Its end is told by /proc; somebody has to collect the exit status all the same.
                thread::spawn(move || child.wait());
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the daemon and waits until it answers; whether it is well then.
    pub fn start_anyhow(&self) -> Result<bool> {
        run::run_step(&self.lab, &self.start_step())?;
        let answers = |status: &Output| matches!(status.code, Some(0 | 1));
        let status = self.until("status", || self.ask(&["status"]), answers)?;
        Ok(status.success)
    }

    /// Ends the daemon as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Ends the daemon as a service manager does.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let Some(process) = self.process()? else {
            return Ok(());
        };
        process.signal(signal)?;
        if process.wait(Instant::now() + Duration::from_secs(20)) {
            return Ok(());
        }
        Err(Error::output(
            format!("kill -{signal} {}", process.pid),
            "it runs on",
        ))
    }

    /// Waits until `status` says that all is well.
    pub fn is_well(&self) -> Result<()> {
        self.until("status", || self.ask(&["status"]), |out| out.success)
            .map(drop)
    }

    /// Waits until `status` says this, and that not all is well.
    pub fn tells(&self, what: &str) -> Result<()> {
        let tells = |out: &Output| out.code == Some(1) && out.stdout.contains(what);
        self.until("status", || self.ask(&["status"]), tells)
            .map(drop)
    }

    /// Waits until `status`, in JSON, is as expected, and returns it.
    pub fn status_until(&self, is_expected: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until("status", || self.json(&["status"]), is_expected)
    }

    /// Waits until it has logged this.
    pub fn has_logged(&self, what: &str) -> Result<()> {
        poll::until(|| self.log(), |log| log.contains(what))
            .map(drop)
            .map_err(|error| Error::output(format!("look for {what:?} in the log"), error))
    }

    /// Waits until a command's answer is as expected, and returns it; the error brings the log.
    fn until<T: fmt::Debug>(
        &self,
        command: &str,
        ask: impl FnMut() -> Result<T>,
        is_expected: impl Fn(&T) -> bool,
    ) -> Result<T> {
        poll::until(ask, is_expected).map_err(|error| {
            Error::output(
                format!("overlay-agent {command} ({})", self.instance),
                format!("{error}\n{}", self.log().unwrap_or_default()),
            )
        })
    }

    /// Everything it logged.
    pub fn log(&self) -> Result<String> {
        let path = self.log_file();
        std::fs::read_to_string(&path).map_err(Error::file("read", path))
    }
}

fn parse(text: &str, what: impl FnOnce() -> String) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::output(what(), format!("{error} in {text:?}")))
}
