//! A thread that brings the state to the disk, behind what is done with it.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{info, warn};

use super::copies::{Durable, Version, replace};

/// What could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes the latest version that it was given; those that a newer one overtakes are left out.
#[derive(Debug)]
pub(super) struct Behind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    waiting: Option<Version>,
    ending: bool,
    /// Why the last version is not on the disk.
    failure: Option<String>,
}

impl Behind {
    /// Starts the thread.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || its.write(&path))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Has a version written soon.
    pub(super) fn write(&self, version: Version) {
        self.shared.lock().waiting = Some(version);
        self.shared.changed.notify_one();
    }

    /// Why the disk does not have the last version.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }

    /// Writes what is waiting, once, and ends the thread.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.end();
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }

    /// Ends the thread without writing what is waiting.
    pub(super) fn abandon(self) {
        self.shared.lock().waiting = None;
    }

    fn end(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            warn!("the thread that writes the state file has panicked");
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // Every holder leaves the work whole, so a panic elsewhere does not matter.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, path: &std::path::Path) {
        let mut work = self.lock();
        loop {
            let Some(version) = work.waiting.take() else {
                if work.ending {
                    return;
                }
                work = self
                    .changed
                    .wait(work)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(work);
            let written = replace(path, &version, Durable::Yes);
            work = self.lock();
            match written {
                Ok(()) if work.failure.take().is_some() => info!("the state is on the disk again"),
                Ok(()) => {}
                Err(error) => {
                    if work.failure.is_none() {
                        warn!("{error}");
                    }
                    work.failure = Some(error.to_string());
                    if work.ending {
                        return;
                    }
                    // A newer one may have come meanwhile.
                    work.waiting.get_or_insert(version);
                    let waited = self.changed.wait_timeout(work, RETRY);
                    work = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}
