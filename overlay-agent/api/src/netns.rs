//! The container's network namespace.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::Namespace;

/// The namespace that a runtime names by a path.
///
/// # Errors
/// When there is nothing at the path.
pub fn look(path: &str) -> io::Result<Namespace> {
    let path = std::path::absolute(path)?;
    let found = fs::metadata(&path)?;
    Ok(Namespace {
        path,
        dev: found.dev(),
        inode: found.ino(),
    })
}

/// Whether it is the one that this process runs in.
pub fn is_own(namespace: &Namespace) -> bool {
    let own = fs::metadata(Path::new("/proc/self/ns/net"));
    own.is_ok_and(|own| own.dev() == namespace.dev && own.ino() == namespace.inode)
}
