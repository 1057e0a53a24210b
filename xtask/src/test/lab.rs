//! The tests in the kernel and in the lab, several programs at a time, and those that failed
//! once more.
//!
//! A lab is dozens of processes that mostly wait for each other, and each test program has labs
//! under names of its own; so there is one program more at a time than processors. What
//! measures the machine itself has it to itself ([`ALONE`]).
//!
//! On a machine that others may use, too, a frame or a timer can be late. So all tests run, and
//! then those programs again in which one failed, one after the other: what fails twice is a
//! failure, and what passes the second time is told, not hidden: twice in ten runs
//! ([`super::flakes`]) it is a failure, too.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Read as _, Seek as _, Write as _},
    num::NonZero,
    process::Command,
    ptr,
    sync::{Mutex, PoisonError},
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::programs::Program;
use crate::console::Console;

/// Programs that send at fixed rates, look at what the whole machine lost or has left, or bound
/// what a step may take.
const ALONE: [&str; 4] = ["full_maps", "hitless", "scale", "soak"];
/// More labs at a time than this would wait for the kernel's one lock of network devices.
const MOST: usize = 4;
/// How many of the slowest programs are told.
const SLOWEST: usize = 10;

/// How a program ended.
struct Outcome<'a> {
    program: &'a Program,
    passed: bool,
    /// The tests that failed, each with its program.
    failed: Vec<String>,
    took: Duration,
}

/// Runs test programs, and what fails a second time. Adds the tests that then passed to `flaky`, also when
/// others have failed.
///
/// `prepare` adds to a program's command what its tests need.
///
/// # Errors
/// When a test fails twice, or a program cannot be started.
pub(super) fn run(
    console: Console,
    programs: &[&Program],
    flaky: &mut BTreeSet<String>,
    prepare: impl Fn(Command) -> Command + Sync,
) -> Result<()> {
    let (alone, together): (Vec<&Program>, Vec<&Program>) = programs
        .iter()
        .partition(|program| ALONE.contains(&program.name.as_str()));
    let processors = available_parallelism().map_or(1, NonZero::get);
    let at_a_time = (processors + 1).min(MOST);
    let mut outcomes = run_all(console, together, at_a_time, &prepare)?;
    outcomes.extend(run_all(console, alone, 1, &prepare)?);
    tell_slowest(console, &mut outcomes);

    let failed: Vec<&Program> = failures(&outcomes);
    if failed.is_empty() {
        return Ok(());
    }
    let told = names(&failed);
    console.say("second run", format_args!("of what failed: {told}"));
    let again = run_all(console, failed.clone(), 1, &prepare)?;
    let again = failures(&again);
    let has_passed = |program: &&Program| !again.iter().any(|other| ptr::eq(*other, *program));
    let passed: Vec<&Program> = failed.into_iter().filter(has_passed).collect();
    if !passed.is_empty() {
        let told = names(&passed);
        console.say("flaky", format_args!("failed once and passed then: {told}"));
    }
    let theirs = outcomes
        .into_iter()
        .filter(|outcome| has_passed(&outcome.program));
    flaky.extend(theirs.flat_map(|outcome| outcome.failed));
    if again.is_empty() {
        return Ok(());
    }
    bail!("tests failed twice: {}", names(&again))
}

/// Runs the tests of units, one program after the other.
///
/// # Errors
/// When one fails, after all have run.
pub(super) fn run_units(
    console: Console,
    programs: Vec<&Program>,
    prepare: impl Fn(Command) -> Command + Sync,
) -> Result<()> {
    let outcomes = run_all(console, programs, 1, &prepare)?;
    let failed = failures(&outcomes);
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed: {}", names(&failed))
}

fn failures<'a>(outcomes: &[Outcome<'a>]) -> Vec<&'a Program> {
    let failed = outcomes.iter().filter(|outcome| !outcome.passed);
    failed.map(|outcome| outcome.program).collect()
}

fn names(programs: &[&Program]) -> String {
    let names: Vec<String> = programs.iter().map(|program| program.label()).collect();
    names.join(", ")
}

fn tell_slowest(console: Console, outcomes: &mut [Outcome<'_>]) {
    outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    let slowest = outcomes.iter().take(SLOWEST);
    let slowest: Vec<String> = slowest
        .map(|outcome| {
            let seconds = outcome.took.as_secs();
            format!("{} {seconds} s", outcome.program.label())
        })
        .collect();
    console.say("slowest", slowest.join(", "));
}

/// Runs programs, so many at a time; what each prints is shown when it has ended.
fn run_all<'a>(
    console: Console,
    programs: Vec<&'a Program>,
    at_a_time: usize,
    prepare: &(impl Fn(Command) -> Command + Sync),
) -> Result<Vec<Outcome<'a>>> {
    let waiting = Mutex::new(VecDeque::from(programs));
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let work = || {
        let mut done = Vec::new();
        while let Some(program) = next() {
            done.push(run_one(console, program, prepare)?);
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            let done: Result<Vec<_>> = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcomes.extend(done?);
        }
        Ok(outcomes)
    })
}

fn run_one<'a>(
    console: Console,
    program: &'a Program,
    prepare: &impl Fn(Command) -> Command,
) -> Result<Outcome<'a>> {
    const KEEP: &str = "keep what a test prints";
    let label = program.label();
    let mut output = tempfile::tempfile().context(KEEP)?;
    let [to, errors] = [output.try_clone(), output.try_clone()];
    let (to, errors) = (to.context(KEEP)?, errors.context(KEEP)?);
    console.say("tests", format_args!("{label} …"));
    let began = Instant::now();
    let status = prepare(program.command())
        .stdout(to)
        .stderr(errors)
        .status()
        .with_context(|| format!("run {}", program.executable.display()))?;
    let took = began.elapsed();
    let mut said = Vec::new();
    output.rewind().context(KEEP)?;
    output.read_to_end(&mut said).context(KEEP)?;
    let said = String::from_utf8_lossy(&said);
    if !(status.success() && is_idle(&said)) {
        let verdict = if status.success() { "passed" } else { "FAILED" };
        let mut stdout = io::stdout().lock();
        // When nobody reads any more, the tests still have to be run.
        let _unread = stdout.write_all(said.as_bytes());
        drop(stdout);
        console.say(
            "tests",
            format_args!("{label}: {verdict} ({} s)", took.as_secs()),
        );
    }
    let passed = status.success();
    Ok(Outcome {
        program,
        passed,
        failed: if passed {
            Vec::new()
        } else {
            failed_tests(&label, &said)
        },
        took,
    })
}

/// The tests of a program that has failed which say that they did; where none does, because the program
/// was ended by a signal, say, the program itself.
fn failed_tests(label: &str, said: &str) -> Vec<String> {
    let name = |line: &str| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(format!("{label}/{name}"))
    };
    let mut failed: Vec<String> = said.lines().filter_map(name).collect();
    if failed.is_empty() {
        failed.push(label.to_owned());
    }
    // A word each in the record.
    failed
        .iter()
        .map(|name| name.replace(char::is_whitespace, "_"))
        .collect()
}

/// Whether the words on the command line left nothing to run.
fn is_idle(said: &str) -> bool {
    let results = || {
        said.lines()
            .filter(|line| line.starts_with("test result: "))
    };
    results().next().is_some()
        && results().all(|line| line.contains(" 0 passed; 0 failed; 0 ignored;"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use anyhow::Result;

    use super::{Program, failed_tests, is_idle, run};
    use crate::console::Console;

    #[test]
    fn a_program_without_tests_says_nothing() {
        let result = |passed| {
            format!("test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 9 filtered")
        };
        assert!(is_idle(&result(0)));
        assert!(!is_idle(&result(2)));
        assert!(!is_idle("it ended before a test"));
    }

    #[test]
    fn a_test_names_itself_where_it_fails() {
        let said = "test a::b ... FAILED\ntest c ... ok\ntest result: FAILED. 1 passed";
        assert_eq!(failed_tests("strangers", said), ["strangers/a::b"]);
        let killed = "test a::b ... ok\ntest c ... ";
        assert_eq!(failed_tests("wire (arm64)", killed), ["wire_(arm64)"]);
    }

    /// Programs of which each passes when it is run for the `passes`th time; what is flaky, and the end.
    fn run_until(programs: &[(&str, u32)]) -> Result<(Vec<String>, Result<()>)> {
        let temporary = tempfile::tempdir()?;
        let make = |(name, passes): &(&str, u32)| -> Result<Program> {
            let folder = temporary.path().join(name);
            let executable = folder.join("program");
            let script = format!("#!/bin/sh\necho >> runs; [ $(wc -l < runs) -ge {passes} ]\n");
            fs::create_dir(&folder)?;
            fs::write(&executable, script)?;
            fs::set_permissions(&executable, Permissions::from_mode(0o755))?;
            Ok(Program {
                name: (*name).to_owned(),
                executable,
                folder,
                is_integration: true,
            })
        };
        let programs = programs.iter().map(make).collect::<Result<Vec<_>>>()?;
        let mut flaky = BTreeSet::new();
        let all: Vec<&Program> = programs.iter().collect();
        let ended = run(Console::default(), &all, &mut flaky, |command| command);
        Ok((flaky.into_iter().collect(), ended))
    }

    #[test]
    fn what_fails_twice_has_failed_and_what_passes_then_is_flaky() -> Result<()> {
        let (flaky, ended) = run_until(&[("hitless", 1)])?;
        ended?;
        assert!(flaky.is_empty(), "{flaky:?}");
        // It names no test, as one does not that a signal has ended.
        let (flaky, ended) = run_until(&[("wire", 2)])?;
        ended?;
        assert_eq!(flaky, ["wire"]);
        let (flaky, ended) = run_until(&[("wire", 3), ("mtu", 2)])?;
        assert!(ended.is_err_and(|error| error.to_string() == "tests failed twice: wire"));
        assert_eq!(flaky, ["mtu"]);
        Ok(())
    }
}
