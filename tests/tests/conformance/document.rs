//! The table of `docs/conformance.md`, which is the table of this test.

use std::{fs, path::Path};

use overlay_tests::families::Families;

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What is wrong with the frame, or special.
    pub(crate) case: String,
    /// On which underlays.
    pub(crate) over: Families,
    /// What the kernel's VXLAN does with it.
    pub(crate) kernel: String,
    /// What overlay does with it.
    pub(crate) ours: String,
    /// The counter that moves.
    pub(crate) counter: String,
    /// Why the two differ, if they do.
    pub(crate) why: String,
}

/// All rows, in their order.
pub(crate) fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = fs::read_to_string(&path).unwrap();
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "no table in {}", path.display());
    rows
}

/// A line of six cells whose second one names an underlay.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line
        .trim()
        .strip_prefix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let [case, over, kernel, ours, counter, why, ""] = cells[..] else {
        return None;
    };
    let over = match over {
        "IPv4" => Families::V4,
        "IPv6" => Families::V6,
        "both" => Families::Both,
        _ => return None,
    };
    Some(Row {
        case: case.to_owned(),
        over,
        kernel: kernel.to_owned(),
        ours: ours.to_owned(),
        counter: counter.trim_matches('`').to_owned(),
        why: why.to_owned(),
    })
}
