//! One process per instance.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use tracing::debug;

use crate::{dirs::Dirs, model::Name};

/// Why an instance cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "take instance {0}: it is running already; stop that agent first, or choose another name with --instance"
    )]
    Running(Name),
    /// The folder for socket and lock cannot be made.
    #[error("make {}: {cause}; check the folder's permissions", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Keeps other processes away from an instance; gives its runtime folder up when dropped.
#[derive(Debug)]
pub struct InstanceLock {
    folder: PathBuf,
    _file: Flock<File>,
}

impl InstanceLock {
    /// Takes the instance, or says that another process has it.
    pub fn take(dirs: &Dirs, instance: &Name) -> Result<Self, LockError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |cause| LockError::Io { path, cause }
        };
        let folder = dirs.runtime(instance);
        let path = dirs.lock(instance);
        loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(io(&folder))?;
            let file = File::create(&path).map_err(io(&path))?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|_| LockError::Running(instance.clone()))?;
            // Its last owner may have removed the file between our opening and locking it.
            let mine = file.metadata().map_err(io(&path))?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == mine) {
                return Ok(Self {
                    folder,
                    _file: file,
                });
            }
        }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            debug!("remove {}: {error}", self.folder.display());
        }
    }
}
