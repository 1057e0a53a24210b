//! Which step brings the chain nearer, given what is there.

use std::fmt;

use crate::toolchain::{Chain, Compiler, DISTRIBUTION, Linker, is_directory_toolchain};

/// What the decision rests on.
pub(super) struct Facts {
    /// The user has named the compiler; then there is no choice of another.
    pub(super) overridden: bool,
    /// In the order of preference.
    pub(super) compilers: Vec<Compiler>,
    /// In the order of preference.
    pub(super) linkers: Vec<Linker>,
    /// Debian's package with the source for its compiler, which is installed without it.
    pub(super) source: Option<&'static str>,
    /// Major version of LLVM of a compiler that Debian offers with its library's source.
    pub(super) debian: Option<u32>,
    /// Major versions of LLVM that a linker can be built with.
    pub(super) llvms: Vec<u32>,
    /// Steps that were taken already; none is taken twice.
    pub(super) taken: Vec<Step>,
}

/// Something that adds to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Build a bpf-linker with this major version of LLVM.
    BuildLinker { llvm: u32 },
    /// Install the source for Debian's compiler beside it.
    InstallSource { package: &'static str },
    /// Unpack Debian's compiler into the private prefix.
    UnpackDebian,
    /// Add rust-src to a toolchain of rustup's.
    AddSource { toolchain: String },
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the chain is complete.
    Ready(Chain),
    /// This, and then ask again.
    Take(Step),
    /// Nothing that this program could do is left.
    Stuck,
}

impl Facts {
    /// What is there comes first, then what touches nothing of the user's, and last a
    /// component for a toolchain that rustup has already. No compiler is completed that no
    /// linker could follow.
    pub(super) fn next(&self) -> Next {
        if let Some(chain) = Chain::choose(&self.compilers, &self.linkers) {
            return Next::Ready(chain);
        }
        let linker = self
            .compilers
            .iter()
            .filter(|compiler| compiler.is_usable() && self.llvms.contains(&compiler.llvm))
            .map(|compiler| Step::BuildLinker {
                llvm: compiler.llvm,
            });
        linker
            .chain(self.for_a_compiler())
            .find(|step| !self.taken.contains(step))
            .map_or(Next::Stuck, Next::Take)
    }

    fn for_a_compiler(&self) -> Vec<Step> {
        if self.overridden {
            return Vec::new();
        }
        let lacks_source = |compiler: &&Compiler| {
            !compiler.source && compiler.is_new_enough() && self.can_be_linked(compiler.llvm)
        };
        let installed = self
            .compilers
            .iter()
            .filter(lacks_source)
            .find(|compiler| compiler.toolchain == DISTRIBUTION)
            .and(self.source)
            .map(|package| Step::InstallSource { package });
        let debian = self
            .debian
            .filter(|llvm| self.can_be_linked(*llvm))
            .map(|_| Step::UnpackDebian);
        let rustup = self
            .compilers
            .iter()
            .filter(lacks_source)
            .filter(|compiler| !is_directory_toolchain(&compiler.toolchain))
            .map(|compiler| Step::AddSource {
                toolchain: compiler.toolchain.clone(),
            });
        installed.into_iter().chain(debian).chain(rustup).collect()
    }

    /// Whether there is a linker for what an LLVM emits, or could be one.
    fn can_be_linked(&self, llvm: u32) -> bool {
        self.llvms.contains(&llvm) || self.linkers.iter().any(|linker| linker.reads(llvm))
    }
}

impl Step {
    /// The part of the chain that it provides.
    pub(super) fn subject(&self) -> &'static str {
        match self {
            Self::BuildLinker { .. } => "linker",
            Self::InstallSource { .. } | Self::UnpackDebian | Self::AddSource { .. } => "compiler",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuildLinker { llvm } => write!(f, "build bpf-linker with LLVM {llvm}"),
            Self::InstallSource { package } => write!(f, "install {package}"),
            Self::UnpackDebian => f.write_str("unpack Debian's compiler"),
            Self::AddSource { toolchain } => write!(f, "add rust-src to rustup's {toolchain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::toolchain::{OLDEST_LINKER, OLDEST_RUSTC, Version};

    fn nothing() -> Facts {
        Facts {
            overridden: false,
            compilers: Vec::new(),
            linkers: Vec::new(),
            source: None,
            debian: None,
            llvms: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn compiler(toolchain: &str, llvm: u32) -> Compiler {
        Compiler {
            toolchain: toolchain.to_owned(),
            release: OLDEST_RUSTC,
            nightly: toolchain == "nightly",
            llvm,
            source: true,
        }
    }

    fn without_source(toolchain: &str, llvm: u32) -> Compiler {
        Compiler {
            source: false,
            ..compiler(toolchain, llvm)
        }
    }

    fn add_source(toolchain: &str) -> Next {
        Next::Take(Step::AddSource {
            toolchain: toolchain.to_owned(),
        })
    }

    fn linker(llvm: u32) -> Linker {
        Linker {
            path: PathBuf::from("/bin/bpf-linker"),
            release: OLDEST_LINKER,
            llvm: Some(llvm),
        }
    }

    #[test]
    fn a_complete_chain_is_left_alone() {
        let facts = Facts {
            compilers: vec![compiler("stable", 22)],
            linkers: vec![linker(22)],
            debian: Some(22),
            ..nothing()
        };
        let chain = Chain {
            compiler: compiler("stable", 22),
            linker: linker(22),
        };
        assert_eq!(facts.next(), Next::Ready(chain));
    }

    #[test]
    fn a_compiler_with_source_only_needs_a_linker() {
        let facts = Facts {
            compilers: vec![compiler("stable", 22)],
            debian: Some(22),
            llvms: vec![22],
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::BuildLinker { llvm: 22 }));
    }

    #[test]
    fn the_source_for_an_installed_compiler_comes_before_another_compiler() {
        let facts = Facts {
            compilers: vec![without_source("/usr", 22)],
            source: Some("rust-web-src"),
            debian: Some(22),
            llvms: vec![22],
            ..nothing()
        };
        let install = Step::InstallSource {
            package: "rust-web-src",
        };
        assert_eq!(facts.next(), Next::Take(install));
    }

    #[test]
    fn the_source_for_an_old_compiler_is_not_installed() {
        let old = Compiler {
            release: Version(1, 85, 0),
            ..without_source("/usr", 19)
        };
        let facts = Facts {
            compilers: vec![old],
            source: Some("rust-src"),
            debian: Some(22),
            llvms: vec![19, 22],
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::UnpackDebian));
    }

    #[test]
    fn debian_comes_before_a_change_of_the_users_rustup() {
        let facts = Facts {
            compilers: vec![without_source("stable", 22)],
            debian: Some(22),
            llvms: vec![22],
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::UnpackDebian));
    }

    #[test]
    fn debian_helps_a_compiler_that_no_linker_can_be_built_for() {
        let facts = Facts {
            compilers: vec![compiler("nightly", 23)],
            linkers: vec![linker(22)],
            debian: Some(22),
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::UnpackDebian));
    }

    #[test]
    fn without_debian_rustup_is_asked_for_the_source() {
        let facts = Facts {
            compilers: vec![without_source("stable", 22), without_source("nightly", 22)],
            llvms: vec![22],
            ..nothing()
        };
        assert_eq!(facts.next(), add_source("stable"));
    }

    #[test]
    fn no_way_is_begun_that_no_linker_could_end() {
        let facts = Facts {
            compilers: vec![without_source("nightly", 23), without_source("stable", 22)],
            debian: Some(23),
            llvms: vec![22],
            ..nothing()
        };
        assert_eq!(facts.next(), add_source("stable"));
        let facts = Facts {
            llvms: Vec::new(),
            ..facts
        };
        assert_eq!(facts.next(), Next::Stuck);
    }

    #[test]
    fn a_step_is_not_taken_twice() {
        let facts = Facts {
            compilers: vec![without_source("stable", 22)],
            debian: Some(22),
            llvms: vec![22],
            taken: vec![Step::UnpackDebian],
            ..nothing()
        };
        assert_eq!(facts.next(), add_source("stable"));
        let taken = Step::AddSource {
            toolchain: "stable".to_owned(),
        };
        let facts = Facts {
            taken: vec![Step::UnpackDebian, taken],
            ..facts
        };
        assert_eq!(facts.next(), Next::Stuck);
    }

    #[test]
    fn the_users_own_choice_is_not_replaced() {
        let facts = Facts {
            overridden: true,
            compilers: vec![without_source("stable", 22)],
            debian: Some(22),
            llvms: vec![22],
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Stuck);
    }
}
