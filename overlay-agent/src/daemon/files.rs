//! Files that the agent writes for itself and others.

use std::{io, path::Path};

use overlay_api::files::Whole;
use overlay_cluster::fragment;

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
