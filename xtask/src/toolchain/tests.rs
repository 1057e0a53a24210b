use super::*;

fn compiler(toolchain: &str, llvm: u32) -> Compiler {
    Compiler {
        toolchain: toolchain.to_owned(),
        release: OLDEST_RUSTC,
        nightly: false,
        llvm,
        source: true,
    }
}

fn linker(llvm: Option<u32>) -> Linker {
    Linker {
        path: PathBuf::from("/somewhere/bin/bpf-linker"),
        release: OLDEST_LINKER,
        llvm,
    }
}

#[test]
fn versions_are_read_with_and_without_suffix() {
    assert_eq!(Version::parse("1.97.0-nightly"), Some(Version(1, 97, 0)));
    assert_eq!(Version::parse("22.1.8"), Some(Version(22, 1, 8)));
    assert_eq!(
        Version::parse("1.96.0+dfsg1-1~deb12u2"),
        Some(Version(1, 96, 0))
    );
    assert_eq!(Version::parse("1.96"), None);
    assert_eq!(Version::parse("nightly"), None);
}

#[test]
fn versions_compare_by_number() {
    assert!(Version(0, 13, 0) > Version(0, 9, 14));
    assert!(Version(1, 95, 0) < Version(1, 95, 1));
}

#[test]
fn the_preferred_compiler_wins() {
    let compilers = [compiler("nightly", 22), compiler("/usr", 22)];
    let chain = Chain::choose(&compilers, &[linker(Some(22))]).expect("both are usable");
    assert_eq!(chain.compiler.toolchain, "nightly");
}

#[test]
fn a_compiler_without_the_source_of_core_is_passed_over() {
    let compilers = [
        Compiler {
            source: false,
            ..compiler("nightly", 22)
        },
        compiler("/usr", 22),
    ];
    let chain = Chain::choose(&compilers, &[linker(Some(22))]).expect("the second is usable");
    assert_eq!(chain.compiler.toolchain, "/usr");
}

#[test]
fn a_compiler_that_is_too_old_is_passed_over() {
    let old = Compiler {
        release: Version(1, 85, 0),
        ..compiler("/usr", 19)
    };
    assert_eq!(Chain::choose(&[old], &[linker(None)]), None);
}

#[test]
fn a_compiler_newer_than_every_linker_is_passed_over() {
    let compilers = [compiler("nightly", 23), compiler("/usr", 22)];
    let chain = Chain::choose(&compilers, &[linker(Some(22))]).expect("the second is usable");
    assert_eq!(chain.compiler.toolchain, "/usr");
}

#[test]
fn a_linker_with_a_newer_or_a_built_in_llvm_fits() {
    for llvm in [Some(23), Some(22), None] {
        assert!(linker(llvm).fits(&compiler("nightly", 22)), "{llvm:?}");
    }
    assert!(!linker(Some(21)).fits(&compiler("nightly", 22)));
}

#[test]
fn an_old_linker_fits_nothing() {
    let old = Linker {
        release: Version(0, 10, 4),
        ..linker(None)
    };
    assert!(!old.fits(&compiler("nightly", 22)));
}

#[test]
fn the_answer_of_rustc_is_read_by_field() {
    let about = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
    assert_eq!(field(about, "release"), Some("1.96.0"));
    assert_eq!(field(about, "LLVM version"), Some("22.1.8"));
    assert_eq!(field(about, "host"), None);
}

#[test]
fn the_llvm_of_a_linker_is_the_library_that_it_loads() {
    let debian = "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x2)\n";
    assert_eq!(loaded_llvm(debian), Some(22));
    assert_eq!(
        loaded_llvm("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so (0x2)\n"),
        Some(19)
    );
    assert_eq!(loaded_llvm("bpf-linker 0.13.0\n"), None);
}

#[test]
fn a_chain_of_a_directory_comes_first_on_the_path_and_unlocks_unstable_options() {
    let chain = Chain {
        compiler: compiler("/opt/rust", 22),
        linker: linker(None),
    };
    let environment = chain.environment().expect("no colon in the names");
    let path = &environment
        .iter()
        .find(|(name, _)| *name == "PATH")
        .expect("always set")
        .1;
    let dirs: Vec<_> = env::split_paths(path).take(2).collect();
    assert_eq!(
        dirs,
        [Path::new("/opt/rust/bin"), Path::new("/somewhere/bin")]
    );
    assert!(environment.contains(&("RUSTC_BOOTSTRAP", OsString::from("1"))));
}

#[test]
fn a_nightly_needs_no_unlocking() {
    let nightly = Compiler {
        nightly: true,
        ..compiler("nightly", 22)
    };
    let environment = Chain {
        compiler: nightly,
        linker: linker(None),
    }
    .environment()
    .expect("plain names");
    assert!(
        environment
            .iter()
            .all(|(name, _)| *name != "RUSTC_BOOTSTRAP")
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        what_is_missing(&[], None),
        "there is no rustc 1.95.0 or later with the source of core (rust-src)",
    );
    assert_eq!(
        what_is_missing(&[], Some("beta")),
        "OVERLAY_EBPF_TOOLCHAIN names beta, which is not a rustc 1.95.0 or later with the source of core (rust-src)",
    );
    assert_eq!(
        what_is_missing(&[compiler("nightly", 22)], None),
        "there is no bpf-linker 0.13.0 or later for rustc 1.95.0 (LLVM 22) of nightly",
    );
}
