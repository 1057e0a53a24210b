//! One process per instance.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{
            DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
            PermissionsExt as _,
        },
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};
use overlay_core::{dirs::Dirs, model::Name};
use tracing::{debug, warn};

/// The cure for a folder of another user.
fn instead(owner: u32, user: u32) -> &'static str {
    match (owner, user) {
        (_, 0) => "move it away, or run this as that user",
        (0, _) => "run it as root",
        _ => "run it as that user",
    }
}

/// Why an instance cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "instance {0} is already running; stop that agent first, or choose another name with --instance"
    )]
    Running(Name),
    /// The folder for socket and lock is somebody else's.
    #[error("use {}: it belongs to user {owner}, and this program runs as user {user}; {}", path.display(), instead(*owner, *user))]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Our user.
        user: u32,
    },
    /// An object with the name of an agent's file is none.
    #[error(
        "use {}: {what}, which no agent has made; move it away, or choose another name with --instance",
        path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its kind.
        what: &'static str,
    },
    /// The folder for socket and lock cannot be made.
    #[error("make {}: {cause}; {}", path.display(), cure_of(cause))]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
}

fn cure_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "run it as root",
        _ => "check that folder",
    }
}

/// Keeps other processes away from an instance; gives its runtime folder up when dropped.
#[derive(Debug)]
pub struct InstanceLock {
    folder: PathBuf,
    path: PathBuf,
    /// Of the daemon, or of one that was killed.
    socket: PathBuf,
    file: Flock<File>,
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
            make_private(&folder)?;
            must_be_a_lock(&path)?;
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(false);
            // Not through a link that has come there since.
            let options = options.custom_flags(OFlag::O_NOFOLLOW.bits());
            let file = options.open(&path).map_err(io(&path))?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|_| LockError::Running(instance.clone()))?;
            // Its last owner may have removed the file between our opening and locking it.
            let mine = file.metadata().map_err(io(&path))?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == mine) {
                let socket = dirs.socket(instance);
                must_be_left_behind(&socket)?;
                return Ok(Self {
                    folder,
                    path,
                    socket,
                    file,
                });
            }
        }
    }
}

/// A folder that was there already must be ours, and nobody else's to look into.
fn make_private(folder: &Path) -> Result<(), LockError> {
    let io = |cause| LockError::Io {
        path: folder.to_owned(),
        cause,
    };
    let found = fs::symlink_metadata(folder).map_err(io)?;
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if !found.is_dir() {
        return Err(LockError::NotOurs {
            path: folder.to_owned(),
            what: "it is not a folder",
        });
    }
    if owner != user {
        return Err(LockError::Foreign {
            path: folder.to_owned(),
            owner,
            user,
        });
    }
    if found.mode() & 0o077 != 0 {
        // By what was opened, which is the folder itself.
        let mut options = File::options();
        let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
        let opened = options.read(true).custom_flags(flags.bits()).open(folder);
        opened
            .and_then(|opened| opened.set_permissions(Permissions::from_mode(0o700)))
            .map_err(io)?;
    }
    Ok(())
}

/// What is at a lock's place must be one, before it is opened: an empty file.
fn must_be_a_lock(path: &Path) -> Result<(), LockError> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => Err(LockError::NotOurs {
            path: path.to_owned(),
            what: "it is not a file",
        }),
        Ok(there) if there.len() != 0 => Err(LockError::NotOurs {
            path: path.to_owned(),
            what: "it is a file with content",
        }),
        // What cannot be looked at cannot be opened either.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What is at the place of the API socket must be one that nobody listens at any more: the
/// caller has the lock, so an agent would be this one.
fn must_be_left_behind(socket: &Path) -> Result<(), LockError> {
    let not_ours = |what| {
        Err(LockError::NotOurs {
            path: socket.to_owned(),
            what,
        })
    };
    match fs::symlink_metadata(socket) {
        Ok(there) if !there.file_type().is_socket() => not_ours("it is not a socket"),
        Ok(_) => match UnixStream::connect(socket) {
            Ok(_) => not_ours("it is a socket at which another program listens"),
            // Ours takes streams.
            Err(error) if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
                not_ours("it is a socket of another kind")
            }
            Err(_) => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

/// Removes what an agent has left, if that is still what is there.
fn remove(path: &Path, is_ours: impl Fn(&fs::Metadata) -> bool) {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if is_ours(&there) => fs::remove_file(path),
        Ok(_) => {
            warn!("{} is not this agent's: left alone", path.display());
            return;
        }
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        debug!("remove {}: {error}", path.display());
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        let left = must_be_left_behind(&self.socket).is_ok();
        remove(&self.socket, |there| left && there.file_type().is_socket());
        let locked = self.file.metadata().map(|locked| locked.ino()).ok();
        remove(&self.path, |there| {
            Some(there.ino()) == locked && there.len() == 0
        });
        // It stays with what an agent that was killed still had to bring to the disk.
        if let Err(error) = fs::remove_dir(&self.folder) {
            debug!("remove {}: {error}", self.folder.display());
        }
    }
}
