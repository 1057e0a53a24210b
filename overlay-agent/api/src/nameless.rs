//! A file that has no name until it is whole: of who is killed before, nothing is left.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _, unix::fs::PermissionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    libc::O_TMPFILE,
    unistd::linkat,
};

/// A file that is being written (`O_TMPFILE`, open(2)).
#[derive(Debug)]
pub struct Nameless(fs::File);

impl Nameless {
    /// A new one for a folder, with these rights whatever the mask of the process takes away; `None`
    /// where the folder's file system has none, as NFS.
    ///
    /// # Errors
    /// When the folder is not there, or cannot be written to.
    pub fn new_in(folder: &Path, mode: u32) -> io::Result<Option<Self>> {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).mode(mode).custom_flags(O_TMPFILE);
        match options.open(folder) {
            Ok(file) => {
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                Ok(Some(Self(file)))
            }
            // A kernel or file system that does not know it opens a folder for writing.
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Gives it its content and then its name, on the disk; whether it got it: what has the name
    /// already stays.
    ///
    /// # Errors
    /// When it cannot be written or named.
    pub fn put(self, content: &[u8], path: &Path) -> io::Result<bool> {
        io::Write::write_all(&mut &self.0, content)?;
        self.0.sync_all()?;
        // Without a capability, only its place in /proc names it.
        let of = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        match linkat(AT_FDCWD, of.as_str(), AT_FDCWD, path, follow) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::Nameless;

    #[test]
    fn it_is_there_whole_or_not_at_all_and_takes_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let new = || Nameless::new_in(folder.path(), 0o640).unwrap().unwrap();
        let file = new();
        assert_eq!(names(), 0);
        drop(file);
        assert_eq!(names(), 0, "nothing is left of one that is given up");
        assert!(new().put(b"mine", &path).unwrap());
        let rights = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(rights, 0o640);
        assert!(!new().put(b"another", &path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(names(), 1);
        let nowhere = folder.path().join("nowhere");
        Nameless::new_in(&nowhere, 0o600).unwrap_err();
    }
}
