//! Which step brings the chain nearer, given what is there.

use std::fmt;

use crate::toolchain::{Chain, Compiler, Linker};

/// What the decision rests on.
pub(super) struct Facts {
    /// The user has named the compiler; then there is no choice of another.
    pub(super) overridden: bool,
    /// In the order of preference.
    pub(super) compilers: Vec<Compiler>,
    /// In the order of preference.
    pub(super) linkers: Vec<Linker>,
    /// Debian has a compiler that is new enough, with its library's source.
    pub(super) debian: bool,
    /// Major versions of LLVM that a linker can be built with.
    pub(super) llvms: Vec<u32>,
    /// What rustup has.
    pub(super) rustup: Rustup,
    /// Steps that were taken already; none is taken twice.
    pub(super) taken: Vec<Step>,
}

/// How far rustup has a nightly toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rustup {
    /// There is no rustup.
    Absent,
    /// There is, without a nightly.
    NoNightly,
    /// There is a nightly.
    Nightly,
}

/// Something that adds to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Build a bpf-linker with this major version of LLVM.
    BuildLinker { llvm: u32 },
    /// Unpack Debian's compiler into the private prefix.
    UnpackDebian,
    /// Add rust-src to rustup's nightly.
    AddSource,
    /// Add a nightly with rust-src to rustup.
    InstallNightly,
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
    /// What is there comes first, then what touches nothing of the user's, and
    /// last an addition to the user's rustup.
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
        let compiler = if self.overridden {
            None
        } else {
            let debian = self.debian.then_some(Step::UnpackDebian);
            let rustup = match self.rustup {
                Rustup::Absent => None,
                Rustup::NoNightly => Some(Step::InstallNightly),
                Rustup::Nightly => Some(Step::AddSource),
            };
            Some(debian.into_iter().chain(rustup))
        };
        linker
            .chain(compiler.into_iter().flatten())
            .find(|step| !self.taken.contains(step))
            .map_or(Next::Stuck, Next::Take)
    }
}

impl Step {
    /// The part of the chain that it provides.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::BuildLinker { .. } => "linker",
            Self::UnpackDebian | Self::AddSource | Self::InstallNightly => "compiler",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuildLinker { llvm } => write!(f, "build bpf-linker with LLVM {llvm}"),
            Self::UnpackDebian => f.write_str("unpack Debian's rustc-web"),
            Self::AddSource => f.write_str("add rust-src to rustup's nightly"),
            Self::InstallNightly => f.write_str("install a nightly by rustup"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::toolchain::{OLDEST_LINKER, OLDEST_RUSTC};

    fn nothing() -> Facts {
        Facts {
            overridden: false,
            compilers: Vec::new(),
            linkers: Vec::new(),
            debian: false,
            llvms: Vec::new(),
            rustup: Rustup::Absent,
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
            compilers: vec![compiler("nightly", 22)],
            linkers: vec![linker(22)],
            debian: true,
            rustup: Rustup::Nightly,
            ..nothing()
        };
        let chain = Chain {
            compiler: compiler("nightly", 22),
            linker: linker(22),
        };
        assert_eq!(facts.next(), Next::Ready(chain));
    }

    #[test]
    fn a_nightly_with_source_only_needs_a_linker() {
        let facts = Facts {
            compilers: vec![compiler("nightly", 22)],
            debian: true,
            llvms: vec![22],
            rustup: Rustup::Nightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::BuildLinker { llvm: 22 }));
    }

    #[test]
    fn debian_comes_before_a_change_of_the_users_rustup() {
        let without_source = Compiler {
            source: false,
            ..compiler("nightly", 22)
        };
        let facts = Facts {
            compilers: vec![without_source],
            debian: true,
            llvms: vec![22],
            rustup: Rustup::Nightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::UnpackDebian));
    }

    #[test]
    fn debian_helps_a_nightly_that_no_linker_can_be_built_for() {
        let facts = Facts {
            compilers: vec![compiler("nightly", 23)],
            linkers: vec![linker(22)],
            debian: true,
            rustup: Rustup::Nightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::UnpackDebian));
    }

    #[test]
    fn without_debian_rustup_is_asked() {
        let facts = Facts {
            rustup: Rustup::NoNightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::InstallNightly));
        let facts = Facts {
            rustup: Rustup::Nightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::AddSource));
    }

    #[test]
    fn a_step_is_not_taken_twice() {
        let facts = Facts {
            debian: true,
            rustup: Rustup::Nightly,
            taken: vec![Step::UnpackDebian],
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Take(Step::AddSource));
        let facts = Facts {
            taken: vec![Step::UnpackDebian, Step::AddSource],
            ..facts
        };
        assert_eq!(facts.next(), Next::Stuck);
    }

    #[test]
    fn the_users_own_choice_is_not_replaced() {
        let facts = Facts {
            overridden: true,
            debian: true,
            rustup: Rustup::NoNightly,
            ..nothing()
        };
        assert_eq!(facts.next(), Next::Stuck);
    }
}
