//! Running the commands of a script.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, LogEnd, Result},
    names::LabName,
    processes::{self, MARK, TASK},
    script::{Script, Step, inside, shell, words},
    state,
};

/// How long a started process may take until it is ready; a machine under load is slow.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// How long a started process may be out of sight, as it is while `setsid` and `nsenter`
/// become the program, until it counts as ended. An emulated machine takes its time.
const OUT_OF_SIGHT: Duration = Duration::from_secs(5);

/// The output of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whether the exit code was 0.
    pub success: bool,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command: its words, or a line of words without spaces in them.
pub trait CommandLine {
    /// The words.
    fn argv(&self) -> Vec<String>;
}

impl CommandLine for [String] {
    fn argv(&self) -> Vec<String> {
        self.to_vec()
    }
}

impl CommandLine for Vec<String> {
    fn argv(&self) -> Vec<String> {
        self.clone()
    }
}

impl<const N: usize> CommandLine for [String; N] {
    fn argv(&self) -> Vec<String> {
        self.to_vec()
    }
}

impl CommandLine for str {
    fn argv(&self) -> Vec<String> {
        words(self)
    }
}

impl CommandLine for String {
    fn argv(&self) -> Vec<String> {
        words(self)
    }
}

impl<C: CommandLine + ?Sized> CommandLine for &C {
    fn argv(&self) -> Vec<String> {
        (**self).argv()
    }
}

fn finished(argv: &[String]) -> Result<std::process::Output> {
    command(argv)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Spawn {
            argv: argv.to_vec(),
            source,
        })
}

/// Runs a command to its end, whatever that is.
pub fn output(line: impl CommandLine) -> Result<Output> {
    let out = finished(&line.argv())?;
    Ok(Output {
        success: out.status.success(),
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// Runs a command that must succeed, and returns its standard output.
pub fn checked(line: impl CommandLine) -> Result<String> {
    let argv = line.argv();
    let out = finished(&argv)?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    let output = if stderr.trim().is_empty() {
        stdout
    } else {
        stderr.into_owned()
    };
    Err(Error::Command {
        argv,
        status: out.status,
        output,
    })
}

/// Runs a command that must succeed and tells in JSON.
pub fn json(line: impl CommandLine) -> Result<serde_json::Value> {
    let text = checked(&line)?;
    serde_json::from_str(&text).map_err(|error| Error::output(line.argv().join(" "), error))
}

/// The command, speaking English whatever the user's locale is: its output is read.
pub fn command(argv: &[String]) -> Command {
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command
}

/// Runs a script's steps in order, telling each section's title; the first failure ends it.
pub fn script(lab: &LabName, script: &Script, progress: &mut dyn FnMut(&str)) -> Result<()> {
    for section in &script.sections {
        progress(&section.title);
        for step in &section.steps {
            run_step(lab, step)?;
        }
    }
    Ok(())
}

/// Runs one step.
pub fn run_step(lab: &LabName, step: &Step) -> Result<()> {
    match step {
        Step::Run(argv) => checked(argv).map(drop),
        Step::Start { task, argv, log } => start(lab, task, argv, log),
        Step::Await { argv, task } => until_ready(lab, task, argv),
        Step::Write { path, text } => fs::write(path, text).map_err(Error::file("write", path)),
    }
}

/// Starts a process that outlives this one and carries the lab's mark.
fn start(lab: &LabName, task: &str, argv: &[String], log: &Path) -> Result<()> {
    let mut child = spawn(lab, task, argv, log)?;
    // Its end is told by /proc; somebody has to collect the exit status all the same.
    thread::spawn(move || child.wait());
    Ok(())
}

/// As a script starts a process; the caller collects its exit status.
pub(crate) fn spawn(lab: &LabName, task: &str, argv: &[String], log: &Path) -> Result<Child> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::file("open", log))?;
    let errors = file.try_clone().map_err(Error::file("open", log))?;
    let mut detached = vec!["setsid".to_owned()];
    detached.extend_from_slice(argv);
    command(&detached)
        .env(MARK, lab.to_string())
        .env(TASK, task)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Spawn {
            argv: detached,
            source,
        })
}

fn until_ready(lab: &LabName, task: &str, argv: &[String]) -> Result<()> {
    let log = state::log_file(lab, task);
    let deadline = Instant::now() + READY_WITHIN;
    let mut seen = Instant::now();
    loop {
        let is_there = processes::task(lab, task)?.is_some();
        if is_there {
            seen = Instant::now();
        }
        let answer = output(argv)?;
        if answer.success {
            return Ok(());
        }
        // To ask can take longer than that.
        if !is_there && seen.elapsed() > OUT_OF_SIGHT {
            return Err(Error::Ended {
                task: task.to_owned(),
                log: LogEnd::read(log),
            });
        }
        if Instant::now() > deadline {
            return Err(Error::NotReady {
                task: task.to_owned(),
                seconds: READY_WITHIN.as_secs(),
                asked: shell(argv),
                answer: answer.stdout + &answer.stderr,
                log: LogEnd::read(log),
            });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A process that ends with the value.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command inside a namespace; nobody hears what it says.
    pub fn inside(namespace: &str, line: &str) -> Result<Self> {
        let argv = words(inside(namespace, line));
        let mut process = command(&argv);
        process.stdin(Stdio::null()).stdout(Stdio::null());
        let spawned = process.spawn();
        let process = spawned.map_err(|source| Error::Spawn { argv, source })?;
        Ok(Self(process))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("process {} was not ended: {error}", self.0.id());
        }
    }
}
