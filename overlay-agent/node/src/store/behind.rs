//! A thread that brings the state to the disk, behind what is done with it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use overlay_core::state::Content;
use tracing::{info, warn};

use super::{
    StoreError,
    copies::{self, Durable, Version},
};

/// A failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// After a write it rests: each of many changes in a row would have it write all there is.
const REST: Duration = Duration::from_millis(100);

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
    waiting: Option<Waiting>,
    ending: bool,
    /// Why the last version is not on the disk.
    failure: Option<String>,
}

/// The content to be written, and since when it has been valid.
type Waiting = (Arc<Content>, SystemTime);

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
    pub(super) fn write(&self, content: Arc<Content>, since: SystemTime) {
        self.shared.lock().waiting = Some((content, since));
        self.shared.changed.notify_one();
    }

    /// Leaves out a version that has not been begun: a newer one follows at once, and whoever makes
    /// it need not copy the one that nobody else has.
    pub(super) fn expect_newer(&self) {
        self.shared.lock().waiting = None;
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

    fn write(&self, path: &Path) {
        let mut work = self.lock();
        loop {
            let Some(waiting) = work.waiting.take() else {
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
            let written = write(path, &waiting);
            work = self.lock();
            match written {
                Ok(()) => {
                    if work.failure.take().is_some() {
                        info!("the state is on the disk again");
                    }
                    let rests = |work: &mut Work| !work.ending;
                    let rested = self.changed.wait_timeout_while(work, REST, rests);
                    work = rested.unwrap_or_else(PoisonError::into_inner).0;
                }
                Err(error) => {
                    if work.failure.is_none() {
                        warn!("{error}");
                    }
                    work.failure = Some(error.to_string());
                    if work.ending {
                        return;
                    }
                    // A newer one may have come meanwhile.
                    work.waiting.get_or_insert(waiting);
                    let waited = self.changed.wait_timeout(work, RETRY);
                    work = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

fn write(path: &Path, (content, since): &Waiting) -> Result<(), StoreError> {
    let text = copies::text(path, &**content)?;
    let since = *since;
    copies::replace(
        path,
        &Version { text, since },
        Durable::Yes,
        &copies::is_state,
    )
}
