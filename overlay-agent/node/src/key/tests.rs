use std::{
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use super::{KeyFile, StaticSecret};

fn private(path: &Path, content: &[u8]) -> fs::File {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).unwrap();
    std::io::Write::write_all(&mut file, content).unwrap();
    file
}

#[test]
fn what_a_killed_writer_has_left_goes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let key = KeyFile::at(at("wireguard.key"));
    drop(private(&at("wireguard.new-0123456789abcdef"), &[7; 32]));
    drop(private(&at("wireguard.new-0123456789abcde0"), b"half"));
    let written = private(&at("wireguard.new-0123456789abcde1"), b"");
    written.lock().unwrap();
    let others = [
        "wireguard.new-0123",
        "wireguard.new-0123456789abcdeg",
        "w.new-0123456789abcdef",
    ];
    for name in others {
        drop(private(&at(name), b"theirs"));
    }
    drop(private(&at("wireguard.new-0123456789abcde2"), &[7; 33]));
    let public = at("wireguard.new-0123456789abcde3");
    drop(private(&public, b""));
    fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("/", at("wireguard.new-0123456789abcde4")).unwrap();
    let names = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let made = key.read_or_make().unwrap().public();
    let mut expected: Vec<std::ffi::OsString> = others.into_iter().map(Into::into).collect();
    expected.extend(
        ["1", "2", "3", "4"].map(|end| format!("wireguard.new-0123456789abcde{end}").into()),
    );
    expected.push("wireguard.key".into());
    expected.sort();
    assert_eq!(names(), expected);
    drop(written);
    key.clear_unfinished().unwrap();
    assert_eq!(names().len(), expected.len() - 1);
    assert_eq!(key.read_or_make().unwrap().public(), made);
}

#[test]
fn without_files_without_a_name_it_is_made_once_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wireguard.key");
    let key = KeyFile::at(path.clone());
    key.make_by_name(&StaticSecret::from([1; 32])).unwrap();
    key.make_by_name(&StaticSecret::from([2; 32])).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [1; 32]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn it_is_made_once_for_root_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node").join("wireguard.key");
    let key = KeyFile::at(path.clone());
    assert!(key.read().unwrap().is_none());
    let made = key.read_or_make().unwrap();
    let again = key.read_or_make().unwrap();
    assert_eq!(made.public(), again.public());
    let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&path), 0o600);
    assert_eq!(rights(path.parent().unwrap()), 0o700);
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "nothing unfinished is left");
    assert_eq!(format!("{made:?}"), "PrivateKey");
    key.remove().unwrap();
    key.remove().unwrap();
    assert_ne!(key.read_or_make().unwrap().public(), made.public());
}

#[test]
fn the_next_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyFile::at(folder.path().join("wireguard.key"));
    let first = key.read_or_make().unwrap().public();
    assert!(key.replace_by_next().unwrap().is_none());
    let second = key.next().read_or_make().unwrap().public();
    assert!(first != second && key.next().is_there());
    for public in [first, second] {
        assert_eq!(key.with_public(&public).unwrap().public(), public);
    }
    assert_eq!(key.replace_by_next().unwrap().unwrap().public(), second);
    assert_eq!(key.read().unwrap().unwrap().public(), second);
    assert!(!key.next().is_there());
    let error = key.with_public(&first).unwrap_err().to_string();
    assert!(error.contains("is not its key"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_key_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wireguard.key");
    fs::write(&path, "short").unwrap();
    let error = KeyFile::at(path.clone()).read_or_make().unwrap_err();
    assert!(error.to_string().contains("32 bytes"), "{error}");
    // Nor does another key take its place.
    let next = KeyFile::at(path.clone()).next();
    next.read_or_make().unwrap();
    KeyFile::at(path.clone()).replace_by_next().unwrap_err();
    next.remove().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"short");
    KeyFile::at(path.clone()).remove().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"short");
    // A dangling link: a key is not made where it leads.
    let (link, elsewhere) = (folder.path().join("link"), folder.path().join("else"));
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    KeyFile::at(link.clone()).read_or_make().unwrap_err();
    KeyFile::at(link.clone()).remove().unwrap();
    assert!(link.is_symlink() && !elsewhere.exists());
}

#[test]
fn the_public_half_is_what_wg_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wireguard.key");
    let private: Vec<u8> = (1..=32).collect();
    fs::write(&path, private).unwrap();
    let key = KeyFile::at(path).read().unwrap().unwrap();
    // What "wg pubkey" makes of it.
    let expected = "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=";
    assert_eq!(key.public().to_string(), expected);
}
