//! Learning that a pin was removed.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::pins::Pins;
use crate::{KernelError, Result, watch_limit};

/// What is listened to: what we do ourselves, making pins, is no news. What is moved to a pin's
/// place removes it.
fn removals() -> AddWatchFlags {
    AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// Removals of an instance's pins.
pub struct PinWatch {
    folder: PathBuf,
    inotify: AsyncFd<Source>,
}

/// An inotify descriptor as tokio takes it.
struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Why nothing can be watched.
fn refused(operation: impl Into<String>, error: &io::Error) -> KernelError {
    let limit = error.raw_os_error().map(Errno::from_raw);
    match limit.and_then(watch_limit) {
        Some(limit) => KernelError::new(operation, limit),
        None => KernelError::io(operation, error),
    }
}

impl PinWatch {
    /// Watches the pins of the instance's folder that are there now. Needs a tokio runtime.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = || -> io::Result<AsyncFd<Source>> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let source = Source(inotify);
            // SAFETY: `Source` owns its descriptor and always tells the same one, and
            // nothing closes it before the `AsyncFd` that it moves into is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }?)
        };
        let inotify = open().map_err(|error| refused("watch pins", &error))?;
        let watch = Self {
            folder: Pins::new(dir).folder().to_owned(),
            inotify,
        };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches folders that were made since; those that are watched already stay so.
    pub fn renew(&self) -> Result<()> {
        self.cover(&self.folder)
            .map_err(|error| refused(format!("watch {}", self.folder.display()), &error))
    }

    fn cover(&self, folder: &Path) -> io::Result<()> {
        match self.inotify.get_ref().0.add_watch(folder, removals()) {
            Ok(_) => {}
            // Nothing is pinned yet, or any more.
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.cover(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Waits for the next removal. Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Result<()> {
        let failed = |error| KernelError::io("watch pins", &error);
        loop {
            let mut ready = self.inotify.readable().await.map_err(failed)?;
            match ready.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) => {}
            }
        }
    }
}
