//! Builds the eBPF programs into `OUT_DIR/overlay`, and once more to be watched into
//! `OUT_DIR/watched`; the agent embeds both.
//!
//! Every process that aya-build starts must find the chain's programs, so this
//! script runs itself a second time in the environment that they need; to
//! change its own would take unsafe code.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

#[path = "../../xtask/src/toolchain.rs"]
mod toolchain;

/// The crate of the eBPF programs, and the name of its folder beside this one.
const PACKAGE: &str = "overlay-ebpf";

fn main() -> ExitCode {
    if let Some(toolchain) = env::args().nth(1) {
        return build_in_chain(&toolchain).map_or_else(
            |error| {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    if let Err(error) = build() {
        // Cargo shows this as the one reason, where a failing exit code would
        // make it print everything that the script has said.
        println!("cargo::error={error:#}");
    }
    ExitCode::SUCCESS
}

/// Finds the chain and runs this script again in its environment.
fn build() -> Result<()> {
    for name in [toolchain::OVERRIDE, "XDG_CACHE_HOME", "HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["../../overlay-common", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }

    let chain = toolchain::find().map_err(|missing| {
        anyhow!("{missing}, so the eBPF programs cannot be built: run `cargo xtask setup`")
    })?;
    println!("cargo::rerun-if-changed={}", chain.linker.path.display());

    let this = env::current_exe().context("find this build script")?;
    let output = Command::new(&this)
        .arg(&chain.compiler.toolchain)
        .envs(
            chain
                .environment()
                .context("put the eBPF build chain into PATH")?,
        )
        .env("CARGO_BUILD_BUILD_DIR", shared_folder()?)
        .output()
        .with_context(|| format!("run {} again", this.display()))?;

    let directives = String::from_utf8_lossy(&output.stdout);
    for line in directives.lines().filter(|line| !is_noise(line)) {
        println!("{line}");
    }
    ensure!(
        output.status.success(),
        "build {PACKAGE} with {}: {}",
        chain.compiler,
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    Ok(())
}

/// Where what the programs are built from is kept: `core` above all, which takes longer than
/// everything else, and is the same for every profile and selection of packages.
fn shared_folder() -> Result<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("not run by cargo")?);
    // TARGET/PROFILE/build/PACKAGE/out
    let target = out.ancestors().nth(4);
    Ok(target
        .context("OUT_DIR is not where cargo puts it")?
        .join("ebpf"))
}

/// Builds the programs with a toolchain that the environment makes available.
fn build_in_chain(toolchain: &str) -> Result<()> {
    let agent = env::var_os("CARGO_MANIFEST_DIR").context("not run by cargo")?;
    let package = Path::new(&agent).with_file_name(PACKAGE);
    let package = package
        .to_str()
        .context("the checkout's path is not UTF-8")?;
    let build = |features| {
        let package = Package {
            name: PACKAGE,
            root_dir: package,
            features,
            ..Package::default()
        };
        aya_build::build_ebpf([package], Toolchain::Custom(toolchain))
    };
    // Both come out under the one name of the binary.
    let out = PathBuf::from(env::var_os("OUT_DIR").context("not run by cargo")?);
    build(&["watched"])?;
    fs::rename(out.join("overlay"), out.join("watched")).context("keep the watched programs")?;
    build(&[])?;
    ["overlay", "watched"]
        .into_iter()
        .try_for_each(|object| without_dwarf(&out.join(object)))
}

/// Takes out of an object what BTF has been made from: it is most of it, and no kernel reads it.
fn without_dwarf(path: &Path) -> Result<()> {
    let whole = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let rewritten = || -> object::build::Result<Vec<u8>> {
        let mut object = Builder::read(whole.as_slice())?;
        for section in &mut object.sections {
            let name = section.name.as_slice();
            section.delete = [b".debug_".as_slice(), b".rel.debug_"]
                .iter()
                .any(|dwarf| name.starts_with(dwarf));
        }
        object.delete_orphans();
        // LLVM has sections' and symbols' names in one table, and the writer has one for each.
        let names = object.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.data = SectionData::SectionString;
        let mut rest = Vec::new();
        object.write(&mut rest)?;
        Ok(rest)
    };
    let rest = rewritten().with_context(|| format!("take DWARF out of {}", path.display()))?;
    fs::write(path, rest).with_context(|| format!("write {}", path.display()))
}

/// Whether a line is what aya-build passes on as if it were a warning: the inner
/// cargo's progress (a verb that ends in column 12), an empty line, or the news
/// that there is no rustup.
fn is_noise(line: &str) -> bool {
    line.strip_prefix("cargo:warning=").is_some_and(|message| {
        let words = message.trim_start();
        let indent = message.len() - words.len();
        let verb = words.split(' ').next().unwrap_or_default();
        let is_progress = indent > 0 && indent + verb.len() == 12;
        is_progress || words.is_empty() || words.starts_with("which(rustup)")
    })
}
