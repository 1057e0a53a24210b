//! Watches the configuration file and the folder of fragments beside it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    config::{ConfigError, Faults, Files, Loaded, PEERS_FOLDER, folder_of},
    trouble::{Trouble, ids},
};

/// The files, and what was last read of them.
pub(super) struct ConfigFile {
    files: Files,
    events: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
    /// Which folder of fragments is watched: another one of the same name may take its place.
    watched: Option<(u64, u64)>,
}

/// The file cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("watch configuration {}: {cause}", path.display())]
pub struct WatchError {
    path: PathBuf,
    cause: notify::Error,
}

impl ConfigFile {
    /// Watches from now on; `files` have been read.
    pub(super) fn watch(path: &Path, files: Files) -> Result<Self, WatchError> {
        let error = |cause| WatchError {
            path: path.to_owned(),
            cause,
        };
        // One waiting event says all that ten would.
        let (sender, events) = mpsc::channel(1);
        // Editors and configuration management replace files: the folder sees that, the file does not.
        let name = path.file_name().map(OsString::from);
        let fragments = files.peers_folder();
        let concerns = move |path: &PathBuf| {
            path.file_name() == name.as_deref()
                || path.file_name() == Some(PEERS_FOLDER.as_ref())
                || path
                    .parent()
                    .is_some_and(|folder| folder.ends_with(PEERS_FOLDER))
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = event.map_or(true, |event| {
                event.need_rescan() || can_change(event.kind) && event.paths.iter().any(&concerns)
            });
            if concerns {
                // Full means that an event waits already; closed, that the agent ends.
                let _ = sender.try_send(());
            }
        });
        let mut watcher = watcher.map_err(error)?;
        watcher
            .watch(folder_of(path), RecursiveMode::NonRecursive)
            .map_err(error)?;
        let mut new = Self {
            files,
            events,
            watcher,
            watched: None,
        };
        new.follow(&fragments);
        Ok(new)
    }

    /// Watches the folder of fragments that is there now.
    fn follow(&mut self, folder: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        let there = std::fs::metadata(folder).ok();
        let there = there.map(|there| (there.dev(), there.ino()));
        if there == self.watched {
            return;
        }
        if self.watched.take().is_some()
            && let Err(error) = self.watcher.unwatch(folder)
        {
            // It has gone, and the watch with it.
            tracing::debug!("{error}");
        }
        if there.is_none() {
            return;
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched = there,
            Err(error) => warn!(
                "watch {}: {error}; changes there count from the next SIGHUP on",
                folder.display()
            ),
        }
    }

    /// Waits until something has happened to a file; nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// What is wrong with a fragment of the cluster that is not written yet.
    pub(super) fn cluster_faults(&self, text: &str) -> Option<Faults> {
        self.files.cluster_faults(text)
    }

    /// The fragment of the cluster that is in force.
    pub(super) fn cluster_text(&self) -> Option<&String> {
        self.files.cluster_text()
    }

    /// What the files ask for, if they differ from what was last read.
    pub(super) fn read(&mut self) -> Option<Loaded> {
        // Before the files: what changes in between is told.
        self.follow(&self.files.peers_folder());
        self.files.reload()
    }
}

/// Whether an event can have changed a file. That somebody reads it, as we do, is one, too.
fn can_change(kind: EventKind) -> bool {
    !kind.is_access() || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// Files of peers that are not in force, or only as they were before.
pub(super) fn refused_fragments(refused: &[ConfigError]) -> Vec<Trouble> {
    let told = refused.iter().map(|refused| {
        Trouble::new(
            ids::PEERS_REFUSED,
            refused.file().display(),
            format!("a file of peers is refused, what was good of it before stays in force: {refused}"),
            "correct that file, or remove it; \"overlay-agent check --config FILE\" tells all that is wrong",
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::ConfigFile;
    use crate::config::Files;

    const ONE: &str = "[node]\nname = \"one\"\nunderlay = \"eth1\"\n";

    fn watched(folder: &Path) -> ConfigFile {
        let path = folder.join("node.toml");
        fs::write(&path, ONE).unwrap();
        let mut files = Files::new(&path);
        files.load().unwrap();
        ConfigFile::watch(&path, files).unwrap()
    }

    #[tokio::test]
    async fn a_change_is_told_and_its_own_reading_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = watched(folder.path());
        let replacement = folder.path().join("new");
        fs::write(&replacement, ONE.replace("one", "two")).unwrap();
        fs::rename(&replacement, folder.path().join("node.toml")).unwrap();
        file.changed().await;
        assert!(file.read().is_some());
        // An event that is on its way still would come at once.
        let _settled = tokio::time::timeout(Duration::from_millis(100), file.changed()).await;
        assert!(file.read().is_none());
        let again = tokio::time::timeout(Duration::from_millis(200), file.changed()).await;
        assert!(again.is_err(), "reading the file counts as a change");
    }

    #[tokio::test]
    async fn fragments_are_followed_in_a_folder_that_comes_later_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = watched(folder.path());
        let peers = folder.path().join("peers.d");
        for text in ["# one", "# two"] {
            fs::create_dir(&peers).unwrap();
            file.changed().await;
            // Nothing is in it yet, or the fragment already.
            let early = file.read().is_some();
            fs::write(peers.join("a.toml"), text).unwrap();
            if !early {
                loop {
                    file.changed().await;
                    // It is empty before it is written.
                    if file.read().is_some_and(|loaded| loaded.fragments == 1) {
                        break;
                    }
                }
            }
            fs::remove_dir_all(&peers).unwrap();
            loop {
                file.changed().await;
                if file.read().is_some_and(|loaded| loaded.fragments == 0) {
                    break;
                }
            }
        }
    }
}
