//! Keeps the [state](overlay_core::state) that must survive a restart, on the disk and in a journal.

mod behind;
mod copies;
mod journal;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use overlay_api::files::unfinished;
use overlay_cluster::fragment;
use overlay_core::{
    dirs::Dirs,
    identity::{Bound, NetnsId},
    model::{Endpoint, IfName, Name, Network},
    state::{Change, Content, upgrade},
};
use overlay_kernel::hooks;
use serde_json::Value;

use behind::Behind;
use copies::{Durable, Version, gone, is_name, is_state};
use journal::{Journal, is_journal};

use crate::key::{KeyError, KeyFile};

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused.
    #[error("{operation} state file {}: {cause}{}", path.display(), cure_of(cause))]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file or its folder.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The private key is not as it should be.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a file of ours, or torn.
    #[error("read state file {}: {cause}; it is left as it is: move it away to start without the addresses that it remembers", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        cause: String,
    },
}

fn cure_of(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => {
            "; see that the disk has room and lets the agent write there"
        }
        io::ErrorKind::NotADirectory => "; move away what is not a folder on that path",
        _ => "",
    }
}

/// The state of one instance; every change is remembered before it takes effect.
///
/// The file on the disk is what counts. To wait for a disk costs more than all else that is
/// done for a container, so a daemon writes a journal into its runtime folder, which is kept in
/// memory and outlives the daemon, and brings the file to the disk behind. A loss of power in
/// between takes the containers along that the disk does not know of yet.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    journal: Journal,
    making: PathBuf,
    /// The last text of a cluster's store.
    cluster: PathBuf,
    adding: PathBuf,
    key: KeyFile,
    content: Arc<Content>,
    since: SystemTime,
    behind: Option<Behind>,
}

impl Store {
    /// Reads the state of an instance, or starts a new one where there is none.
    pub fn open(dirs: &Dirs, instance: &Name) -> Result<Self, StoreError> {
        let file = dirs.state(instance);
        let journal = Journal::new(dirs.journal(instance));
        let on_disk = copies::read(&file)?;
        let mut store = Self {
            file,
            journal,
            making: dirs.making(instance),
            cluster: dirs.cluster(instance),
            adding: dirs.adding(instance),
            key: KeyFile::at(dirs.private_key(instance)),
            content: Arc::new(Content::new(instance.clone())),
            since: SystemTime::UNIX_EPOCH,
            behind: None,
        };
        // Without a file somebody has moved it away, to start anew.
        let Some(Version { text, since }) = on_disk else {
            return Ok(store);
        };
        let foreign = |cause: String| StoreError::Foreign {
            path: store.file.clone(),
            cause,
        };
        let on_disk = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
        let on_disk = understand(on_disk, instance).map_err(foreign)?;
        let (mut content, since) = match store.journal.read(instance)? {
            Some(newer) if newer.1 > since => newer,
            _ => (on_disk, since),
        };
        content.making = noted(&store.making)?;
        content.adding = noted(&store.adding)?;
        (store.content, store.since) = (Arc::new(content), since);
        Ok(store)
    }

    /// The saved state.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes what is remembered, atomically: a file holds the old or the new content, never a part.
    pub fn update<T>(&mut self, change: impl FnOnce(&mut Content) -> T) -> Result<T, StoreError> {
        let mut content = (*self.content).clone();
        let result = change(&mut content);
        if content != *self.content || !self.file.exists() {
            self.write(content)?;
        }
        Ok(result)
    }

    /// Adds an endpoint at run time, with what [`Content::recognise`] and [`Content::allocate`]
    /// note of all: nothing of the others follows from it.
    pub fn admit(
        &mut self,
        endpoint: &Endpoint,
        network: &Network,
        bound: Option<Bound>,
        look: impl Fn(&Path) -> Option<NetnsId>,
    ) -> Result<(), StoreError> {
        let change = self.content.admission(endpoint, network, bound, look);
        self.note(change)
    }

    /// Notes that the inside of an endpoint that a runtime has asked for has been set.
    pub fn hand_over(&mut self, endpoint: &Name) -> Result<(), StoreError> {
        self.note(Change::HandOver(endpoint.clone()))
    }

    /// Forgets an endpoint that was added at run time, and its addresses.
    pub fn forget(&mut self, endpoint: &Name) -> Result<(), StoreError> {
        self.note(Change::Forget(endpoint.clone()))
    }

    /// Changes little of what may be much.
    fn note(&mut self, change: Change) -> Result<(), StoreError> {
        let since = copies::after(self.since);
        if let Some(behind) = &self.behind
            && self.journal.add(&change, since)?
        {
            behind.expect_newer();
            Arc::make_mut(&mut self.content).take_in(change);
            behind.write(Arc::clone(&self.content), since);
            self.since = since;
            hooks::step_done();
            return Ok(());
        }
        let mut content = (*self.content).clone();
        content.take_in(change);
        self.write(content)
    }

    fn write(&mut self, content: Content) -> Result<(), StoreError> {
        let content = Arc::new(content);
        let since = copies::after(self.since);
        if let Some(behind) = &self.behind {
            self.journal.begin(&content, since)?;
            behind.write(Arc::clone(&content), since);
        } else {
            let text = copies::text(&self.file, &*content)?;
            let version = Version { text, since };
            copies::replace(&self.file, &version, Durable::Yes, &is_state)?;
        }
        hooks::step_done();
        (self.content, self.since) = (content, since);
        Ok(())
    }

    /// Notes the device that is about to be made: the kernel lets it say whose it is only when it
    /// is there, and we may be stopped in between.
    pub fn begins_to_make(&mut self, device: IfName) -> Result<(), StoreError> {
        let noted = Version {
            text: device.as_str().into(),
            since: SystemTime::now(),
        };
        copies::replace(&self.making, &noted, Durable::No, &is_name)?;
        hooks::step_done();
        Ok(())
    }

    /// It says so now, or is not there.
    pub fn has_made(&mut self) -> Result<(), StoreError> {
        if self.content.making.is_some() {
            Arc::make_mut(&mut self.content).making = None;
        }
        gone(&self.making, &is_name)
    }

    /// Notes the endpoint that is about to be added: until whoever asked is answered, it is nobody's.
    pub fn begins_to_add(&mut self, endpoint: &Name) -> Result<(), StoreError> {
        let noted = Version {
            text: endpoint.as_str().into(),
            since: SystemTime::now(),
        };
        copies::replace(&self.adding, &noted, Durable::No, &is_name)?;
        hooks::step_done();
        Ok(())
    }

    /// It is added, or gone again.
    pub fn has_added(&mut self) -> Result<(), StoreError> {
        if self.content.adding.is_some() {
            Arc::make_mut(&mut self.content).adding = None;
        }
        gone(&self.adding, &is_name)
    }

    /// Forgets the endpoint that was being added when the agent was killed; its name.
    pub fn forget_unanswered(&mut self) -> Result<Option<Name>, StoreError> {
        let unanswered = self.content.adding.clone();
        if let Some(endpoint) = &unanswered {
            self.forget(endpoint)?;
        }
        self.has_added()?;
        Ok(unanswered)
    }

    /// Writes the file behind from now on; what is remembered now is on the disk then.
    ///
    /// Only for the one that holds the instance's lock.
    pub fn write_behind(&mut self) -> Result<(), StoreError> {
        self.write((*self.content).clone())?;
        let behind = Behind::start(self.file.clone()).map_err(|cause| StoreError::Io {
            operation: "start the thread that writes",
            path: self.file.clone(),
            cause,
        })?;
        self.behind = Some(behind);
        Ok(())
    }

    /// Why the disk does not have what is remembered, if it does not and has been tried.
    pub fn failure(&self) -> Option<String> {
        self.behind.as_ref().and_then(Behind::failure)
    }

    /// Brings everything to the disk, for the end of the daemon.
    pub fn close(mut self) -> Result<(), String> {
        if let Some(behind) = self.behind.take() {
            behind.finish()?;
        }
        let removed = gone(&self.making, &is_name)
            .and_then(|()| gone(&self.adding, &is_name))
            .and_then(|()| self.journal.remove());
        removed.map_err(|error| error.to_string())
    }

    /// Removes what a writer has left that was stopped before it was done.
    ///
    /// Only for the one that holds the instance's lock: there may be another writer.
    pub fn clear_unfinished(&self) -> Result<(), StoreError> {
        gone(&unfinished(&self.making), &is_name)?;
        gone(&unfinished(&self.adding), &is_name)?;
        gone(&unfinished(self.journal.path()), &is_journal)?;
        gone(&unfinished(&self.file), &is_state)?;
        Ok(self.key.clear_unfinished()?)
    }

    /// Removes the files, and the folder on the disk: nothing of the instance is left. Returns the
    /// folders that stay because files of others are in them.
    pub fn remove(mut self) -> Result<Vec<PathBuf>, StoreError> {
        if let Some(behind) = self.behind.take() {
            behind.abandon();
        }
        self.clear_unfinished()?;
        // First the journal: without a file it would not count.
        gone(&self.making, &is_name)?;
        gone(&self.adding, &is_name)?;
        self.journal.remove()?;
        gone(&self.file, &is_state)?;
        // Earlier versions wrote to "cluster.new" first.
        let unfinished = [
            unfinished(&self.cluster),
            self.cluster.with_extension("new"),
        ];
        for of_cluster in unfinished.iter().chain([&self.cluster]) {
            gone(of_cluster, &fragment::is_ours)?;
        }
        self.key.remove()?;
        self.key.next().remove()?;
        hooks::step_done();
        let mut stay = Vec::new();
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        match fs::remove_dir(folder) {
            Err(cause) if cause.kind() == io::ErrorKind::DirectoryNotEmpty => {
                stay.push(folder.to_owned());
            }
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(copies::failed("remove the folder of", folder)(cause));
            }
            _ => {}
        }
        // This one goes when its lock is given up.
        let runtime = self.journal.path().parent().unwrap_or(Path::new("/"));
        let others =
            has_others(runtime).map_err(copies::failed("look into the folder of", runtime))?;
        stay.extend(others.then(|| runtime.to_owned()));
        Ok(stay)
    }
}

/// Whether a runtime folder has more in it than a lock and a socket.
fn has_others(runtime: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(runtime) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != "lock" && name != "api.sock" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The name that a file of this agent holds; what holds none is somebody else's file.
fn noted<T: FromStr>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(noted) = copies::read(path)? else {
        return Ok(None);
    };
    let name = String::from_utf8_lossy(&noted.text).into_owned();
    name.parse().map(Some).map_err(|_| StoreError::Foreign {
        path: path.to_owned(),
        cause: "it holds no name".to_owned(),
    })
}

/// The content of a file of this or an earlier layout; the error says what does not fit.
fn understand(file: Value, instance: &Name) -> Result<Content, String> {
    let file = upgrade(file)?;
    let content: Content = serde_json::from_value(file).map_err(|error| error.to_string())?;
    content.must_be_of(instance)?;
    Ok(content)
}
