//! Commands that can be pasted, wherever the node's namespace is.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

/// How commands reach what was examined.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    /// The node's namespace, when it is not that of the machine.
    pub(super) netns: Option<PathBuf>,
}

impl Commands {
    /// A command in the node's namespace.
    pub(super) fn on_node(&self, command: impl Display) -> String {
        match &self.netns {
            Some(netns) => inside(netns, command),
            None => command.to_string(),
        }
    }
}

/// A command in a namespace.
///
/// `nsenter`, because `ip netns exec` takes names alone, and mounts a `/sys` without bpffs.
pub(super) fn inside(netns: &Path, command: impl Display) -> String {
    format!("nsenter --net={} {command}", netns.display())
}

#[cfg(test)]
mod tests {
    use super::Commands;

    #[test]
    fn a_node_in_a_namespace_is_entered() {
        let machine = Commands::default();
        assert_eq!(machine.on_node("ip rule"), "ip rule");
        let lab = Commands {
            netns: Some("/run/netns/lab-n1".into()),
        };
        assert_eq!(
            lab.on_node("ip rule"),
            "nsenter --net=/run/netns/lab-n1 ip rule"
        );
    }
}
