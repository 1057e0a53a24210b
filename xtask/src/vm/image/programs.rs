//! Programs in the RAM disk, with the libraries that they are loaded with.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::FOLDERS;
use crate::vm::arch::Arch;

/// The program of that name below `root`.
pub(super) fn find(root: &Path, program: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| root.join(folder.trim_start_matches('/')).join(program))
        .find(|path| path.is_file())
}

/// Adds the libraries of another processor's programs, all of them: who is linked to which only
/// that processor's loader tells.
pub(super) fn add_libraries(root: &Path, programs: &Path, arch: Arch) -> Result<()> {
    let gnu = arch.target().gnu();
    let folders = [
        "lib".to_owned(),
        format!("lib/{gnu}"),
        format!("usr/lib/{gnu}"),
    ];
    for folder in folders {
        let from = programs.join(&folder);
        let list = || format!("list {}", from.display());
        for entry in fs::read_dir(&from).with_context(list)? {
            let path = entry.with_context(list)?.path();
            let name = path.file_name().unwrap_or_default();
            // A link's target is in the same folder, or in one of the others.
            if name.to_string_lossy().contains(".so") && path.is_file() {
                copy(&path, &root.join(&folder).join(name))?;
            }
        }
    }
    Ok(())
}

/// Adds a program under a name, and the libraries that it is loaded with under theirs.
pub(super) fn add_program(root: &Path, program: &Path, name: &Path) -> Result<()> {
    copy(program, &root.join(name))?;
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("run ldd")?;
    // It fails for what is static, which needs nothing.
    let text = String::from_utf8_lossy(&output.stdout);
    for library in libraries(&text) {
        let to = root.join(library.strip_prefix("/").unwrap_or(library));
        if !to.exists() {
            copy(library, &to)?;
        }
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries(text: &str) -> BTreeSet<&Path> {
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(Path::new)
        .collect()
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    // What stands there is a link of the shell's, which a copy would write through.
    if to.is_symlink() {
        fs::remove_file(to).with_context(|| format!("remove {}", to.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 \
                    (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert!(
            libraries(text)
                .into_iter()
                .eq(expected.iter().map(Path::new))
        );
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
