//! Watches the configuration file.

use std::{
    ffi::OsString,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

use crate::{
    config::{self, ConfigError},
    model::Model,
};

/// A new content of the file: a model, or why it is none.
pub(super) type Reading = Result<Model, ConfigError>;

/// The file and what was last read of it.
pub(super) struct ConfigFile {
    path: PathBuf,
    last: Option<Fingerprint>,
    events: mpsc::Receiver<()>,
    // Watching ends when it is dropped.
    _watcher: RecommendedWatcher,
}

/// What tells a text from others; the text itself can be large.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(usize, u64);

impl Fingerprint {
    pub(super) fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(text.len(), hasher.finish())
    }
}

/// The file cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("watch configuration {}: {cause}", path.display())]
pub struct WatchError {
    path: PathBuf,
    cause: notify::Error,
}

impl ConfigFile {
    /// Watches from now on; `text` is that of what is in force.
    pub(super) fn watch(path: &Path, text: Fingerprint) -> Result<Self, WatchError> {
        let error = |cause| WatchError {
            path: path.to_owned(),
            cause,
        };
        // One waiting event says all that ten would.
        let (sender, events) = mpsc::channel(1);
        // Editors and configuration management replace files: the folder sees that, the file does not.
        let name = path.file_name().map(OsString::from);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let concerns = event.map_or(true, |event| {
                    let mut paths = event.paths.iter();
                    event.need_rescan()
                        || can_change(event.kind)
                            && paths.any(|path| path.file_name() == name.as_deref())
                });
                if concerns {
                    // Full means that an event waits already; closed, that the agent ends.
                    let _ = sender.try_send(());
                }
            })
            .map_err(error)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(error)?;
        Ok(Self {
            path: path.to_owned(),
            last: Some(text),
            events,
            _watcher: watcher,
        })
    }

    /// Waits until something has happened to the file; nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// The content, if it differs from the last one that was read.
    pub(super) fn read(&mut self) -> Option<Reading> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => {
                let new = Fingerprint::of(&text);
                let is_new = self.last.replace(new) != Some(new);
                is_new.then(|| config::parse(&self.path, &text).map_err(ConfigError::from))
            }
            // Told once; whatever comes next differs from nothing.
            Err(cause) => self.last.take().map(|_| {
                Err(ConfigError::Unreadable {
                    path: self.path.clone(),
                    cause,
                })
            }),
        }
    }
}

/// Whether an event can have changed a file. That somebody reads it, as we do, is one, too.
fn can_change(kind: EventKind) -> bool {
    !kind.is_access() || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{ConfigFile, Fingerprint};

    #[tokio::test]
    async fn a_change_is_told_and_its_own_reading_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, "one").unwrap();
        let mut file = ConfigFile::watch(&path, Fingerprint::of("one")).unwrap();
        let replacement = folder.path().join("new");
        fs::write(&replacement, "two").unwrap();
        fs::rename(&replacement, &path).unwrap();
        file.changed().await;
        assert!(file.read().is_some());
        // An event that is on its way still would come at once.
        let _settled = tokio::time::timeout(Duration::from_millis(100), file.changed()).await;
        assert!(file.read().is_none());
        let again = tokio::time::timeout(Duration::from_millis(200), file.changed()).await;
        assert!(again.is_err(), "reading the file counts as a change");
    }
}
