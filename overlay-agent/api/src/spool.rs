//! Attachments that were to go while no agent was there to hear it.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::Key;

/// More are not kept: a runtime that asks for so many is told to ask again.
const MOST: usize = 4096;

/// A folder in the instance's runtime folder, with a file for each.
///
/// Who wants an attachment to go writes its file and then asks once more whether the agent is
/// there. The agent listens first and then reads the folder. So one of the two sees the other.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// That of the instance with this runtime folder.
    pub fn of(runtime: &Path) -> Self {
        Self {
            folder: runtime.join("detach"),
        }
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{:016x}.json", key.hash()))
    }

    /// Keeps a key until it is taken out; a second time is fine.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many.
    pub fn put(&self, key: &Key) -> io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.folder)?;
        if fs::read_dir(&self.folder)?.count() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} are waiting there already"
            )));
        }
        let file = self.file(key);
        let unfinished = file.with_extension("tmp");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut writer = options.open(&unfinished)?;
        writer.write_all(serde_json::to_string(key)?.as_bytes())?;
        fs::rename(unfinished, file)
    }

    /// Takes a key out; one that is not there is fine.
    ///
    /// # Errors
    /// When the file stays.
    pub fn remove(&self, key: &Key) -> io::Result<()> {
        match fs::remove_file(self.file(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// When something stays.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The keys that wait. What is no key is left where it is, and told by its name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn keys(&self) -> io::Result<Vec<Result<Key, String>>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let read = fs::read(&path).map_err(io::Error::other);
                let key = read.and_then(|text| serde_json::from_slice(&text).map_err(Into::into));
                keys.push(key.map_err(|error| format!("{}: {error}", path.display())));
            }
        }
        Ok(keys)
    }
}
