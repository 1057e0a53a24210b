//! Watches the configuration file and the folder of fragments beside it.
//!
//! Files are told of by inotify, where the kernel has room for one more watcher. It tells nothing
//! of what a symbolic link leads to, which is how a `ConfigMap`, a package manager or an administrator
//! may exchange a file: so its identity is looked at twice a second, too.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::errno::Errno;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use overlay_core::{
    config::{ConfigError, Files, Loaded, PEERS_FOLDER, folder_of},
    trouble::{Trouble, ids},
};
use overlay_kernel::watch_limit;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::warn;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The files, and what was last read of them.
pub(super) struct ConfigFile {
    files: Files,
    path: PathBuf,
    events: mpsc::Receiver<()>,
    /// Without one, what it would tell is looked for.
    watcher: Option<RecommendedWatcher>,
    /// Which folder of fragments is watched: another one of the same name may take its place.
    watched: Option<(u64, u64)>,
    /// The watched paths, their state at the last look, and when the next one is due.
    looked_at: Vec<PathBuf>,
    seen: Vec<Identity>,
    next: Instant,
}

/// What is another for a file whose content is, wherever links lead: device, inode, size, and
/// the times of content and inode; `None` where there is none.
type Identity = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn identity(path: &Path) -> Identity {
    let there = fs::metadata(path).ok()?;
    let changed = (there.mtime(), there.mtime_nsec());
    let touched = (there.ctime(), there.ctime_nsec());
    Some((there.dev(), there.ino(), there.size(), changed, touched))
}

impl ConfigFile {
    /// Watches from now on; `files` have been read.
    pub(super) fn watch(path: &Path, files: Files) -> Self {
        // One waiting event says all that ten would.
        let (sender, events) = mpsc::channel(1);
        let fragments = files.peers_folder();
        let watcher = watcher(path, sender);
        let watcher = watcher.map_err(|error| {
            warn!("watch configuration {}: {}", path.display(), why(&error));
        });
        let mut new = Self {
            files,
            path: path.to_owned(),
            events,
            watcher: watcher.ok(),
            watched: None,
            looked_at: Vec::new(),
            seen: Vec::new(),
            next: Instant::now(),
        };
        new.follow(&fragments);
        new
    }

    /// Watches the folder of fragments that is there now.
    fn follow(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let there = fs::metadata(folder).ok();
        let there = there.map(|there| (there.dev(), there.ino()));
        if there == self.watched {
            return;
        }
        if self.watched.take().is_some()
            && let Err(error) = watcher.unwatch(folder)
        {
            // It has gone, and the watch with it.
            tracing::debug!("{error}");
        }
        if there.is_none() {
            return;
        }
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched = there,
            Err(error) => warn!("watch {}: {}", folder.display(), why(&error)),
        }
    }

    /// Waits until something has happened to a file; nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.events.recv() => return,
                () = sleep_until(self.next) => {
                    self.next = Instant::now() + LOOK;
                    if self.looked_at.is_empty() {
                        // What has changed since it was read, nobody has told of.
                        self.looked_at = self.to_look_at();
                    }
                    let there = self.look();
                    if self.seen != there {
                        self.seen = there;
                        return;
                    }
                }
            }
        }
    }

    /// The present state of all watched paths.
    fn look(&self) -> Vec<Identity> {
        self.looked_at.iter().map(|path| identity(path)).collect()
    }

    /// The file, the folder of fragments, and the fragments that nobody tells of: the links among
    /// them, or all where the folder is not watched.
    fn to_look_at(&self) -> Vec<PathBuf> {
        let folder = self.files.peers_folder();
        let fragments = fs::read_dir(&folder).into_iter().flatten().flatten();
        let untold = fragments.filter(|entry| {
            self.watched.is_none() || entry.file_type().is_ok_and(|kind| kind.is_symlink())
        });
        let mut all = vec![self.path.clone(), folder];
        all.extend(untold.map(|entry| entry.path()));
        all[2..].sort();
        all
    }

    /// The files, for what the cluster's helper tells.
    pub(super) fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// The fragment of the cluster that is in force.
    pub(super) fn cluster_text(&self) -> Option<String> {
        self.files.cluster_text()
    }

    /// The configuration of the files, if they differ from what was last read.
    pub(super) fn read(&mut self) -> Option<Loaded> {
        // Before the files: what changes in between is told.
        self.follow(&self.files.peers_folder());
        self.looked_at = self.to_look_at();
        // Else what is read now would be a change once more at the next look.
        self.seen = self.look();
        self.files.reload()
    }
}

/// Tells of what happens to the file and the fragments.
fn watcher(path: &Path, sender: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    // Editors and configuration management replace files: the folder sees that, the file does not.
    let name = path.file_name().map(OsString::from);
    let concerns = move |path: &PathBuf| {
        path.file_name() == name.as_deref()
            || path.file_name() == Some(PEERS_FOLDER.as_ref())
            || path
                .parent()
                .is_some_and(|folder| folder.ends_with(PEERS_FOLDER))
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns = event.map_or(true, |event| {
            event.need_rescan() || can_change(event.kind) && event.paths.iter().any(&concerns)
        });
        if concerns {
            // Full means that an event waits already; closed, that the agent ends.
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(folder_of(path), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Why something cannot be watched, and what becomes of it.
fn why(error: &notify::Error) -> String {
    let errno = match &error.kind {
        notify::ErrorKind::Io(cause) => cause.raw_os_error().map(Errno::from_raw),
        notify::ErrorKind::MaxFilesWatch => Some(Errno::ENOSPC),
        _ => None,
    };
    let cause = errno.map_or_else(
        || error.to_string(),
        |errno| watch_limit(errno).unwrap_or_else(|| errno.desc().to_owned()),
    );
    format!("{cause}; it is looked at twice a second instead")
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
    use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

    use overlay_core::config::Files;

    use super::{ConfigFile, why};

    const ONE: &str = "[node]\nname = \"one\"\nunderlay = \"eth1\"\n";

    fn watched(folder: &Path) -> ConfigFile {
        let path = folder.join("node.toml");
        fs::write(&path, ONE).unwrap();
        let mut files = Files::new(&path);
        files.load().unwrap();
        let mut file = ConfigFile::watch(&path, files);
        assert!(
            file.watcher.is_some(),
            "the kernel has no room for a watcher"
        );
        file.looked_at = file.to_look_at();
        file.seen = file.look();
        file
    }

    #[test]
    fn why_nothing_can_be_watched_is_told_in_words() {
        use notify::{Error, ErrorKind};
        let io = |errno: i32| Error::io(std::io::Error::from_raw_os_error(errno));
        for (error, says) in [
            (io(24), "fs.inotify.max_user_instances"),
            (io(28), "fs.inotify.max_user_watches"),
            (
                Error::new(ErrorKind::MaxFilesWatch),
                "fs.inotify.max_user_watches",
            ),
            (io(13), "Permission denied; it is looked at"),
        ] {
            let text = why(&error);
            assert!(text.contains(says) && !text.contains("os error"), "{text}");
        }
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

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        for (version, name) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(inside(version)).unwrap();
            let text = ONE.replace("one", name);
            fs::write(inside(version).join("node.toml"), text).unwrap();
        }
        // As Kubernetes mounts a ConfigMap, and exchanges it.
        symlink("..v1", inside("..data")).unwrap();
        symlink("..data/node.toml", inside("node.toml")).unwrap();
        let path = inside("node.toml");
        let mut files = Files::new(&path);
        files.load().unwrap();
        let mut file = ConfigFile::watch(&path, files);
        // The first look knows nothing yet.
        file.changed().await;
        assert!(file.read().is_none());
        symlink("..v2", inside("..data_tmp")).unwrap();
        fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
        file.changed().await;
        assert!(file.read().is_some(), "another content");
        // What it leads to is written in place.
        fs::write(inside("..v2").join("node.toml"), ONE).unwrap();
        while file.read().is_none() {
            file.changed().await;
        }
    }

    #[tokio::test]
    async fn a_fragment_may_be_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let peers = folder.path().join("peers.d");
        fs::create_dir(&peers).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "[[peers]]\n").unwrap();
        let mut file = watched(folder.path());
        symlink(&elsewhere, peers.join("a.toml")).unwrap();
        while file
            .read()
            .is_none_or(|loaded| loaded.refused_fragments.len() != 1)
        {
            file.changed().await;
        }
        fs::write(&elsewhere, "# nothing").unwrap();
        while file.read().is_none_or(|loaded| loaded.fragments != 1) {
            file.changed().await;
        }
    }

    #[tokio::test]
    async fn without_a_watcher_files_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = watched(folder.path());
        file.watcher = None;
        fs::write(folder.path().join("node.toml"), ONE.replace("one", "two")).unwrap();
        while file.read().is_none() {
            file.changed().await;
        }
        let peers = folder.path().join("peers.d");
        fs::create_dir(&peers).unwrap();
        fs::write(peers.join("a.toml"), "# one").unwrap();
        loop {
            file.changed().await;
            if file.read().is_some_and(|loaded| loaded.fragments == 1) {
                break;
            }
        }
    }
}
