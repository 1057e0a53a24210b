//! Progress messages for the user.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// How often a running command is asked whether it has ended.
const POLL: Duration = Duration::from_millis(50);
/// How often the user is told that it has not.
const REMINDER: Duration = Duration::from_secs(10);
/// How much of a failed command's output is shown.
const LAST_LINES: usize = 20;

/// Prints progress, one aligned line a fact, and runs commands under it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Console {
    /// Whether commands write to the terminal instead of into a log file.
    pub(crate) verbose: bool,
}

impl Console {
    /// Says how it stands with `subject`.
    #[expect(
        clippy::unused_self,
        reason = "callers hold the console as their leave to print"
    )]
    pub(crate) fn say(self, subject: &str, state: impl Display) {
        // When nobody reads any more, the work still has to be done.
        let _unread = writeln!(io::stdout(), "{subject:>12}  {state}");
    }

    /// Runs a command to its end, with the time that it has taken so far.
    ///
    /// # Errors
    /// When it cannot be started or fails; its last lines are in the error.
    pub(crate) fn run(self, subject: &str, doing: &str, command: &mut Command) -> Result<()> {
        self.run_within(subject, doing, Duration::MAX, command)
    }

    /// Runs a command like [`Self::run`], but ends it after `limit`.
    pub(crate) fn run_within(
        self,
        subject: &str,
        doing: &str,
        limit: Duration,
        command: &mut Command,
    ) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.say(subject, format_args!("{doing} …"));
        let log = workspace::target()?
            .join("xtask")
            .join(format!("{}.log", subject.replace(' ', "-")));
        command.stdin(Stdio::null());
        if !self.verbose {
            write_into(command, create(&log)?)?;
        }
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("run {program}"))?;
        let status = self.wait(subject, doing, started, limit, child)?;
        if status.success() {
            self.say(
                subject,
                format_args!("{doing}: done ({} s)", started.elapsed().as_secs()),
            );
            return Ok(());
        }
        if self.verbose {
            bail!("{doing}: {program} failed ({status})");
        }
        bail!(
            "{doing}: {program} failed ({status}); it said at last:\n{}",
            last_lines(&log)?
        )
    }

    /// Runs a command like [`Self::run_within`], with its output in a file of the caller's.
    pub(crate) fn run_into(
        self,
        subject: &str,
        doing: &str,
        limit: Duration,
        output: File,
        command: &mut Command,
    ) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.say(subject, format_args!("{doing} …"));
        write_into(command, output)?;
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("run {program}"))?;
        let status = self.wait(subject, doing, started, limit, child)?;
        if !status.success() {
            bail!("{doing}: {program} failed ({status})");
        }
        Ok(())
    }

    fn wait(
        self,
        subject: &str,
        doing: &str,
        started: Instant,
        limit: Duration,
        mut child: Child,
    ) -> Result<ExitStatus> {
        let mut reminder = REMINDER;
        loop {
            if let Some(status) = child.try_wait().context("wait for a command")? {
                return Ok(status);
            }
            let elapsed = started.elapsed();
            if elapsed > limit {
                child.kill().context("end a command that takes too long")?;
                child.wait().context("wait for a command that was ended")?;
                bail!("{doing}: not done after {} s", limit.as_secs());
            }
            if elapsed > reminder {
                self.say(subject, format_args!("{doing} … {} s", elapsed.as_secs()));
                reminder += REMINDER;
            }
            thread::sleep(POLL);
        }
    }
}

/// Has a command write everything into one file.
fn write_into(command: &mut Command, file: File) -> Result<()> {
    let errors = file.try_clone().context("share the log file")?;
    command.stdout(file).stderr(errors);
    Ok(())
}

fn create(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    File::create(log).with_context(|| format!("create {}", log.display()))
}

fn last_lines(log: &Path) -> Result<String> {
    let bytes = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
    Ok(format!("    {shown}\n    (all of it: {})", log.display()))
}
