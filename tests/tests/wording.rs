//! What the product says, in the plain words that were chosen for it: of each text that newcomers
//! stumbled over, the old wording stands nowhere, and the new one where it belongs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// The old wording, the new one, and the file that has it.
const REWRITES: [(&str, &str, &str); 41] = [
    (
        "Let the programs tell the log",
        "Set which packets the eBPF programs log, until the agent exits",
        "overlay-agent/src/cli/mod.rs",
    ),
    (
        "Nothing yet: no packet is an error",
        "The same as off",
        "overlay-agent/core/src/model/log_level.rs",
    ),
    (
        "drops them all is not accused",
        "A peer that ignores all of them is not reported.",
        "docs/doctor.md",
    ),
    ("To be looked into", "**Observable.**", "README.md"),
    (
        "shows that it is told so",
        "boots an unsupported kernel and checks that the agent says so",
        "docs/dev/testing.md",
    ),
    (
        "older ones are told so",
        "On an older one the agent says so",
        "docs/kernels.md",
    ),
    (
        "no longer: {",
        "resolved: {problem}",
        "overlay-agent/src/daemon/round.rs",
    ),
    (
        "take a frame for",
        "cannot continue on the peer: node {} does not own {to}",
        "overlay-agent/insight/src/explain/arriving.rs",
    ),
    (
        "to nobody, not through",
        "is routed {by} instead of via the gateway",
        "overlay-agent/insight/src/doctor/checks/containers.rs",
    ),
    (
        "or a stranger tries",
        "Either a node is missing from [[networks.peers]], or an unknown host is sending VXLAN.",
        "overlay-agent/insight/src/doctor/checks/wire.rs",
    ),
    (
        "as long as it is so",
        "Until it is put right the agent makes, changes and repairs nothing on this node.",
        "overlay-agent/insight/src/doctor/checks/setup.rs",
    ),
    (
        "throws away what the tunnel brings",
        "The peer discards tunnelled packets.",
        "overlay-agent/insight/src/doctor/checks/peers.rs",
    ),
    (
        "Who is to get it",
        "Destination: an endpoint's name, \"node\", or any address",
        "overlay-agent/src/cli/explain.rs",
    ),
    (
        "as few as can be",
        "the smallest valid packet",
        "overlay-agent/src/cli/explain.rs",
    ),
    (
        "How to print",
        "Output format",
        "overlay-agent/src/cli/mod.rs",
    ),
    (
        "Remove all that is ours",
        "Remove everything that this instance created",
        "overlay-agent/src/cli/mod.rs",
    ),
    (
        "Where those others are",
        "Prefix behind this endpoint: accepted as a source and routed to it",
        "overlay-agent/src/cli/mod.rs",
    ),
    (
        "with what became of them, to a pcapng",
        "Capture packets at the eBPF programs, annotated with their verdict",
        "overlay-agent/src/cli/mod.rs",
    ),
    (
        "is no IP address",
        "invalid IP address {0:?}",
        "overlay-agent/core/src/config/error.rs",
    ),
    (
        "is no way to probe",
        "invalid probe interval {0:?}",
        "overlay-agent/core/src/model/types.rs",
    ),
    (
        "it is running already",
        "instance {0} is already running",
        "overlay-agent/src/daemon/lock.rs",
    ),
    (
        "the agent has other work",
        "the interval must be at least {FASTEST} s",
        "overlay-agent/src/cli/stats/mod.rs",
    ),
    (
        "good: node",
        "OK: node {}",
        "overlay-agent/src/cli/output.rs",
    ),
    (
        "not possible\"",
        "{some} skipped (--verbose says why)",
        "overlay-agent/src/cli/doctor.rs",
    ),
    (
        "log level {}  the programs",
        "packet log: {}",
        "overlay-agent/src/cli/watching.rs",
    ),
    (
        "What is not as it should be: overlay-agent",
        "Number of current problems; see overlay-agent status.",
        "overlay-agent/insight/src/metrics/export.rs",
    ),
    (
        "Whether the eBPF programs carry",
        "1 if the fast path is attached.",
        "overlay-agent/insight/src/metrics/export.rs",
    ),
    (
        "it has one receiver, by MAC",
        "unicast",
        "overlay-common/src/journal.rs",
    ),
    (
        "its TTL or hop limit lasts",
        "TTL or hop limit sufficient",
        "overlay-common/src/journal.rs",
    ),
    (
        "the kernel brings it there",
        "delivered by the kernel",
        "overlay-agent/src/cli/explain.rs",
    ),
    (
        "loaded to say more",
        "same program attached, tracing build",
        "overlay-agent/src/cli/explain.rs",
    ),
    (
        "who are here; the node leads",
        "prefixes behind it, routed to it by the node",
        "overlay-agent/dist/node01.toml",
    ),
    (
        "with a source that nobody can have",
        "impossible source addresses: loopback",
        "overlay-agent/dist/node01.toml",
    ),
    (
        "that are no more are told together",
        "endpoints are summed up as `former`",
        "docs/stats.md",
    ),
    (
        "has not got its outer",
        "the outer MACs are still unset: the kernel fills them in afterwards",
        "docs/capture.md",
    ),
    (
        "what passes then is told as flaky",
        "a test that passes on the second run is reported as flaky",
        "docs/dev/testing.md",
    ),
    (
        "answered as they must",
        "numbers are the remaining TTL (initially 64)",
        "tests/src/check.rs",
    ),
    (
        "and the next round will show it",
        "the next round is affected",
        "xtask/src/bench/rounds.rs",
    ),
    (
        "Ready is the agent",
        "The agent is ready once the networks exist",
        "overlay-agent/dist/overlay-agent.service",
    ),
    (
        "the disk did not know yet",
        "Journal of a killed agent that is not on disk yet.",
        "overlay-agent/dist/overlay-agent.service",
    ),
    (
        "Check form, lints",
        "Check formatting, lints and dependencies",
        "xtask/src/main.rs",
    ),
];

/// Wordings that went without another one in their place, or whose kind may not come again.
const GONE: [&str; 7] = [
    "they are not for sale",
    "a door that stays open",
    "where it lets itself be shared",
    "{0:?} is no ",
    ":?} is no ",
    "applied {} steps\"",
    "the marks of congestion are carried over",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file's text in one line, as it is printed: without remarks for its makers, and without what a
/// string or a help text is broken by.
fn text(path: &Path) -> Result<String> {
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let is_help = path.components().any(|part| part.as_os_str() == "cli")
        || path.ends_with("main.rs")
        || path.ends_with("log_level.rs");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| {
        !is_rust || !line.starts_with("//") || (is_help && line.starts_with("/// "))
    });
    let words = lines.flat_map(|line| {
        let line = line.trim_start_matches("/// ").trim_end_matches('\\');
        line.split_whitespace()
    });
    Ok(words.collect::<Vec<_>>().join(" "))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|kind| ["rs", "md", "toml", "service"].iter().any(|it| kind == *it))
        {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn what_newcomers_stumbled_over_is_said_plainly() -> Result<()> {
    let root = root();
    let mut said = Vec::new();
    for folder in [
        "overlay-agent",
        "overlay-common/src",
        "docs",
        "xtask/src",
        "tests/src",
    ] {
        files(&root.join(folder), &mut said)?;
    }
    said.push(root.join("README.md"));
    ensure!(said.len() > 300, "{} files", said.len());
    let texts: Vec<(PathBuf, String)> = said
        .into_iter()
        .map(|path| Ok((path.clone(), text(&path)?)))
        .collect::<Result<_>>()?;
    for old in REWRITES.iter().map(|(old, ..)| old).chain(&GONE) {
        let again = texts.iter().find(|(_, text)| text.contains(old));
        let at = again.map(|(path, _)| path.display());
        ensure!(at.is_none(), "{old:?} is back: {}", at.context("a path")?);
    }
    for (old, new, file) in REWRITES {
        let text = text(&root.join(file))?;
        ensure!(text.contains(new), "{new:?}, for {old:?}, is not in {file}");
    }
    Ok(())
}
