//! podman, with either of its network stacks.

use anyhow::Result;
use overlay_tests::packages::Release;
use serde_json::json;

use super::room::Room;

/// Which program makes networks for it.
#[derive(Clone, Copy)]
pub(super) enum Backend {
    /// CNI's plugins, until podman 4
    Cni,
    /// netavark, and its plugins
    Netavark,
}

impl Backend {
    pub(super) fn of(release: Release) -> Self {
        match release {
            Release::Bookworm => Self::Cni,
            Release::Forky => Self::Netavark,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Netavark => "netavark",
        }
    }
}

pub(super) struct Podman<'a> {
    pub(super) room: &'a Room,
}

impl<'a> Podman<'a> {
    /// Configures it as machines take it whose limits cannot be raised.
    pub(super) fn configured(room: &'a Room, backend: Backend) -> Result<Self> {
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [network]\nnetwork_backend = \"{}\"\nnetavark_plugin_dirs = [\"/usr/libexec/netavark\"]\n\
             [engine]\nruntime = \"runc\"\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\n",
            backend.name()
        );
        room.write("etc/containers/containers.conf", config)?;
        let accept = json!({ "default": [{ "type": "insecureAcceptAnything" }] });
        room.write("etc/containers/policy.json", accept.to_string())?;
        // overlayfs does not lie on overlayfs.
        let storage = "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\n\
                       graphroot = \"/var/lib/containers/storage\"\n";
        room.write("etc/containers/storage.conf", storage)?;
        Ok(Self { room })
    }

    pub(super) fn tell(&self, words: &str) -> Result<String> {
        self.room.tell(
            &std::iter::once("podman")
                .chain(words.split(' '))
                .collect::<Vec<_>>(),
        )
    }

    /// Runs a script in a container of busybox, in the network `pods`.
    pub(super) fn run(&self, options: &str, script: &str) -> Result<String> {
        let (mark, cgroup) = (self.room.mark(), self.room.cgroup());
        let mut words = vec!["podman", "run"];
        words.extend(options.split(' '));
        words.extend(["--env", &mark, "--cgroup-parent", &cgroup]);
        words.extend(["--rootfs", "/rootfs", "/bin/sh", "-c", script]);
        self.room.tell(&words)
    }
}
