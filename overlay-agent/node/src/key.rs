//! The node's private key: a file that only root reads, made once and kept.
//!
//! Architecture Invariant: what is private leaves this module for the kernel alone. No log, plan or
//! answer has it, and nothing here prints it.

use std::{
    fmt,
    fs::{self, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use overlay_api::{files, nameless::Nameless};
use overlay_core::{model::PublicKey, text_file};
use x25519_dalek::StaticSecret;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("{operation} private key {}: {cause}; {cure}", path.display())]
pub struct KeyError {
    operation: &'static str,
    path: PathBuf,
    cause: io::Error,
    cure: &'static str,
}

impl KeyError {
    /// The failed operation and its cause, without a cure.
    pub fn what(&self) -> String {
        format!(
            "{} private key {}: {}",
            self.operation,
            self.path.display(),
            self.cause
        )
    }

    /// Whether the user may not.
    pub fn is_denied(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }

    /// The cure.
    pub fn cure(&self) -> &'static str {
        self.cure
    }
}

/// Extension of an unfinished key's file, followed by a number.
const UNFINISHED: &str = "new-";

/// Where the key is.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

/// A key with its private half.
pub struct PrivateKey(StaticSecret);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey::new(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// For the kernel.
    pub(crate) fn bytes(&self) -> [u8; PublicKey::LENGTH] {
        self.0.to_bytes()
    }
}

impl KeyFile {
    /// A key in this file.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The key, if it has been made.
    pub fn read(&self) -> Result<Option<PrivateKey>, KeyError> {
        // A link may lead to it, and a pipe is not waited for.
        let read = text_file::open(&self.0).and_then(|file| {
            let mut bytes = Vec::new();
            // One that is too long needs not be read to its end.
            let most = PublicKey::LENGTH as u64 + 1;
            io::Read::take(file, most).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.failed("read", "run it as root")(cause)),
        };
        let bytes = <[u8; PublicKey::LENGTH]>::try_from(bytes.as_slice()).map_err(|_| {
            let cause = io::Error::new(io::ErrorKind::InvalidData, "it does not have 32 bytes");
            let cure = "put back the one that was there, or remove it: then another one is made, and peers must be told";
            self.failed("read", cure)(cause)
        })?;
        Ok(Some(PrivateKey(StaticSecret::from(bytes))))
    }

    /// The key, which is made where there is none. Of several that make one at once, all get the same.
    pub fn read_or_make(&self) -> Result<PrivateKey, KeyError> {
        self.clear_unfinished()?;
        if let Some(key) = self.read()? {
            return Ok(key);
        }
        let cure = "see that the state folder can be written to";
        self.make().map_err(self.failed("make", cure))?;
        let vanished = || io::Error::from(io::ErrorKind::NotFound);
        self.read()?
            .ok_or_else(|| self.failed("read", cure)(vanished()))
    }

    /// The file of the key that is about to take this one's place.
    #[must_use]
    pub fn next(&self) -> Self {
        Self(self.0.with_extension("next.key"))
    }

    /// The key, or the next one, whichever has this public half.
    pub(crate) fn with_public(&self, public: &PublicKey) -> Result<PrivateKey, KeyError> {
        for file in [self, &self.next()] {
            if let Some(key) = file.read()?.filter(|key| key.public() == *public) {
                return Ok(key);
            }
        }
        let cause = io::Error::new(io::ErrorKind::NotFound, format!("{public} is not its key"));
        let cure = "the next look at it says what it is now";
        Err(self.failed("read", cure)(cause))
    }

    /// Whether there is one, as far as can be seen without reading it.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.0).is_ok()
    }

    /// Has the next key take the place of this one, which is gone then; `None` where there is no next one.
    pub fn replace_by_next(&self) -> Result<Option<PrivateKey>, KeyError> {
        let next = self.next();
        let Some(key) = next.read()? else {
            return Ok(None);
        };
        // What is no key is somebody else's; what a link leads to is elsewhere.
        self.read()?;
        if fs::symlink_metadata(&self.0).is_ok_and(|there| !there.is_file()) {
            let cause = io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file");
            return Err(self.failed("replace", "move the next key there by hand")(
                cause,
            ));
        }
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        let replaced = fs::rename(&next.0, &self.0);
        let replaced = replaced.and_then(|()| fs::File::open(folder)?.sync_all());
        replaced.map_err(self.failed("replace", "see that the state folder can be written to"))?;
        Ok(Some(key))
    }

    /// Removes it, and what is left of one that was not finished. What is not a key stays.
    pub fn remove(&self) -> Result<(), KeyError> {
        self.clear_unfinished()?;
        let removed = files::remove(&self.0, &|bytes| bytes.len() == PublicKey::LENGTH);
        let failed = self.failed("remove", "remove it by hand");
        removed.map(drop).map_err(failed)
    }

    /// Removes what a writer has left that was killed before it was done; of one that still writes,
    /// nothing.
    pub fn clear_unfinished(&self) -> Result<(), KeyError> {
        let failed = self.failed(
            "look for what was left of a",
            "see that the state folder can be read",
        );
        self.unfinished().map_err(failed)
    }

    fn unfinished(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.folder()) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if !self.is_unfinished(&path) {
                continue;
            }
            match files::open(&path) {
                Ok(Some(file)) if is_left(&file)? => drop(files::remove(&path, &|_| true)?),
                Err(cause) if !files::is_in_the_way(&cause) => return Err(cause),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where one is written whose folder knows no files without a name: no one else's has this name.
    fn is_unfinished(&self, path: &Path) -> bool {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let number = extension.strip_prefix(UNFINISHED).unwrap_or_default();
        path.file_stem() == self.0.file_stem()
            && number.len() == 16
            && number.bytes().all(|digit| digit.is_ascii_hexdigit())
    }

    fn folder(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }

    /// Whole or not at all, and never in the place of another one.
    fn make(&self) -> io::Result<()> {
        let folder = self.folder();
        files::make_folder(folder)?;
        let mut bytes = [0; PublicKey::LENGTH];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let secret = StaticSecret::from(bytes);
        match Nameless::new_in(folder, 0o600)? {
            Some(file) => drop(file.put(secret.as_bytes(), &self.0)?),
            None => self.make_by_name(&secret)?,
        }
        fs::File::open(folder)?.sync_all()
    }

    /// The same where the file system has no files without a name.
    fn make_by_name(&self, secret: &StaticSecret) -> io::Result<()> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        let number = u64::from_ne_bytes(number);
        let unfinished = self.0.with_extension(format!("{UNFINISHED}{number:016x}"));
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(&unfinished)?;
        let written = self.write(file, &unfinished, secret);
        let removed = fs::remove_file(&unfinished);
        written.and(removed)
    }

    fn write(
        &self,
        mut file: fs::File,
        unfinished: &Path,
        secret: &StaticSecret,
    ) -> io::Result<()> {
        // Who tidies up sees that somebody is at it.
        file.try_lock()?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(unfinished, &self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
            _ => Ok(()),
        }
    }

    fn failed(
        &self,
        operation: &'static str,
        cure: &'static str,
    ) -> impl FnOnce(io::Error) -> KeyError + use<> {
        let path = self.0.clone();
        move |cause| {
            let may_not = cause.kind() == io::ErrorKind::PermissionDenied;
            KeyError {
                operation,
                path,
                cause,
                cure: if may_not { "run it as root" } else { cure },
            }
        }
    }
}

/// Whether a file holds no more than a key, is this user's alone, and nobody writes to it.
fn is_left(file: &fs::File) -> io::Result<bool> {
    let there = file.metadata()?;
    let private = there.uid() == geteuid().as_raw() && there.mode().trailing_zeros() >= 6;
    if !private || there.len() > PublicKey::LENGTH as u64 {
        return Ok(false);
    }
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

#[cfg(test)]
mod tests;
