//! Where an instance keeps what it keeps.

use std::path::{Path, PathBuf};

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
    /// Folder for sockets and locks
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

    /// The runtime folder of an instance.
    pub fn runtime(&self, instance: &Name) -> PathBuf {
        self.runtime_dir.join(instance.as_str())
    }

    /// The pins of an instance.
    pub fn pins(&self, instance: &Name) -> PathBuf {
        self.bpf_dir.join(instance.as_str())
    }

    /// Instances that have a runtime folder or a state file: running, or left behind.
    pub fn instances(&self) -> Vec<Name> {
        let mut names: Vec<Name> = [&self.runtime_dir, &self.state_dir]
            .into_iter()
            .flat_map(|dir| children(dir))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Names of the folders in a folder; none when it is not there.
fn children(dir: &Path) -> Vec<Name> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
