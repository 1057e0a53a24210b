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
    /// What was tried and why it failed, without a cure.
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

    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        self.cure
    }
}

/// What the name of an unfinished key has in the place of its extension, before a number.
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
    /// What others may know of it.
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
        self.make().map_err(|cause| {
            let may_not = cause.kind() == io::ErrorKind::PermissionDenied;
            let cure = if may_not { "run it as root" } else { cure };
            self.failed("make", cure)(cause)
        })?;
        let vanished = || io::Error::from(io::ErrorKind::NotFound);
        self.read()?
            .ok_or_else(|| self.failed("read", cure)(vanished()))
    }

    /// The file of the key that is about to take this one's place.
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
        move |cause| KeyError {
            operation,
            path,
            cause,
            cure,
        }
    }
}

/// Whether a file holds no more than a key, is this user's alone, and nobody writes to it.
fn is_left(file: &fs::File) -> io::Result<bool> {
    let there = file.metadata()?;
    let private = there.uid() == geteuid().as_raw() && there.mode() & 0o077 == 0;
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
mod tests {
    use std::{
        fs,
        os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
        path::Path,
    };

    use super::{KeyFile, StaticSecret};

    fn private(path: &Path, content: &[u8]) -> fs::File {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        file
    }

    #[test]
    fn what_a_killed_writer_has_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let key = KeyFile::at(at("wireguard.key"));
        drop(private(&at("wireguard.new-0123456789abcdef"), &[7; 32]));
        drop(private(&at("wireguard.new-0123456789abcde0"), b"half"));
        let written = private(&at("wireguard.new-0123456789abcde1"), b"");
        written.lock().unwrap();
        let others = [
            "wireguard.new-0123",
            "wireguard.new-0123456789abcdeg",
            "w.new-0123456789abcdef",
        ];
        for name in others {
            drop(private(&at(name), b"theirs"));
        }
        drop(private(&at("wireguard.new-0123456789abcde2"), &[7; 33]));
        let public = at("wireguard.new-0123456789abcde3");
        drop(private(&public, b""));
        fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("/", at("wireguard.new-0123456789abcde4")).unwrap();
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let made = key.read_or_make().unwrap().public();
        let mut expected: Vec<std::ffi::OsString> = others.into_iter().map(Into::into).collect();
        expected.extend(
            ["1", "2", "3", "4"].map(|end| format!("wireguard.new-0123456789abcde{end}").into()),
        );
        expected.push("wireguard.key".into());
        expected.sort();
        assert_eq!(names(), expected);
        drop(written);
        key.clear_unfinished().unwrap();
        assert_eq!(names().len(), expected.len() - 1);
        assert_eq!(key.read_or_make().unwrap().public(), made);
    }

    #[test]
    fn without_files_without_a_name_it_is_made_once_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wireguard.key");
        let key = KeyFile::at(path.clone());
        key.make_by_name(&StaticSecret::from([1; 32])).unwrap();
        key.make_by_name(&StaticSecret::from([2; 32])).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [1; 32]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn it_is_made_once_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node").join("wireguard.key");
        let key = KeyFile::at(path.clone());
        assert!(key.read().unwrap().is_none());
        let made = key.read_or_make().unwrap();
        let again = key.read_or_make().unwrap();
        assert_eq!(made.public(), again.public());
        let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(rights(&path), 0o600);
        assert_eq!(rights(path.parent().unwrap()), 0o700);
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing unfinished is left");
        assert_eq!(format!("{made:?}"), "PrivateKey");
        key.remove().unwrap();
        key.remove().unwrap();
        assert_ne!(key.read_or_make().unwrap().public(), made.public());
    }

    #[test]
    fn the_next_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyFile::at(folder.path().join("wireguard.key"));
        let first = key.read_or_make().unwrap().public();
        assert!(key.replace_by_next().unwrap().is_none());
        let second = key.next().read_or_make().unwrap().public();
        assert!(first != second && key.next().is_there());
        for public in [first, second] {
            assert_eq!(key.with_public(&public).unwrap().public(), public);
        }
        assert_eq!(key.replace_by_next().unwrap().unwrap().public(), second);
        assert_eq!(key.read().unwrap().unwrap().public(), second);
        assert!(!key.next().is_there());
        let error = key.with_public(&first).unwrap_err().to_string();
        assert!(error.contains("is not its key"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_key_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wireguard.key");
        fs::write(&path, "short").unwrap();
        let error = KeyFile::at(path.clone()).read_or_make().unwrap_err();
        assert!(error.to_string().contains("32 bytes"), "{error}");
        // Nor does another key take its place.
        let next = KeyFile::at(path.clone()).next();
        next.read_or_make().unwrap();
        KeyFile::at(path.clone()).replace_by_next().unwrap_err();
        next.remove().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        KeyFile::at(path.clone()).remove().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        // A dangling link: a key is not made where it leads.
        let (link, elsewhere) = (folder.path().join("link"), folder.path().join("else"));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        KeyFile::at(link.clone()).read_or_make().unwrap_err();
        KeyFile::at(link.clone()).remove().unwrap();
        assert!(link.is_symlink() && !elsewhere.exists());
    }

    #[test]
    fn the_public_half_is_what_wg_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wireguard.key");
        let private: Vec<u8> = (1..=32).collect();
        fs::write(&path, private).unwrap();
        let key = KeyFile::at(path).read().unwrap().unwrap();
        // What "wg pubkey" makes of it.
        let expected = "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=";
        assert_eq!(key.public().to_string(), expected);
    }
}
