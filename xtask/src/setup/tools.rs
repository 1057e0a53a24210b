//! The programs that the lab, the tests and the benchmark run.

use std::path::Path;

use anyhow::Result;

use super::{Unmet, apt::Apt};
use crate::{console::Console, toolchain::on_path};

/// Who runs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    /// A lab, and who looks at one by what it suggests.
    Lab,
    /// Tests and measurements, too.
    Tests,
}

/// A program, the Debian package that has it, and what it is for.
struct Tool {
    command: &'static str,
    package: &'static str,
    purpose: &'static str,
    used: For,
}

const fn lab(command: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool {
        command,
        package,
        purpose,
        used: For::Lab,
    }
}

const fn testing(command: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool {
        used: For::Tests,
        ..lab(command, package, purpose)
    }
}

const TOOLS: &[Tool] = &[
    lab("ip", "iproute2", "namespaces, devices, routes"),
    lab("bridge", "iproute2", "forwarding entries"),
    lab("tc", "iproute2", "filters and qdiscs"),
    lab("ping", "iputils-ping", "reachability"),
    lab("tcpdump", "tcpdump", "captures on the wire"),
    testing("tshark", "tshark", "an independent decoder"),
    lab("bpftool", "bpftool", "programs and maps in the kernel"),
    lab("nft", "nftables", "faults and firewalls"),
    lab("pgrep", "procps", "processes in containers"),
    testing("ethtool", "ethtool", "offloads"),
    lab("socat", "socat", "streams and the tunnel of step 4"),
    lab("jq", "jq", "the examples of the help texts"),
    lab("curl", "curl", "requests between containers"),
    testing("tmux", "tmux", "a terminal that tests can read"),
    testing("zsh", "zsh", "completion, which tests type"),
    testing("fish", "fish", "completion, which tests type"),
    lab("iperf3", "iperf3", "throughput"),
    testing("wg", "wireguard-tools", "an underlay of WireGuard"),
    testing("sockperf", "sockperf", "latency"),
];

/// Where Debian keeps programs for root, which is not in every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Finds the tools that somebody needs, and installs the missing ones in one go.
///
/// # Errors
/// [`Unmet`] when that takes root, or another package manager than apt.
pub(super) fn ensure(console: Console, apt: Option<&Apt>, who: For) -> Result<()> {
    if let Some(apt) = apt {
        apt.install("tools", &packages(&missing(who, is_there)))?;
    }
    let missing = missing(who, is_there);
    if missing.is_empty() {
        let commands: Vec<&str> = of(who).map(|tool| tool.command).collect();
        console.say("tools", commands.join(", "));
        return Ok(());
    }
    let named: Vec<String> = missing
        .iter()
        .map(|tool| format!("{} ({})", tool.command, tool.purpose))
        .collect();
    Err(Unmet(format!(
        "install from your distribution's packages: {}",
        named.join(", ")
    ))
    .into())
}

/// What somebody needs.
fn of(who: For) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| tool.used <= who)
}

fn missing(who: For, is_there: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    of(who).filter(|tool| !is_there(tool.command)).collect()
}

/// The packages of `tools`, each once.
fn packages(tools: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a program is installed.
pub(crate) fn is_there(command: &str) -> bool {
    on_path(command).is_some()
        || SYSTEM_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(command).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once_and_only_for_what_is_missing() {
        let is_there = |command: &str| !["tc", "ip", "tshark"].contains(&command);
        assert_eq!(
            packages(&missing(For::Tests, is_there)),
            ["iproute2", "tshark"]
        );
    }

    #[test]
    fn a_lab_needs_neither_shells_nor_what_only_tests_run() {
        let all = packages(&missing(For::Lab, |_| false));
        assert_eq!(
            all,
            [
                "bpftool",
                "curl",
                "iperf3",
                "iproute2",
                "iputils-ping",
                "jq",
                "nftables",
                "procps",
                "socat",
                "tcpdump"
            ]
        );
    }

    #[test]
    fn no_tool_stands_twice_in_the_table() {
        let mut commands: Vec<_> = TOOLS.iter().map(|tool| tool.command).collect();
        commands.sort_unstable();
        commands.dedup();
        assert_eq!(commands.len(), TOOLS.len());
    }
}
