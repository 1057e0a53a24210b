//! What must survive a restart and cannot be read back from the kernel.
//!
//! Addresses that were handed out, endpoints that were added at run time, which
//! namespaces we made, and the kernel settings as they were before us.

mod addresses;
mod content;
mod upgrade;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::{hooks, model::Name};

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

/// The state file of one instance; every change is on disk before it takes effect.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    content: Content,
}

impl Store {
    /// Reads the state of an instance, or starts a new one where there is none.
    pub fn open(state_dir: &Path, instance: &Name) -> Result<Self, StoreError> {
        let path = Self::path(state_dir, instance);
        let content =
            Self::read(&path, instance)?.unwrap_or_else(|| Content::new(instance.clone()));
        Ok(Self { path, content })
    }

    /// Where the state of an instance is.
    pub fn path(state_dir: &Path, instance: &Name) -> PathBuf {
        state_dir.join(instance.as_str()).join("state.json")
    }

    fn read(path: &Path, instance: &Name) -> Result<Option<Content>, StoreError> {
        let foreign = |cause: String| StoreError::Foreign {
            path: path.to_owned(),
            cause,
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => {
                return Err(StoreError::Io {
                    operation: "read",
                    path: path.to_owned(),
                    cause,
                });
            }
        };
        let file = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
        let file = upgrade::upgrade(file).map_err(foreign)?;
        let content: Content =
            serde_json::from_value(file).map_err(|error| foreign(error.to_string()))?;
        content.must_be_of(instance).map_err(foreign)?;
        Ok(Some(content))
    }

    /// What is remembered.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes what is remembered, atomically: the file holds the old or the new content, never a part.
    pub fn update<T>(&mut self, change: impl FnOnce(&mut Content) -> T) -> Result<T, StoreError> {
        let mut content = self.content.clone();
        let result = change(&mut content);
        if content != self.content || !self.path.exists() {
            self.write(&content)?;
            self.content = content;
        }
        Ok(result)
    }

    fn write(&self, content: &Content) -> Result<(), StoreError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause| StoreError::Io {
                operation,
                path,
                cause,
            }
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io("create the folder of", folder))?;
        let text = serde_json::to_vec_pretty(content)
            .map_err(|error| io("write", &self.path)(io::Error::other(error)))?;
        let temporary = self.temporary();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io("create", &temporary))?;
        file.write_all(&text).map_err(io("write", &temporary))?;
        file.sync_all().map_err(io("write", &temporary))?;
        hooks::step_done();
        fs::rename(&temporary, &self.path).map_err(io("replace", &self.path))?;
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        hooks::step_done();
        synced.map_err(io("replace", folder))
    }

    /// What is being written, until it takes the file's place.
    fn temporary(&self) -> PathBuf {
        self.path.with_extension("json.new")
    }

    /// Removes what a writer has left that was stopped before it was done.
    ///
    /// Only for the one that holds the instance's lock: there may be another writer.
    pub fn clear_unfinished(&self) -> Result<(), StoreError> {
        gone(&self.temporary(), fs::remove_file)
    }

    /// Removes the file and its folder: nothing of the instance is left.
    pub fn remove(self) -> Result<(), StoreError> {
        self.clear_unfinished()?;
        gone(&self.path, fs::remove_file)?;
        hooks::step_done();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        gone(folder, fs::remove_dir)
    }
}

/// Removes something; what is not there is fine.
fn gone(path: &Path, remove: impl FnOnce(PathBuf) -> io::Result<()>) -> Result<(), StoreError> {
    match remove(path.to_owned()) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(StoreError::Io {
            operation: "remove",
            path: path.to_owned(),
            cause,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Store, StoreError};

    /// As the first version wrote it.
    const FIRST: &str = r#"{
        "format": 1, "instance": "n", "netns": null, "config": "/etc/overlay/node.toml",
        "allocations": { "web": { "network": "lab", "address": "10.244.1.2" } },
        "endpoints": [
            { "name": "job", "network": "lab", "netns": { "pid": 7 }, "address": null, "interface": "eth0" },
            { "name": "db", "network": "lab", "netns": { "name": "db" }, "address": "10.244.1.9", "interface": "eth0" }
        ],
        "namespaces": {}, "processes": {}, "sysctls": { "net/ipv4/ip_forward": "0" }, "fastpath_off": true
    }"#;

    #[test]
    fn the_first_version_s_file_is_read_and_written_in_the_present_layout() {
        let dir = tempfile::tempdir().unwrap();
        let instance = "n".parse().unwrap();
        let path = Store::path(dir.path(), &instance);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, FIRST).unwrap();
        let mut store = Store::open(dir.path(), &instance).unwrap();
        let content = store.content();
        let addresses = &content.allocations[&"web".parse().unwrap()].addresses;
        assert_eq!(
            *addresses,
            ["10.244.1.2".parse::<std::net::IpAddr>().unwrap()]
        );
        let wanted: Vec<usize> = content
            .endpoints
            .iter()
            .map(|e| e.addresses.len())
            .collect();
        assert_eq!(wanted, [0, 1]);
        assert!(content.fastpath_off && !content.packet_filter);
        store
            .update(|content| content.fastpath_off = false)
            .unwrap();
        let again = Store::open(dir.path(), &instance).unwrap();
        assert_eq!(again.content(), store.content());
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("\"format\": 2")
        );
    }

    #[test]
    fn the_file_survives_and_a_foreign_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let instance = "n".parse().unwrap();
        let mut store = Store::open(dir.path(), &instance).unwrap();
        store.update(|content| content.fastpath_off = true).unwrap();
        assert_eq!(
            Store::open(dir.path(), &instance).unwrap().content(),
            store.content()
        );

        let path = Store::path(dir.path(), &instance);
        let whole = std::fs::read(&path).unwrap();
        let cut = &whole[..whole.len() / 2];
        let torn: [&[u8]; 5] = [b"", cut, b"{\"format\": 9}", b"[]", &[0xff; 16]];
        for torn in torn {
            std::fs::write(&path, torn).unwrap();
            let error = Store::open(dir.path(), &instance).unwrap_err();
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), torn, "{error}");
        }
        store.remove().unwrap();
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn another_instance_s_file_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
        Store::open(dir.path(), &one)
            .unwrap()
            .update(|content| content.fastpath_off = true)
            .unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        std::fs::copy(
            Store::path(dir.path(), &one),
            Store::path(dir.path(), &other),
        )
        .unwrap();
        let error = Store::open(dir.path(), &other).unwrap_err();
        assert!(error.to_string().contains("belongs to instance one"));
    }

    #[test]
    fn what_a_writer_left_that_was_stopped_neither_counts_nor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let instance = "n".parse().unwrap();
        let mut store = Store::open(dir.path(), &instance).unwrap();
        store.update(|content| content.fastpath_off = true).unwrap();
        std::fs::write(store.temporary(), "{\"format\"").unwrap();
        let again = Store::open(dir.path(), &instance).unwrap();
        assert_eq!(again.content(), store.content());
        again.clear_unfinished().unwrap();
        assert!(!again.temporary().exists());
        std::fs::write(again.temporary(), "{").unwrap();
        again.remove().unwrap();
        assert!(!dir.path().join("n").exists());
    }
}
