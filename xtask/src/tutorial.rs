//! `cargo xtask tutorial`: the drawings of `docs/tutorial`, and all of it as one page.

mod page;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use overlay_tests::drawing;

use crate::{console::Console, workspace};

/// Writes the drawing of each step beside its page, and the page for a browser to the target
/// folder.
///
/// # Errors
/// When a page cannot be read, or a file not be written.
pub(crate) fn run(console: Console) -> Result<()> {
    let folder = workspace::root().join("docs/tutorial");
    let read = |name: &str| {
        let file = folder.join(format!("{name}.md"));
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let mut steps = vec![("README", read("README")?, String::new())];
    for step in drawing::STEPS {
        let drawn = drawing::of(step).with_context(|| format!("draw {step}"))?;
        write(&folder.join(format!("{step}.svg")), &drawn)?;
        steps.push((step, read(step)?, drawn));
    }
    let parts: Vec<page::Part<'_>> = steps
        .iter()
        .map(|(name, text, drawing)| page::Part {
            name,
            text,
            drawing,
        })
        .collect();
    let whole = workspace::target()?.join("tutorial.html");
    write(&whole, &page::whole(&parts))?;
    console.say("tutorial", whole.display());
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
