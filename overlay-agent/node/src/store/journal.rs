//! What is remembered, in memory that outlives the agent: the whole of it, and then what has
//! changed since, a line each. So a change costs what it says, not what there is.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use overlay_core::{
    model::Name,
    state::{Change, Content},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    StoreError,
    copies::{self, Durable, Version, failed, gone},
    understand,
};

/// Lines may take so much before they are made into one again, or as much as that one takes.
const ROOM: usize = 64 << 10;

/// A file of lines, the first of which is the whole.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Where lines can be added; not to what a writer has left, or could not write.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: fs::File,
    /// Bytes of the first line,
    whole: usize,
    /// and of those since.
    since: usize,
}

/// A line: since when it is so, in nanoseconds of Unix time, and what is so.
#[derive(Serialize)]
struct Written<'a>(u64, What<&'a Content, &'a Change>);

#[derive(Deserialize)]
struct Read(u64, What<Value, Change>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What<W, C> {
    Whole(W),
    Change(C),
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// The content left by a killed writer, and since when it was valid.
    pub(super) fn read(
        &self,
        instance: &Name,
    ) -> Result<Option<(Content, SystemTime)>, StoreError> {
        let Some(Version { text, .. }) = copies::read(&self.path)? else {
            return Ok(None);
        };
        let foreign = |cause: String| StoreError::Foreign {
            path: self.path.clone(),
            cause,
        };
        // A line without an end was being written: nobody was told that it counts.
        let ended = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let lines = text[..ended].split(|byte| *byte == b'\n');
        let mut read: Option<(Content, SystemTime)> = None;
        for line in lines {
            let line = serde_json::from_slice(line).map_err(|error| foreign(error.to_string()))?;
            let Read(since, what) = line;
            let since = SystemTime::UNIX_EPOCH + Duration::from_nanos(since);
            read = Some(match (read, what) {
                (_, What::Whole(whole)) => (understand(whole, instance).map_err(foreign)?, since),
                (Some((mut content, _)), What::Change(change)) => {
                    content.take_in(change);
                    (content, since)
                }
                (None, What::Change(_)) => {
                    return Err(foreign("it begins with a change".to_owned()));
                }
            });
        }
        Ok(read)
    }

    /// Begins anew.
    pub(super) fn begin(&mut self, content: &Content, since: SystemTime) -> Result<(), StoreError> {
        self.open = None;
        let text = self.line(since, What::Whole(content))?;
        let whole = text.len();
        copies::replace(
            &self.path,
            &Version { text, since },
            Durable::No,
            &is_journal,
        )?;
        let file = fs::OpenOptions::new().append(true).open(&self.path);
        let file = file.map_err(failed("open", &self.path))?;
        self.open = Some(Open {
            file,
            whole,
            since: 0,
        });
        Ok(())
    }

    /// Adds a change; whether there was room for it.
    pub(super) fn add(&mut self, change: &Change, since: SystemTime) -> Result<bool, StoreError> {
        let line = self.line(since, What::Change(change))?;
        let Some(mut open) = self.open.take() else {
            return Ok(false);
        };
        if open.since + line.len() > open.whole.max(ROOM) {
            return Ok(false);
        }
        let added = open.file.write_all(&line);
        added.map_err(failed("write", &self.path))?;
        open.since += line.len();
        self.open = Some(open);
        Ok(true)
    }

    pub(super) fn remove(&mut self) -> Result<(), StoreError> {
        self.open = None;
        gone(&self.path, &is_journal)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn line(
        &self,
        since: SystemTime,
        what: What<&Content, &Change>,
    ) -> Result<Vec<u8>, StoreError> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_nanos();
        let line = Written(u64::try_from(since).unwrap_or(u64::MAX), what);
        let mut text = copies::text(&self.path, &line)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Whether a content is a journal's, or the part of one that was written: `[TIME,{"whole":…`.
pub(super) fn is_journal(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"[") else {
        return text.is_empty();
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits..).unwrap_or_default();
    let wanted = b",{\"whole\":";
    rest.starts_with(wanted) || wanted.starts_with(rest)
}
