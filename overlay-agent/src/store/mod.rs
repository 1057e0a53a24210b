//! What must survive a restart and cannot be read back from the kernel.
//!
//! Addresses that were handed out, endpoints that were added at run time, which
//! namespaces we made, and the kernel settings as they were before us.

mod addresses;
mod behind;
mod content;
mod copies;
mod upgrade;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    dirs::Dirs,
    hooks,
    model::{IfName, Name},
};

use behind::Behind;
use copies::{Durable, Version, gone, temporary};

pub use content::{Allocation, Content};

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused.
    #[error("{operation} state file {}: {cause}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or its folder.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Not a file of ours, or torn.
    #[error("read state file {}: {cause}; it is left as it is: move it away to start without the addresses that it remembers", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
}

/// The state of one instance; every change is remembered before it takes effect.
///
/// The file on the disk is what counts. To wait for a disk costs more than all else that is
/// done for a container, so a daemon writes a copy into its runtime folder, which is kept in
/// memory and outlives the daemon, and brings the file to the disk behind. A loss of power in
/// between takes the containers along that the disk does not know of yet.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    copy: PathBuf,
    making: PathBuf,
    content: Content,
    since: SystemTime,
    behind: Option<Behind>,
}

impl Store {
    /// Reads the state of an instance, or starts a new one where there is none.
    pub fn open(dirs: &Dirs, instance: &Name) -> Result<Self, StoreError> {
        let (file, copy) = (dirs.state(instance), dirs.state_copy(instance));
        let on_disk = copies::read(&file)?;
        let in_memory = copies::read(&copy)?;
        let mut store = Self {
            file,
            copy,
            making: dirs.making(instance),
            content: Content::new(instance.clone()),
            since: SystemTime::UNIX_EPOCH,
            behind: None,
        };
        // Without a file somebody has moved it away, to start anew.
        let Some(on_disk) = on_disk else {
            return Ok(store);
        };
        let content = understand(&store.file, &on_disk, instance)?;
        (store.content, store.since) = (content, on_disk.since);
        if let Some(newer) = in_memory.filter(|copy| copy.since > on_disk.since) {
            let content = understand(&store.copy, &newer, instance)?;
            (store.content, store.since) = (content, newer.since);
        }
        if let Some(noted) = copies::read(&store.making)? {
            let name = String::from_utf8_lossy(&noted.text).into_owned();
            store.content.making = name.parse().ok();
        }
        Ok(store)
    }

    /// What is remembered.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes what is remembered, atomically: a file holds the old or the new content, never a part.
    pub fn update<T>(&mut self, change: impl FnOnce(&mut Content) -> T) -> Result<T, StoreError> {
        let mut content = self.content.clone();
        let result = change(&mut content);
        if content != self.content || !self.file.exists() {
            self.write(content)?;
        }
        Ok(result)
    }

    fn write(&mut self, content: Content) -> Result<(), StoreError> {
        // Without the white space that half of it would be: it is written for each container.
        let text = serde_json::to_vec(&content).map_err(|error| StoreError::Io {
            operation: "write",
            path: self.file.clone(),
            cause: io::Error::other(error),
        })?;
        let version = Version::after(self.since, text);
        let since = version.since;
        match &self.behind {
            Some(behind) => {
                copies::replace(&self.copy, &version, Durable::No)?;
                behind.write(version);
            }
            None => copies::replace(&self.file, &version, Durable::Yes)?,
        }
        hooks::step_done();
        (self.content, self.since) = (content, since);
        Ok(())
    }

    /// Notes the device that is about to be made: the kernel lets it say whose it is only when it
    /// is there, and we may be stopped in between.
    pub fn begins_to_make(&mut self, device: IfName) -> Result<(), StoreError> {
        let noted = Version::after(SystemTime::UNIX_EPOCH, device.as_str().into());
        copies::replace(&self.making, &noted, Durable::No)?;
        hooks::step_done();
        Ok(())
    }

    /// It says so now, or is not there.
    pub fn has_made(&mut self) -> Result<(), StoreError> {
        self.content.making = None;
        gone(&self.making, fs::remove_file)
    }

    /// Writes the file behind from now on; what is remembered now is on the disk then.
    ///
    /// Only for the one that holds the instance's lock.
    pub fn write_behind(&mut self) -> Result<(), StoreError> {
        self.write(self.content.clone())?;
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
        for path in [&self.making, &self.copy] {
            gone(path, fs::remove_file).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Removes what a writer has left that was stopped before it was done.
    ///
    /// Only for the one that holds the instance's lock: there may be another writer.
    pub fn clear_unfinished(&self) -> Result<(), StoreError> {
        gone(&temporary(&self.making), fs::remove_file)?;
        gone(&temporary(&self.copy), fs::remove_file)?;
        gone(&temporary(&self.file), fs::remove_file)
    }

    /// Removes the files, and the folder on the disk: nothing of the instance is left.
    pub fn remove(mut self) -> Result<(), StoreError> {
        if let Some(behind) = self.behind.take() {
            behind.abandon();
        }
        self.clear_unfinished()?;
        // First the copy: without a file it would not count.
        gone(&self.making, fs::remove_file)?;
        gone(&self.copy, fs::remove_file)?;
        gone(&self.file, fs::remove_file)?;
        hooks::step_done();
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        gone(folder, fs::remove_dir)
    }
}

fn understand(path: &Path, version: &Version, instance: &Name) -> Result<Content, StoreError> {
    let foreign = |cause: String| StoreError::Foreign {
        path: path.to_owned(),
        cause,
    };
    let file = serde_json::from_slice(&version.text).map_err(|error| foreign(error.to_string()))?;
    let file = upgrade::upgrade(file).map_err(foreign)?;
    let content: Content =
        serde_json::from_value(file).map_err(|error| foreign(error.to_string()))?;
    content.must_be_of(instance).map_err(foreign)?;
    Ok(content)
}
