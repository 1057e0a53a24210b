//! Files of ours, at paths where somebody else may have put something.
//!
//! What has the name of a file of ours is ours only if it is a plain file whose content is one that
//! we write: everything else there stays as it is, and is told. No link is followed.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Whether a content, of which it sees the first [`SEEN`] bytes, is one that we write. The end may be
/// missing: a writer can be killed.
pub type Recognise<'f> = &'f dyn Fn(&[u8]) -> bool;

/// Bytes by which a file is recognised: whatever it holds besides, to look costs the same.
pub const SEEN: u64 = 256;

/// A file that is replaced as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'f> {
    /// Where it is.
    pub path: &'f Path,
    /// The new content.
    pub text: &'f [u8],
    /// Its rights, whatever the mask of the process takes away.
    pub mode: u32,
    /// Its time of modification, if it is not that of writing.
    pub modified: Option<SystemTime>,
    /// Whether it is on the disk when it is there.
    pub durable: bool,
}

impl Whole<'_> {
    /// Makes it, or takes the place of one that is `ours`: it holds the old or the new content, never
    /// a part of one.
    ///
    /// # Errors
    /// When something else is there, or where it is written first, or it cannot be written.
    pub fn replace(self, ours: Recognise<'_>) -> io::Result<()> {
        let folder = folder_of(self.path);
        make_folder(folder)?;
        // It is never torn.
        must_be_ours(self.path, &|text| !text.is_empty() && ours(text))?;
        let new = unfinished(self.path);
        if must_be_ours(&new, ours).map_err(at(&new))? {
            // A writer that was killed has left it.
            fs::remove_file(&new)?;
        }
        let mut options = fs::OpenOptions::new();
        // It follows no link, and opens nothing that is there.
        let options = options.write(true).create_new(true).mode(self.mode);
        let file = options.open(&new)?;
        if let Err(error) = self.fill(file).and_then(|()| fs::rename(&new, self.path)) {
            // That it could not be written says more than that a part of it is left.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        if self.durable {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn fill(self, mut file: fs::File) -> io::Result<()> {
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.write_all(self.text)?;
        if let Some(modified) = self.modified {
            file.set_modified(modified)?;
        }
        if self.durable {
            file.sync_all()?;
        }
        Ok(())
    }
}

/// Where a file is written before it takes its place.
pub fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// The content of a plain file; `None` when there is nothing.
///
/// # Errors
/// When something else is there, or it cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match open(path)? {
        Some(mut file) => {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(Some(text))
        }
        None => Ok(None),
    }
}

/// A plain file, for reading; `None` when there is nothing.
///
/// # Errors
/// When something else is there, or it cannot be opened.
pub fn open(path: &Path) -> io::Result<Option<fs::File>> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        there => there?,
    };
    if !there.is_file() {
        return Err(in_the_way(None, kind(&there)));
    }
    // Neither through a link nor into a pipe that has come there since.
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let opened = file.metadata()?;
    if opened.is_file() {
        Ok(Some(file))
    } else {
        Err(in_the_way(None, kind(&opened)))
    }
}

/// Removes a file that is `ours`; none there is fine. Whether something of somebody else stays.
///
/// # Errors
/// When it cannot be looked at, or stays.
pub fn remove(path: &Path, ours: Recognise<'_>) -> io::Result<bool> {
    match must_be_ours(path, ours) {
        Ok(false) => return Ok(false),
        Ok(true) => {}
        Err(error) if is_in_the_way(&error) => return Ok(true),
        Err(error) => return Err(error),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

/// Removes a file that is `ours`, and what a killed writer has left beside it.
///
/// # Errors
/// As [`remove`].
pub fn remove_with_unfinished(path: &Path, ours: Recognise<'_>) -> io::Result<bool> {
    Ok(remove(&unfinished(path), ours)? | remove(path, ours)?)
}

/// Makes a folder for this user alone; one that is there must be a folder.
///
/// # Errors
/// When something else is there, or it cannot be made.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(there) if there.is_dir() => Ok(()),
        // A whole folder may be elsewhere, where its parent is in safe hands.
        Ok(there) if there.is_symlink() && is_private(folder_of(folder))? && folder.is_dir() => {
            Ok(())
        }
        Ok(there) => Err(in_the_way(Some(folder), kind(&there))),
        Err(_) => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder),
    }
}

/// Whether only its owner can put something into a folder.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_private(folder: &Path) -> io::Result<bool> {
    Ok(fs::metadata(folder)?.permissions().mode() & 0o022 == 0)
}

/// Whether an error says that something of somebody else is there.
pub fn is_in_the_way(error: &io::Error) -> bool {
    let cause = error.get_ref();
    cause.is_some_and(<dyn std::error::Error + Send + Sync>::is::<InTheWay>)
}

/// Something of somebody else.
#[derive(Debug, thiserror::Error)]
#[error("{} {what}, which this program has not made; move it away", subject(at.as_deref()))]
struct InTheWay {
    /// Where, if not at the path that whoever reads this knows.
    at: Option<PathBuf>,
    what: &'static str,
}

fn subject(at: Option<&Path>) -> String {
    at.map_or_else(|| "it is".to_owned(), |at| format!("{} is", at.display()))
}

fn in_the_way(at: Option<&Path>, what: &'static str) -> io::Error {
    let at = at.map(Path::to_owned);
    io::Error::new(io::ErrorKind::AlreadyExists, InTheWay { at, what })
}

/// The same, said of a path that whoever reads it does not know.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(InTheWay { what, .. }) => in_the_way(Some(path), what),
        None => error,
    }
}

/// Whether there is a file that is ours; what is not is an error.
fn must_be_ours(path: &Path, ours: Recognise<'_>) -> io::Result<bool> {
    let Some(file) = open(path)? else {
        return Ok(false);
    };
    let mut head = Vec::new();
    file.take(SEEN).read_to_end(&mut head)?;
    if ours(&head) {
        Ok(true)
    } else {
        Err(in_the_way(None, "a file with other content"))
    }
}

fn kind(there: &fs::Metadata) -> &'static str {
    let kind = there.file_type();
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_file() {
        "a file"
    } else {
        "a device"
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        path::Path,
        process::Command,
    };

    use super::{Whole, is_in_the_way, read, remove_with_unfinished, unfinished};

    fn ours(text: &[u8]) -> bool {
        text.starts_with(b"ours") || b"ours".starts_with(text)
    }

    fn replace(path: &Path) -> std::io::Result<()> {
        let file = Whole {
            path,
            text: b"ours 2",
            mode: 0o600,
            modified: None,
            durable: true,
        };
        file.replace(&ours)
    }

    /// Puts something at a path; what it leads to is in `elsewhere`.
    type Put = fn(&Path, &Path);

    const STRANGERS: &[(&str, Put)] = &[
        ("a file with other content", |at, _| {
            fs::write(at, "theirs").unwrap();
        }),
        ("a symbolic link", |at, elsewhere| {
            fs::write(elsewhere, "ours 1").unwrap();
            symlink(elsewhere, at).unwrap();
        }),
        ("a symbolic link", |at, elsewhere| {
            symlink(elsewhere, at).unwrap();
        }),
        ("a folder", |at, _| fs::create_dir(at).unwrap()),
        ("a socket", |at, _| drop(UnixListener::bind(at).unwrap())),
        ("a pipe", |at, _| {
            assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
        }),
    ];

    #[test]
    fn what_is_not_ours_is_neither_replaced_nor_followed_nor_removed() {
        for (what, put) in STRANGERS {
            let folder = tempfile::tempdir().unwrap();
            let (path, elsewhere) = (folder.path().join("f.json"), folder.path().join("else"));
            for at in [path.clone(), unfinished(&path)] {
                put(&at, &elsewhere);
                let look = || {
                    let there = fs::symlink_metadata(&at).unwrap();
                    let content = there.is_file().then(|| fs::read(&at).unwrap());
                    (there.file_type(), content, fs::read(&elsewhere).ok())
                };
                let before = look();
                let error = replace(&path).unwrap_err();
                assert!(is_in_the_way(&error), "{error}");
                let subject = if at == path {
                    "it".to_owned()
                } else {
                    at.display().to_string()
                };
                let said = format!("{subject} is {what}, which this program has not made");
                assert!(error.to_string().starts_with(&said), "{error}");
                assert!(remove_with_unfinished(&path, &ours).unwrap());
                assert_eq!(look(), before, "{what} at {}", at.display());
                if before.0.is_dir() {
                    fs::remove_dir(&at).unwrap();
                } else {
                    fs::remove_file(&at).unwrap();
                }
                drop(fs::remove_file(&elsewhere));
            }
        }
    }

    #[test]
    fn what_is_ours_is_replaced_whole_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in").join("f.json");
        replace(&path).unwrap();
        fs::write(unfinished(&path), "ou").unwrap();
        replace(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"ours 2");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(!remove_with_unfinished(&path, &ours).unwrap());
        assert_eq!(read(&path).unwrap(), None);
        assert!(!remove_with_unfinished(&path, &ours).unwrap());
    }
}
