//! Files that are replaced as a whole, and what tells which of two is the newer one.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::StoreError;

/// Whether a file is to outlive a loss of power, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// It is on the disk when it is there.
    Yes,
    /// It outlives the process.
    No,
}

/// What a file holds, and when that became valid: the file's time of modification, whatever
/// its time of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) text: Vec<u8>,
    pub(super) since: SystemTime,
}

/// The time of a version that is newer than another one, also after the clock was set back.
pub(super) fn after(before: SystemTime) -> SystemTime {
    SystemTime::now().max(before + Duration::from_nanos(1))
}

/// What a file is to hold. Without the white space that half of it would be.
pub(super) fn text(path: &Path, what: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_vec(what).map_err(io::Error::other);
    text.map_err(failed("write", path))
}

/// Reads a file; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Version>, StoreError> {
    let read = fs::File::open(path).and_then(|mut file| {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut file, &mut text)?;
        let since = file.metadata()?.modified()?;
        Ok(Version { text, since })
    });
    match read {
        Ok(version) => Ok(Some(version)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("read", path)(cause)),
    }
}

/// Replaces a file: it holds the old or the new content, never a part of one.
pub(super) fn replace(path: &Path, version: &Version, durable: Durable) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed("create the folder of", folder))?;
    let temporary = temporary(path);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    let written = file
        .write_all(&version.text)
        .and_then(|()| file.set_modified(version.since))
        .and_then(|()| match durable {
            Durable::Yes => file.sync_all(),
            Durable::No => Ok(()),
        });
    written.map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    if durable == Durable::Yes {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(failed("replace", folder))?;
    }
    Ok(())
}

/// What is being written, until it takes the file's place.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// Removes something; what is not there is fine.
pub(super) fn gone(
    path: &Path,
    remove: impl FnOnce(PathBuf) -> io::Result<()>,
) -> Result<(), StoreError> {
    match remove(path.to_owned()) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(cause)),
        _ => Ok(()),
    }
}

pub(super) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        operation,
        path,
        cause,
    }
}
