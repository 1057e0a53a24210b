//! The document knows every check, and no other.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;

#[test]
fn every_check_is_explained() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doctor.md");
    let text = fs::read_to_string(path)?;
    // The rows of the tables of checks begin with a name in backquotes.
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    let explained: BTreeSet<&str> = names.filter(|name| !name.starts_with('-')).collect();
    let checks: BTreeSet<&str> = overlay_agent::doctor::names().into_iter().collect();
    assert_eq!(explained, checks);
    Ok(())
}
