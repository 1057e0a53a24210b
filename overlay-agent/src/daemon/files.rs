//! Files that the agent writes for itself and others.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::NamedTempFile;

/// Replaces a file of the agent's own in one step, so that nobody reads half of it and a crash leaves
/// one or the other.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = overlay_core::config::folder_of(path);
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)?;
    fill(&mut file, text, mode)?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
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
