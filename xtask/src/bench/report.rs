//! The results for people: a table, charts and a page.

mod chart;
pub(crate) mod figure;
mod html;
pub(crate) mod markdown;
mod svg;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    metric::Group,
    results::{self, Document, Results},
};

pub(crate) use table::table;

/// Writes everything; returns the page and the results.
pub(crate) fn write(
    out: &Path,
    context: &results::Context,
    results: &Results,
) -> Result<[PathBuf; 2]> {
    let json = out.join("results.json");
    Document::new(context, results).write(&json)?;
    for group in Group::ALL {
        if let Some(drawing) = chart::of_group(group, results) {
            save(
                &out.join(format!("{}.svg", group.name())),
                &drawing.standalone(group.title()),
            )?;
        }
    }
    let page = out.join("index.html");
    save(&page, &html::page(context, results))?;
    Ok([page, json])
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
