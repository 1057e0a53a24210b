//! Files that are replaced as a whole, and what tells which of two is the newer one.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use overlay_api::files::{self, Recognise, Whole};
use serde::Serialize;

use super::StoreError;

/// Bytes that the name of an endpoint or a device has at most.
const LONGEST_NAME: usize = 63;

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

/// The content of the file, without the white space that half of it would be.
pub(super) fn text(path: &Path, what: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_vec(what).map_err(io::Error::other);
    text.map_err(failed("write", path))
}

/// Reads a plain file; `None` when nothing is there.
pub(super) fn read(path: &Path) -> Result<Option<Version>, StoreError> {
    let read = files::open(path).and_then(|file| {
        let Some(mut file) = file else {
            return Ok(None);
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut file, &mut text)?;
        let since = file.metadata()?.modified()?;
        Ok(Some(Version { text, since }))
    });
    read.map_err(failed("read", path))
}

/// Replaces a file of ours: it holds the old or the new content, never a part of one. What is not ours
/// stays, and is an error.
pub(super) fn replace(
    path: &Path,
    version: &Version,
    durable: Durable,
    ours: Recognise<'_>,
) -> Result<(), StoreError> {
    let file = Whole {
        path,
        text: &version.text,
        mode: 0o600,
        modified: Some(version.since),
        durable: durable == Durable::Yes,
    };
    file.replace(ours).map_err(failed("replace", path))
}

/// Removes a file of ours; what is not there, and what is not ours, is fine.
pub(super) fn gone(path: &Path, ours: Recognise<'_>) -> Result<(), StoreError> {
    let removed = files::remove(path, ours);
    removed.map(drop).map_err(failed("remove", path))
}

/// Whether a content is a state file's, of whatever format, or the part of one that was written.
pub(super) fn is_state(text: &[u8]) -> bool {
    let head = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let wanted = b"{\"format\":";
    head.zip(wanted).all(|(is, wanted)| is == wanted)
}

/// Whether it is a name and nothing else, as in the notes of what is being made.
pub(super) fn is_name(text: &[u8]) -> bool {
    text.len() <= LONGEST_NAME && text.iter().all(u8::is_ascii_graphic)
}

pub(super) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        operation,
        path,
        cause,
    }
}
