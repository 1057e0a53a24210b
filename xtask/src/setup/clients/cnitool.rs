//! `cnitool`, the client that libcni's makers publish beside it: no package has the program, but the
//! source of Debian's libcni does, and Debian has a Go compiler. Both are unpacked, and go again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{archive, folder};
use crate::{console::Console, setup::apt::Apt, vm::archive::Archive};

/// The release whose libcni speaks CNI 1.1.0.
const RELEASE: &[&str; 1] = &["forky"];
/// libcni's source package.
const SOURCE: &str = "golang-github-appc-cni";

/// Builds it once.
pub(super) fn ensure(console: Console, apt: Option<&Apt>) -> Result<PathBuf> {
    let clients = folder().context("find the user's cache: set HOME")?;
    let program = clients.join("cnitool");
    if program.is_file() {
        return Ok(program);
    }
    apt.context("there is no apt")?;
    fs::create_dir_all(&clients).with_context(|| format!("create {}", clients.display()))?;
    let work = clients.join("cnitool.trial");
    remove(&work)?;
    let archive = archive(console, RELEASE)?;
    let build = || build(console, &archive, &work);
    // Old lists name versions that the archive no longer has.
    build().or_else(|_| {
        archive.refresh()?;
        build()
    })?;
    // Whoever finds the program finds all of it.
    fs::rename(work.join("cnitool"), &program)
        .with_context(|| format!("create {}", program.display()))?;
    remove(&work)?;
    Ok(program)
}

fn build(console: Console, archive: &Archive, work: &Path) -> Result<()> {
    let (compiler, source) = (work.join("compiler"), work.join("source"));
    fs::create_dir_all(work).with_context(|| format!("create {}", work.display()))?;
    archive.unpack_with_dependencies(&["golang-go".to_owned()], &compiler)?;
    archive.unpack_source(SOURCE, &source)?;
    let mut go = Command::new(compiler.join("usr/bin/go"));
    go.args(["build", "-trimpath", "-o"])
        .arg(work.join("cnitool"))
        .arg("./cnitool")
        .current_dir(&source)
        // What the user has set for other programs is not meant for this one.
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", work)
        .env("CGO_ENABLED", "0")
        // It needs no other module, and is to fetch none.
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local");
    console.run("cnitool", "go build", &mut go)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}
