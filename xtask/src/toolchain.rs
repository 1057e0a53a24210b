//! Finds the eBPF build chain: a compiler that has the source of `core`, and a
//! bpf-linker that understands the compiler's output.
//!
//! Two programs share this file: `cargo xtask setup`, which completes the
//! chain, and the agent's build script, which uses it. Both must come to the
//! same answer, so it stands alone (std only) and never installs anything.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names the compiler to use, before all others: a rustup toolchain, or the
/// absolute path of a directory that has `bin/rustc` and `bin/cargo`.
pub(crate) const OVERRIDE: &str = "OVERLAY_EBPF_TOOLCHAIN";

/// The workspace's `rust-version`.
pub(crate) const OLDEST_RUSTC: Version = Version(1, 95, 0);

/// Older ones panic on what rustc 1.96 puts into a module's debug information.
pub(crate) const OLDEST_LINKER: Version = Version(0, 13, 0);

/// The toolchains of rustup that come into question, in the order of preference.
const RUSTUP: &[&str] = &["stable", "nightly"];

/// Where a distribution's own compiler is.
pub(crate) const DISTRIBUTION: &str = "/usr";

/// A program's version; suffixes such as `-nightly` are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Reads `1.97.0-nightly`, `22.1.8` or `1.96.0+dfsg1-1~deb12u2`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        Some(Self(numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A Rust compiler that could build the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// As `rustup run` takes it: a toolchain's name, or a directory's absolute path.
    pub(crate) toolchain: String,
    /// Version of rustc.
    pub(crate) release: Version,
    /// Whether unstable options are allowed without `RUSTC_BOOTSTRAP`.
    pub(crate) nightly: bool,
    /// Major version of the LLVM that it emits bitcode with.
    pub(crate) llvm: u32,
    /// Whether the source of `core` is there, which `-Zbuild-std` compiles.
    pub(crate) source: bool,
}

impl Compiler {
    /// Whether only a linker is missing.
    pub(crate) fn is_usable(&self) -> bool {
        self.source && self.is_new_enough()
    }

    /// Whether it is one that the workspace can be built with.
    pub(crate) fn is_new_enough(&self) -> bool {
        self.release >= OLDEST_RUSTC
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {} (LLVM {}) of {}",
            self.release, self.llvm, self.toolchain
        )
    }
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// The executable.
    pub(crate) path: PathBuf,
    /// Version of bpf-linker.
    pub(crate) release: Version,
    /// Major version of the libLLVM that it loads; `None` when LLVM is linked
    /// into it, as in the project's own binaries, which carry a new one.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    /// Whether it can link what `compiler` emits: LLVM reads the bitcode of its
    /// own and of earlier versions.
    pub(crate) fn fits(&self, compiler: &Compiler) -> bool {
        self.reads(compiler.llvm)
    }

    /// Whether it can link what an LLVM of this major version emits.
    pub(crate) fn reads(&self, llvm: u32) -> bool {
        self.release >= OLDEST_LINKER && self.llvm.is_none_or(|own| own >= llvm)
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {}", self.release)?;
        if let Some(llvm) = self.llvm {
            write!(f, " (LLVM {llvm})")?;
        }
        write!(f, " at {}", self.path.display())
    }
}

/// A compiler and a linker for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Compiles the programs.
    pub(crate) compiler: Compiler,
    /// Links them.
    pub(crate) linker: Linker,
}

impl Chain {
    /// The first usable compiler that has a fitting linker; of these the first.
    pub(crate) fn choose(compilers: &[Compiler], linkers: &[Linker]) -> Option<Self> {
        compilers
            .iter()
            .filter(|compiler| compiler.is_usable())
            .find_map(|compiler| {
                let linker = linkers.iter().find(|linker| linker.fits(compiler))?;
                Some(Self {
                    compiler: compiler.clone(),
                    linker: linker.clone(),
                })
            })
    }

    /// What a process needs in its environment so that the `cargo` and `rustc`
    /// that it starts, through rustup or from `PATH`, are this chain's.
    ///
    /// # Errors
    /// When a directory's name cannot stand in `PATH`.
    pub(crate) fn environment(&self) -> io::Result<Vec<(&'static str, OsString)>> {
        let mut path = Vec::new();
        if is_directory_toolchain(&self.compiler.toolchain) {
            path.push(Path::new(&self.compiler.toolchain).join("bin"));
        }
        path.extend(self.linker.path.parent().map(Path::to_path_buf));
        path.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
        let path = env::join_paths(path).map_err(io::Error::other)?;

        let mut environment = vec![("PATH", path)];
        if !self.compiler.nightly {
            environment.push(("RUSTC_BOOTSTRAP", OsString::from("1")));
        }
        Ok(environment)
    }
}

/// The chain to build with.
///
/// # Errors
/// What is missing, as the beginning of a sentence.
pub(crate) fn find() -> Result<Chain, String> {
    let compilers = compilers();
    Chain::choose(&compilers, &linkers())
        .ok_or_else(|| what_is_missing(&compilers, overridden().as_deref()))
}

fn what_is_missing(compilers: &[Compiler], overridden: Option<&str>) -> String {
    if let Some(compiler) = compilers.iter().find(|compiler| compiler.is_usable()) {
        return format!("there is no bpf-linker {OLDEST_LINKER} or later for {compiler}");
    }
    let compiler = format!("rustc {OLDEST_RUSTC} or later with the source of core (rust-src)");
    match overridden {
        Some(name) => format!("{OVERRIDE} names {name}, which is not a {compiler}"),
        None => format!("there is no {compiler}"),
    }
}

/// The toolchain that the user has named.
pub(crate) fn overridden() -> Option<String> {
    env::var(OVERRIDE).ok().filter(|name| !name.is_empty())
}

/// Every compiler that comes into question, in the order of preference.
pub(crate) fn compilers() -> Vec<Compiler> {
    if let Some(toolchain) = overridden() {
        return probe_compiler(&toolchain).into_iter().collect();
    }
    let rustup = on_path("rustup").map(|_| RUSTUP).unwrap_or_default();
    let toolchains = rustup.iter().filter_map(|name| probe_compiler(name));
    let distribution = probe_compiler(DISTRIBUTION);
    let private = private_compiler()
        .as_deref()
        .and_then(Path::to_str)
        .and_then(probe_compiler);
    toolchains.chain(distribution).chain(private).collect()
}

/// Every bpf-linker that comes into question, in the order of preference.
pub(crate) fn linkers() -> Vec<Linker> {
    let private = private_linker().map(|prefix| prefix.join("bin/bpf-linker"));
    on_path("bpf-linker")
        .into_iter()
        .chain(private)
        .filter_map(|path| probe_linker(&path))
        .collect()
}

/// Where setup unpacks Debian's compiler.
pub(crate) fn private_compiler() -> Option<PathBuf> {
    Some(cache("toolchain")?.join("rust"))
}

/// Where setup installs a bpf-linker.
pub(crate) fn private_linker() -> Option<PathBuf> {
    Some(cache("toolchain")?.join("bpf-linker"))
}

/// `$XDG_CACHE_HOME/overlay/<name>`; `None` when the user has no home either.
pub(crate) fn cache(name: &str) -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("overlay").join(name))
}

/// The compiler of `toolchain`; `None` when there is none that runs.
pub(crate) fn probe_compiler(toolchain: &str) -> Option<Compiler> {
    if is_directory_toolchain(toolchain) && !Path::new(toolchain).join("bin/cargo").exists() {
        return None;
    }
    let about = output(program(toolchain, "rustc").arg("-vV"))?;
    let sysroot = output(program(toolchain, "rustc").args(["--print", "sysroot"]))?;
    let release = field(&about, "release")?;
    Some(Compiler {
        toolchain: toolchain.to_owned(),
        release: Version::parse(release)?,
        nightly: release.ends_with("-nightly") || release.ends_with("-dev"),
        llvm: Version::parse(field(&about, "LLVM version")?)?.0,
        source: Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists(),
    })
}

/// A program of a toolchain, about to be run.
pub(crate) fn program(toolchain: &str, name: &str) -> Command {
    if is_directory_toolchain(toolchain) {
        return Command::new(Path::new(toolchain).join("bin").join(name));
    }
    let mut command = Command::new("rustup");
    // A question must not make rustup download a toolchain.
    command
        .args(["run", toolchain, name])
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

fn probe_linker(path: &Path) -> Option<Linker> {
    let about = output(Command::new(path).arg("--version"))?;
    // This is what ldd does. A static executable prints its version instead.
    let libraries = output(
        Command::new(path)
            .arg("--version")
            .env("LD_TRACE_LOADED_OBJECTS", "1"),
    )?;
    Some(Linker {
        path: path.to_owned(),
        release: Version::parse(about.trim().strip_prefix("bpf-linker ")?)?,
        llvm: loaded_llvm(&libraries),
    })
}

/// Whether rustup would take `toolchain` as a directory, not as a name.
pub(crate) fn is_directory_toolchain(toolchain: &str) -> bool {
    Path::new(toolchain).is_absolute()
}

/// The value of `name: value` in the output of `rustc -vV`.
fn field<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    about
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Major version of libLLVM in the dynamic linker's list of libraries, where it
/// is called `libLLVM.so.22.1`, or `libLLVM-22.so` by some distributions.
fn loaded_llvm(libraries: &str) -> Option<u32> {
    let name = libraries
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libLLVM"))?;
    let version = name
        .trim_start_matches(".so")
        .trim_start_matches(['.', '-']);
    version.split('.').next()?.parse().ok()
}

/// The first executable of that name in `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The output of a command that can be started and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then_some(())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
#[path = "toolchain/tests.rs"]
mod tests;
