//! Offloads decide whether super-packets or frames of the MTU cross the underlay.
//!
//! A veth takes super-packets as a network card that segments would. With its segmentation
//! off, the kernel cuts them before the veth, and GRO behind it merges them again, which
//! takes NAPI on the veth, which GRO switches on.

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{run, script::inside};

use super::labs::Way;

/// A feature as `ethtool -K` and as `ethtool -k` call it, and its state in `wire`.
const WIRE: &[(&str, &str, bool)] = &[
    ("gro", "generic-receive-offload", true),
    ("tso", "tcp-segmentation-offload", false),
    ("gso", "generic-segmentation-offload", false),
    ("tx-udp_tnl-segmentation", "tx-udp_tnl-segmentation", false),
    (
        "tx-udp_tnl-csum-segmentation",
        "tx-udp_tnl-csum-segmentation",
        false,
    ),
];

/// The underlay devices of a way in `wire`; as they were before when dropped.
pub(crate) struct Wire {
    before: Vec<(String, Vec<bool>)>,
}

impl Wire {
    /// Cuts super-packets on both nodes.
    pub(crate) fn on(way: &Way) -> Result<Self> {
        let mut wire = Self { before: Vec::new() };
        let wanted: Vec<bool> = WIRE.iter().map(|&(_, _, state)| state).collect();
        for node in [&way.client_node, &way.server_node] {
            let before = read(node)?;
            wire.before.push((node.clone(), before));
            set(node, &wanted)?;
            ensure!(
                read(node)? == wanted,
                "{} of {node} does not take the offloads that `wire` is about",
                Way::UNDERLAY
            );
        }
        Ok(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for (node, before) in &self.before {
            if let Err(error) = set(node, before) {
                // The next measurement checks what crosses the underlay.
                eprintln!("offloads of {node} were not restored: {error:#}");
            }
        }
    }
}

fn set(node: &str, states: &[bool]) -> Result<()> {
    let settings = WIRE.iter().zip(states).map(|((name, _, _), &on)| {
        let state = if on { "on" } else { "off" };
        format!("{name} {state}")
    });
    let settings: Vec<String> = settings.collect();
    let line = format!("ethtool -K {} {}", Way::UNDERLAY, settings.join(" "));
    run::checked(inside(node, line))?;
    Ok(())
}

fn read(node: &str) -> Result<Vec<bool>> {
    let line = format!("ethtool -k {}", Way::UNDERLAY);
    let text = run::checked(inside(node, &line))?;
    WIRE.iter()
        .map(|(_, name, _)| {
            state_of(&text, name).with_context(|| format!("`{line}` does not tell of {name}"))
        })
        .collect()
}

fn state_of(features: &str, name: &str) -> Option<bool> {
    let line = features
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "))?;
    Some(line.starts_with("on"))
}

#[cfg(test)]
mod tests {
    use super::state_of;

    #[test]
    fn features_are_read() {
        let text = "Features for eth1:\nrx-checksumming: on\ntcp-segmentation-offload: on\n\
                    \ttx-tcp-segmentation: on\ngeneric-receive-offload: off\n\
                    tx-vlan-offload: on [fixed]\n";
        assert_eq!(state_of(text, "tcp-segmentation-offload"), Some(true));
        assert_eq!(state_of(text, "generic-receive-offload"), Some(false));
        assert_eq!(state_of(text, "tx-vlan-offload"), Some(true));
        assert_eq!(state_of(text, "large-receive-offload"), None);
    }
}
