//! Files that the agent writes for itself and others.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use overlay_api::files::Whole;
use overlay_cluster::fragment;
use tempfile::NamedTempFile;

/// Replaces the file of what a cluster's store has told, in one step, so that nobody reads half of it
/// and a crash leaves one or the other.
pub(super) fn replace_told(path: &Path, text: &str) -> io::Result<()> {
    let whole = Whole {
        path,
        text: text.as_bytes(),
        mode: 0o600,
        modified: None,
        durable: true,
    };
    whole.replace(&fragment::is_ours)
}

/// A new file beside the place that it is to take, where others have files, too.
pub(super) fn beside(path: &Path, text: &str, mode: u32) -> io::Result<NamedTempFile> {
    let folder = overlay_core::config::folder_of(path);
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    fill(file.as_file_mut(), text, mode)?;
    Ok(file)
}

fn fill(file: &mut File, text: &str, mode: u32) -> io::Result<()> {
    // Whatever the mask of the process takes away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
