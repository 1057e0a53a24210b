//! Commands that can be pasted, wherever the node's namespace is.

use std::{fmt::Display, path::PathBuf};

use ipnet::IpNet;
use overlay_core::{model::Name, trouble::inside};

/// How commands reach what was examined.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    /// The node's namespace, when it is not that of the machine.
    pub(super) netns: Option<PathBuf>,
    /// The instance that was examined.
    pub(super) instance: Option<Name>,
}

impl Commands {
    /// A command of the agent's own, for this instance.
    pub(super) fn agent(&self, command: impl Display) -> String {
        match &self.instance {
            Some(instance) => format!("overlay-agent {command} --instance {instance}"),
            None => format!("overlay-agent {command}"),
        }
    }

    /// A command in the node's namespace.
    pub(super) fn on_node(&self, command: impl Display) -> String {
        match &self.netns {
            Some(netns) => inside(netns, command),
            None => command.to_string(),
        }
    }
}

/// Takes an address from a device.
pub(super) fn remove_address(net: IpNet, device: impl Display) -> String {
    format!("ip address del {net} dev {device}")
}

/// Removes a route of the main table; `ip` knows the family by the prefix.
pub(super) fn remove_route(destination: IpNet) -> String {
    format!("ip route del {destination}")
}

/// Sets a kernel setting by its path below `/proc/sys`.
pub(super) fn set(key: &str, value: impl Display) -> String {
    format!("sysctl -w {}={value}", setting(key))
}

/// What `sysctl` calls a setting: with dots for slashes, a device's own dots are slashes.
pub(super) fn setting(key: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    key.chars().map(swap).collect()
}

/// What shows the tunnel's packets on a device, in quotes.
pub(super) fn tcpdump(device: impl Display, port: u16) -> String {
    format!("\"tcpdump -ni {device} udp port {port}\"")
}

#[cfg(test)]
mod tests {
    use super::{Commands, set};

    #[test]
    fn a_node_in_a_namespace_is_entered() {
        let machine = Commands::default();
        assert_eq!(machine.on_node("ip rule"), "ip rule");
        let lab = Commands {
            netns: Some("/run/netns/lab-n1".into()),
            instance: Some("lab-n1".parse().unwrap()),
        };
        assert_eq!(
            lab.agent("fastpath on"),
            "overlay-agent fastpath on --instance lab-n1"
        );
        assert_eq!(
            lab.on_node("ip rule"),
            "nsenter --net=/run/netns/lab-n1 ip rule"
        );
    }

    #[test]
    fn dots_of_a_device_s_name_are_slashes() {
        assert_eq!(
            set("net/ipv4/conf/eth0.5/rp_filter", 2),
            "sysctl -w net.ipv4.conf.eth0/5.rp_filter=2"
        );
    }
}
