//! Attachments that were to go while no agent was there to hear it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Key,
    files::{self, Whole},
};

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
        files::make_folder(&self.folder)?;
        if fs::read_dir(&self.folder)?.count() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} are waiting there already"
            )));
        }
        let (path, text) = (self.file(key), serde_json::to_vec(key)?);
        let file = Whole {
            path: &path,
            text: &text,
            mode: 0o600,
            modified: None,
            // A boot ends the container, too.
            durable: false,
        };
        file.replace(&is_key)
    }

    /// Takes a key out; one that is not there is fine.
    ///
    /// # Errors
    /// When the file stays.
    pub fn remove(&self, key: &Key) -> io::Result<()> {
        files::remove(&self.file(key), &is_key).map(drop)
    }

    /// Removes all keys, and the folder unless something of others is in it; whether it stays.
    ///
    /// # Errors
    /// When a key stays.
    pub fn clear(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.folder) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_named_like_a_key(&path) {
                files::remove(&path, &is_key)?;
            }
        }
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(false),
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
                let read = files::read(&path).map(Option::unwrap_or_default);
                let key = read.and_then(|text| serde_json::from_slice(&text).map_err(Into::into));
                keys.push(key.map_err(|error| format!("{}: {error}", path.display())));
            }
        }
        Ok(keys)
    }
}

/// The beginning of a key that is being written, or the whole of one.
fn is_key(text: &[u8]) -> bool {
    const HEAD: &[u8] = b"{\"source\":";
    HEAD.starts_with(text) || text.starts_with(HEAD)
}

/// `HASH.json`, or what is to become one.
fn is_named_like_a_key(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".new").unwrap_or(&name);
    // Earlier versions wrote to another name first.
    let hash = name.strip_suffix(".json").or(name.strip_suffix(".tmp"));
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Spool;
    use crate::Key;

    #[test]
    fn only_keys_go_and_what_others_have_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::of(folder.path());
        let key = Key {
            source: "cni:lab".to_owned(),
            container: "c1".to_owned(),
            interface: "eth0".to_owned(),
        };
        spool.put(&key).unwrap();
        spool.put(&key).unwrap();
        assert_eq!(spool.keys().unwrap(), [Ok(key.clone())]);
        let detach = folder.path().join("detach");
        let theirs = ["notes", "0123456789abcdef.json"].map(|name| detach.join(name));
        for path in &theirs {
            fs::write(path, "somebody's").unwrap();
        }
        assert!(spool.clear().unwrap(), "it stays");
        for path in &theirs {
            assert_eq!(fs::read(path).unwrap(), b"somebody's");
            fs::remove_file(path).unwrap();
        }
        assert_eq!(fs::read_dir(&detach).unwrap().count(), 0);
        assert!(!spool.clear().unwrap());
        assert!(!detach.exists());

        // A link to somebody's folder is neither written through nor removed.
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &detach).unwrap();
        fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        assert!(spool.put(&key).is_err());
        assert!(spool.clear().unwrap());
        assert!(detach.is_symlink());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
