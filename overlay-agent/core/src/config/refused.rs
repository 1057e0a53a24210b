//! Why a configuration is not in force.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Faults;
use crate::trouble::without_numbers;

/// A configuration that was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("read configuration {}: {}; {}", path.display(), in_words(cause), cure_of_reading(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A file or the folder of peers could not be read.
    #[error("read peers {}: {cause}; let the agent read it, or remove it", path.display())]
    UnreadablePeers {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The file was read and is wrong; nothing of it is used.
    #[error(transparent)]
    Invalid(#[from] Faults),
}

/// The cure for a file that cannot be read.
fn cure_of_reading(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "run it as root, or let this user read the file",
        io::ErrorKind::InvalidData => "save the file as UTF-8",
        _ => "give the path of an existing file with --config",
    }
}

fn in_words(cause: &io::Error) -> String {
    without_numbers(&cause.to_string())
}

impl ConfigError {
    /// What is told of a file that was in force before: it was found once, so its path is right.
    pub fn while_running(&self) -> String {
        match self {
            Self::Unreadable { path, cause } if cause.kind() != io::ErrorKind::InvalidData => {
                format!(
                    "read configuration {}: {}; put it back where the agent may read it",
                    path.display(),
                    in_words(cause)
                )
            }
            other => other.to_string(),
        }
    }

    /// The file that was refused.
    pub fn file(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. } | Self::UnreadablePeers { path, .. } => path,
            Self::Invalid(faults) => &faults.path,
        }
    }
}
