//! The document knows every check, and no other; and each is made to find something.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use overlay_insight::doctor::names;

#[test]
fn every_check_is_explained() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doctor.md");
    let text = fs::read_to_string(path)?;
    // The rows of the tables of checks begin with a name in backquotes.
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained = rows.filter_map(|row| row.split('`').next());
    let explained: BTreeSet<&str> = explained.filter(|name| !name.starts_with('-')).collect();
    let checks: BTreeSet<&str> = names().into_iter().collect();
    assert_eq!(explained, checks);
    Ok(())
}

#[test]
fn every_check_has_a_fault_that_is_made() -> Result<()> {
    // The faults of some checks are made where their subject is tested.
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut made = String::new();
    for part in [
        "doctor",
        "fragments.rs",
        "cluster",
        "encryption",
        "hooks",
        "machines",
        "names.rs",
        "probe",
        "services",
        "ways_round",
        "strangers",
    ] {
        read_all(&tests.join(part), &mut made)?;
    }
    let missing = |name: &&str| !made.contains(&format!("\"{name}\""));
    let missing: Vec<&str> = names().into_iter().filter(missing).collect();
    assert_eq!(missing, Vec::<&str>::new());
    Ok(())
}

/// The text of a file, or of all files in a folder.
fn read_all(path: &Path, text: &mut String) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            read_all(&entry?.path(), text)?;
        }
    } else {
        *text += &fs::read_to_string(path)?;
    }
    Ok(())
}
