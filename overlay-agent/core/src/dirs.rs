//! Where an instance keeps what it keeps.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::model::Name;

/// The folders of all instances on this machine.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Dirs {
    /// Folder for state that must survive a reboot
    #[arg(
        long,
        env = "OVERLAY_STATE_DIR",
        default_value = "/var/lib/overlay",
        global = true,
        hide = true
    )]
    pub state_dir: PathBuf,
    /// Folder for sockets, locks and what must survive the agent, but no reboot
    #[arg(
        long,
        env = "OVERLAY_RUNTIME_DIR",
        default_value = "/run/overlay",
        global = true,
        hide = true
    )]
    pub runtime_dir: PathBuf,
    /// Folder for pinned maps and links, in a BPF file system
    #[arg(
        long,
        env = "OVERLAY_BPF_DIR",
        default_value = "/sys/fs/bpf/overlay",
        global = true,
        hide = true
    )]
    pub bpf_dir: PathBuf,
}

impl Dirs {
    /// The API socket of an instance.
    pub fn socket(&self, instance: &Name) -> PathBuf {
        self.runtime(instance).join("api.sock")
    }

    /// The file that a running daemon has locked.
    pub fn lock(&self, instance: &Name) -> PathBuf {
        self.runtime(instance).join("lock")
    }

    /// The file of an instance's saved state.
    pub fn state(&self, instance: &Name) -> PathBuf {
        self.state_dir.join(instance.as_str()).join("state.json")
    }

    /// The private key that an instance's tunnels are encrypted with.
    pub fn private_key(&self, instance: &Name) -> PathBuf {
        self.state_dir.join(instance.as_str()).join("wireguard.key")
    }

    /// The network and peers that a cluster's store has given an instance.
    pub fn cluster(&self, instance: &Name) -> PathBuf {
        self.state_dir.join(instance.as_str()).join("cluster.toml")
    }

    /// The same in memory, which may be ahead.
    pub fn journal(&self, instance: &Name) -> PathBuf {
        self.runtime(instance).join("journal")
    }

    /// The name of the device that an instance is making.
    pub fn making(&self, instance: &Name) -> PathBuf {
        self.runtime(instance).join("making")
    }

    /// The endpoint that an instance adds, until it says that it has.
    pub fn adding(&self, instance: &Name) -> PathBuf {
        self.runtime(instance).join("adding")
    }

    /// The runtime folder of an instance.
    pub fn runtime(&self, instance: &Name) -> PathBuf {
        self.runtime_dir.join(instance.as_str())
    }

    /// Whether an agent may listen for an instance: there is a socket, or this user may not see.
    pub fn may_listen(&self, instance: &Name) -> bool {
        self.socket(instance).try_exists().unwrap_or(true)
    }

    /// The pins of an instance.
    pub fn pins(&self, instance: &Name) -> PathBuf {
        self.bpf_dir.join(instance.as_str())
    }

    /// Instances that have a runtime folder or a state file: running, or left behind.
    pub fn instances(&self) -> io::Result<Vec<Name>> {
        let mut names = children(&self.runtime_dir)?;
        names.extend(children(&self.state_dir)?);
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// Names of the folders in a folder; none when it is not there.
fn children(dir: &Path) -> io::Result<Vec<Name>> {
    let named = |cause: io::Error| {
        let text = format!(
            "look for instances in {}: {cause}; run it as root",
            dir.display()
        );
        io::Error::new(cause.kind(), text)
    };
    let entries = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(named)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(named)?;
        // What is not named like an instance is none.
        let name = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        found.extend(name.filter(|_| entry.path().is_dir()));
    }
    Ok(found)
}
