//! Every command of the tutorial and of the quickstart, typed in its order; each prints what its page shows.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{drawing, lab};

/// Stands where a reader's own differs.
const ANYTHING: char = '…';
/// The shell prints this after each command, with the exit code.
const END: &str = "=tutorial-end=";
/// Nothing of it is seen outside: named namespaces, agents' sockets and state, pins, processes.
const ROOM: &str = "mount --make-rprivate /; mount -t tmpfs tmpfs /run; mount -t bpf bpf /sys/fs/bpf; \
                    mkdir /run/state; export OVERLAY_STATE_DIR=/run/state TMPDIR=/run; exec bash";

/// A command and what its page shows of what it prints.
#[derive(Debug, Default)]
struct Typed {
    command: String,
    shown: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial")
}

fn page(name: &str) -> Result<String> {
    let path = folder().join(format!("{name}.md"));
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What stands behind `#`, and behind `>` in the lines after it, in blocks of a console.
fn commands(page: &str) -> Vec<Typed> {
    let mut found: Vec<Typed> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        if line.starts_with("```") {
            within = line == "```console";
        } else if !within {
        } else if let Some(command) = line.strip_prefix("# ") {
            found.push(Typed {
                command: command.to_owned(),
                ..Typed::default()
            });
        } else if let Some(last) = found.last_mut() {
            if let Some(more) = line.strip_prefix('>') {
                last.command.push('\n');
                last.command += more.strip_prefix(' ').unwrap_or(more);
            } else {
                last.shown.push(line.trim_end().to_owned());
            }
        }
    }
    found
}

/// Whether a line is what a page shows.
fn is_as_shown(shown: &str, line: &str) -> bool {
    let mut parts = shown.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

/// The first line that a page shows and that is not there, in this order.
fn missing<'a>(shown: &'a [String], lines: &[String]) -> Option<&'a str> {
    let mut lines = lines.iter();
    let missing = |shown: &&String| !lines.any(|line| is_as_shown(shown, line));
    shown.iter().find(missing).map(String::as_str)
}

/// A shell in a room of its own, which goes with it.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open() -> Result<Self> {
        let agent = lab::agent_program();
        let beside = agent.parent().context("the agent is in no folder")?;
        let path = std::env::var("PATH").context("no PATH")?;
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-c", ROOM])
            .env("PATH", format!("{}:{path}", beside.display()))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self {
            child,
            input,
            output,
        })
    }

    /// Types a command; its exit code, and the lines that it prints to either output.
    fn types(&mut self, command: &str) -> Result<(String, Vec<String>)> {
        // In the same shell, so that variables, folders and jobs stay.
        writeln!(self.input, "exec 2>&1\n{command}\necho \"\n{END}$?\"")?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line)?;
            ensure!(read > 0, "the shell has ended after {command}: {lines:?}");
            match line.strip_prefix(END) {
                Some(code) => return Ok((code.trim().to_owned(), lines)),
                None => lines.push(line.trim_end().to_owned()),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Whatever runs in the room ends with its first process.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the tutorial's shell was not ended: {error}");
        }
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[test]
fn every_command_of_the_tutorial_prints_what_its_page_shows() -> Result<()> {
    lab::require_root()?;
    let mut shell = Shell::open()?;
    let mut typed = 0;
    for step in drawing::STEPS {
        if step == "7-store" && !has("etcd") {
            eprintln!("skipped: there is no etcd for {step}");
            continue;
        }
        for Typed { command, shown } in commands(&page(step)?) {
            let (code, lines) = shell.types(&command)?;
            let said = lines.join("\n");
            ensure!(code == "0", "{step}: {command}\nends with {code}:\n{said}");
            let missing = missing(&shown, &lines);
            ensure!(
                missing.is_none(),
                "{step}: {command}\ndoes not print {missing:?}:\n{said}"
            );
            typed += 1;
        }
    }
    ensure!(typed > 100, "only {typed} commands were found");
    Ok(())
}

/// A line without what differs from run to run: numbers, and the width of columns.
fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    let mut in_number = false;
    for letter in line
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
    {
        let goes_on = in_number && letter == '.';
        if letter.is_ascii_digit() && !in_number {
            plain.push('0');
        } else if !letter.is_ascii_digit() && !goes_on {
            plain.push(letter);
        }
        in_number = letter.is_ascii_digit() || goes_on;
    }
    plain
}

/// What a reader of the quickstart does between two commands, as its text says, or waits for.
fn before(command: &str) -> Option<&'static str> {
    if command == "cat node01.log" {
        return Some(
            "for node in node01 node02; do for _ in $(seq 300); do \
             overlay-agent status --instance $node >/dev/null 2>&1 && break; sleep 0.1; done; done",
        );
    }
    command.ends_with("| grep rtt").then_some(
        "sed -i '/^underlay/a probe = \"1s\"' node01.toml node02.toml; for _ in $(seq 300); do \
         overlay-agent status --instance node01 | grep -q 'rtt.*path mtu' && break; sleep 0.1; done",
    )
}

#[test]
fn every_command_of_the_quickstart_prints_what_its_page_shows() -> Result<()> {
    lab::require_root()?;
    let page = fs::read_to_string(folder().join("../quickstart.md"))?;
    let (page, _) = page
        .split_once("## A peer that has only the kernel")
        .context("where another section begins")?;
    let mut shell = Shell::open()?;
    let mut files = page.split("```toml\n").skip(1);
    let first = "mkdir /run/quickstart && cd /run/quickstart";
    ensure!(shell.types(first)?.0 == "0", "{first}");
    for name in ["node01.toml", "node02.toml"] {
        let text = files.next().and_then(|rest| rest.split("```").next());
        let text = text.with_context(|| format!("{name} is not on the page"))?;
        let written = shell.types(&format!("cat >{name} <<'END'\n{text}END"))?;
        ensure!(written.0 == "0", "{name}: {written:?}");
    }
    let typed = commands(&page.replace("\n$ ", "\n# "));
    ensure!(typed.len() > 20, "only {} commands were found", typed.len());
    for Typed { command, shown } in typed {
        if let Some(first) = before(&command) {
            shell.types(first)?;
        }
        let (code, lines) = shell.types(&command)?;
        let said = lines.join("\n");
        ensure!(code == "0", "{command}\nends with {code}:\n{said}");
        let plain = |lines: &[String]| -> Vec<String> {
            lines.iter().map(|line| without_numbers(line)).collect()
        };
        let (shown, lines) = (plain(&shown), plain(&lines));
        let missing = missing(&shown, &lines);
        ensure!(
            missing.is_none(),
            "{command}\ndoes not print {missing:?}:\n{said}"
        );
    }
    let (_, left) = shell.types("ls -A /run/netns /run/overlay /sys/fs/bpf/overlay /run/state")?;
    let left = left.join("\n");
    ensure!(
        !left.contains("node0") && !left.contains("web"),
        "something stays: {left}"
    );
    Ok(())
}

#[test]
fn the_pages_lead_from_one_to_the_next() -> Result<()> {
    let contents = page("README")?;
    for (step, next) in drawing::STEPS.iter().zip(drawing::STEPS.iter().skip(1)) {
        ensure!(
            contents.contains(&format!("({step}.md)")),
            "{step} is not in the list"
        );
        ensure!(
            page(step)?.contains(&format!("({next}.md)")),
            "{step} does not lead to {next}"
        );
    }
    Ok(())
}

#[test]
fn the_drawings_are_those_of_the_lab() -> Result<()> {
    for step in drawing::STEPS {
        ensure!(
            page(step)?.contains(&format!("]({step}.svg)")),
            "{step} has no drawing"
        );
        let there = fs::read_to_string(folder().join(format!("{step}.svg")))?;
        let drawn = drawing::of(step).context("no drawing")?;
        ensure!(
            there == drawn,
            "{step}.svg is old: run cargo xtask tutorial"
        );
    }
    Ok(())
}

#[test]
fn what_differs_from_reader_to_reader_may_be_left_out() {
    assert!(is_as_shown("lo…DOWN…", "lo   DOWN  00:00"));
    assert!(is_as_shown(
        "…Network is unreachable",
        "ping: connect: Network is unreachable"
    ));
    assert!(!is_as_shown(
        "64 bytes…ttl=62",
        "64 bytes from 172.16.1.2: ttl=62 time=1"
    ));
    assert!(!is_as_shown("OK", "OKAY"));
    assert_eq!(
        without_numbers("64 bytes  from 10.244.2.10: time=0.1 ms"),
        "0 bytes from 0: time=0 ms"
    );
}
