//! Credentials for the members of a cluster's store. They are read for the helper, which may not.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use overlay_cluster::access::Access;
use overlay_core::{model::ClusterAccess, text_file};

/// No file of certificates is larger, in bytes: a whole system's are a quarter of it.
const LARGEST: u64 = 1 << 20;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}; {cure}", what(key, path, cause))]
pub(crate) struct AccessError {
    key: &'static str,
    path: PathBuf,
    cause: io::Error,
    /// The cure.
    pub(crate) cure: &'static str,
}

impl AccessError {
    /// The fault, without its cure.
    pub(crate) fn what(&self) -> String {
        what(self.key, &self.path, &self.cause)
    }
}

fn what(key: &str, path: &Path, cause: &io::Error) -> String {
    format!("read {key} {}: {cause}", path.display())
}

/// Reads all files.
pub(crate) fn read(files: &ClusterAccess) -> Result<Access, AccessError> {
    let text = |key: &'static str, path: &Path| {
        text(path).map_err(|cause| AccessError {
            key,
            path: path.to_owned(),
            cure: match cause.kind() {
                io::ErrorKind::NotFound => "make it, or correct the configuration",
                io::ErrorKind::PermissionDenied => "let it belong to root, or run this as root",
                _ => "replace it by one in PEM, or of one line with a password",
            },
            cause,
        })
    };
    let ca = files.ca.as_ref().map(|path| text("cluster.ca", path));
    let identity = files.identity.as_ref().map(|(certificate, key)| {
        Ok((
            text("cluster.cert", certificate)?,
            text("cluster.key", key)?,
        ))
    });
    let user = files.user.as_ref().map(|(name, path)| {
        let password = text("cluster.password_file", path)?;
        Ok((
            name.clone(),
            password.trim_end_matches(['\r', '\n']).to_owned(),
        ))
    });
    Ok(Access {
        ca: ca.transpose()?,
        identity: identity.transpose()?,
        user: user.transpose()?,
    })
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // Not the end of something that never ends.
    let length = text_file::open(path)?
        .take(LARGEST)
        .read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length >= LARGEST) {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}
