//! The programs that the lab, the tests and the benchmark run.

use std::path::Path;

use anyhow::Result;

use super::{Unmet, apt::Apt};
use crate::{console::Console, toolchain::on_path};

/// A program, the Debian package that has it, and what it is for.
struct Tool {
    command: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        command: "ip",
        package: "iproute2",
        purpose: "namespaces, devices, routes",
    },
    Tool {
        command: "bridge",
        package: "iproute2",
        purpose: "forwarding entries",
    },
    Tool {
        command: "tc",
        package: "iproute2",
        purpose: "filters and qdiscs",
    },
    Tool {
        command: "ping",
        package: "iputils-ping",
        purpose: "reachability",
    },
    Tool {
        command: "tcpdump",
        package: "tcpdump",
        purpose: "captures on the wire",
    },
    Tool {
        command: "tshark",
        package: "tshark",
        purpose: "an independent decoder",
    },
    Tool {
        command: "bpftool",
        package: "bpftool",
        purpose: "programs and maps in the kernel",
    },
    Tool {
        command: "nft",
        package: "nftables",
        purpose: "faults and firewalls",
    },
    Tool {
        command: "pgrep",
        package: "procps",
        purpose: "processes in containers",
    },
    Tool {
        command: "ethtool",
        package: "ethtool",
        purpose: "offloads",
    },
    Tool {
        command: "socat",
        package: "socat",
        purpose: "streams and the tunnel of step 4",
    },
    Tool {
        command: "jq",
        package: "jq",
        purpose: "the examples of the help texts",
    },
    Tool {
        command: "curl",
        package: "curl",
        purpose: "requests between containers",
    },
    Tool {
        command: "tmux",
        package: "tmux",
        purpose: "a terminal that tests can read",
    },
    Tool {
        command: "zsh",
        package: "zsh",
        purpose: "completion, which tests type",
    },
    Tool {
        command: "fish",
        package: "fish",
        purpose: "completion, which tests type",
    },
    Tool {
        command: "iperf3",
        package: "iperf3",
        purpose: "throughput",
    },
    Tool {
        command: "wg",
        package: "wireguard-tools",
        purpose: "an underlay of WireGuard",
    },
    Tool {
        command: "sockperf",
        package: "sockperf",
        purpose: "latency",
    },
];

/// Where Debian keeps programs for root, which is not in every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Finds every tool, and installs the missing ones in one go.
///
/// # Errors
/// [`Unmet`] when that takes root, or another package manager than apt.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) -> Result<()> {
    if let Some(apt) = apt {
        apt.install("tools", &packages(&missing(is_there)))?;
    }
    let missing = missing(is_there);
    if missing.is_empty() {
        let commands: Vec<&str> = TOOLS.iter().map(|tool| tool.command).collect();
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

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| !is_there(tool.command))
        .collect()
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
        let missing = missing(|command| !["tc", "ip", "tshark"].contains(&command));
        assert_eq!(packages(&missing), ["iproute2", "tshark"]);
    }

    #[test]
    fn no_tool_stands_twice_in_the_table() {
        let mut commands: Vec<_> = TOOLS.iter().map(|tool| tool.command).collect();
        commands.sort_unstable();
        commands.dedup();
        assert_eq!(commands.len(), TOOLS.len());
    }
}
