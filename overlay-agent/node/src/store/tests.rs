use std::{fs, path::Path};

use overlay_core::{
    config,
    dirs::Dirs,
    model::{Model, Name},
};

use super::{Content, Store, StoreError, unfinished};

/// As the first version wrote it.
const FIRST: &str = r#"{
    "format": 1, "instance": "n", "netns": null, "config": "/etc/overlay/node.toml",
    "allocations": { "web": { "network": "lab", "address": "10.244.1.2" } },
    "endpoints": [
        { "name": "job", "network": "lab", "netns": { "pid": 7 }, "address": null, "interface": "eth0" },
        { "name": "db", "network": "lab", "netns": { "name": "db" }, "address": "10.244.1.9", "interface": "eth0" }
    ],
    "namespaces": {}, "processes": {}, "sysctls": { "net/ipv4/ip_forward": "0" }, "fastpath_off": true
}"#;

fn dirs(root: &Path) -> Dirs {
    Dirs {
        state_dir: root.join("state"),
        runtime_dir: root.join("runtime"),
        bpf_dir: root.join("bpf"),
    }
}

#[test]
fn the_first_version_s_file_is_read_and_written_in_the_present_layout() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let path = dirs.state(&instance);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, FIRST).unwrap();
    let mut store = Store::open(&dirs, &instance).unwrap();
    let content = store.content();
    let addresses = &content.allocations[&"web".parse().unwrap()].addresses;
    assert_eq!(
        *addresses,
        ["10.244.1.2".parse::<std::net::IpAddr>().unwrap()]
    );
    let wanted: Vec<usize> = content
        .endpoints
        .iter()
        .map(|e| e.addresses.len())
        .collect();
    assert_eq!(wanted, [0, 1]);
    assert!(content.fastpath_off && !content.packet_filter);
    store
        .update(|content| content.fastpath_off = false)
        .unwrap();
    let again = Store::open(&dirs, &instance).unwrap();
    assert_eq!(again.content(), store.content());
    assert!(fs::read_to_string(&path).unwrap().contains("\"format\":2"));
}

#[test]
fn the_file_survives_and_a_foreign_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.update(|content| content.fastpath_off = true).unwrap();
    assert_eq!(
        Store::open(&dirs, &instance).unwrap().content(),
        store.content()
    );

    let path = dirs.state(&instance);
    let whole = fs::read(&path).unwrap();
    let cut = &whole[..whole.len() / 2];
    let torn: [&[u8]; 5] = [b"", cut, b"{\"format\": 9}", b"[]", &[0xff; 16]];
    for torn in torn {
        fs::write(&path, torn).unwrap();
        let error = Store::open(&dirs, &instance).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), torn, "{error}");
    }
    // What is not ours stays when the instance goes, and is told.
    assert_eq!(store.remove().unwrap(), [path.parent().unwrap()]);
    assert_eq!(fs::read(&path).unwrap(), [0xff; 16]);
}

#[test]
fn another_instance_s_file_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = dirs(dir.path());
    let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
    Store::open(&dirs, &one)
        .unwrap()
        .update(|content| content.fastpath_off = true)
        .unwrap();
    fs::create_dir(dirs.state_dir.join("other")).unwrap();
    fs::copy(dirs.state(&one), dirs.state(&other)).unwrap();
    let error = Store::open(&dirs, &other).unwrap_err();
    assert!(error.to_string().contains("belongs to instance one"));
}

#[test]
fn what_a_writer_left_that_was_stopped_neither_counts_nor_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.update(|content| content.fastpath_off = true).unwrap();
    fs::write(unfinished(&store.file), "{\"format\"").unwrap();
    let again = Store::open(&dirs, &instance).unwrap();
    assert_eq!(again.content(), store.content());
    again.clear_unfinished().unwrap();
    assert!(!unfinished(&again.file).exists());
    fs::write(unfinished(&again.file), "{").unwrap();
    again.remove().unwrap();
    assert!(!dirs.state_dir.join("n").exists());
}

#[test]
fn a_writer_that_is_killed_before_the_disk_is_has_forgotten_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.write_behind().unwrap();
    let (state, journal) = (dirs.state(&instance), dirs.journal(&instance));
    let on_disk = fs::read(&state).unwrap();
    let before = fs::metadata(&state).unwrap().modified().unwrap();
    store.update(|content| content.fastpath_off = true).unwrap();
    let in_memory = fs::read(&journal).unwrap();
    let expected = store.content().clone();
    store.close().unwrap();
    assert!(!journal.exists());
    assert_eq!(
        *Store::open(&dirs, &instance).unwrap().content(),
        expected,
        "on the disk"
    );

    // As it is when the disk was slower than the kill.
    fs::write(&journal, &in_memory).unwrap();
    fs::write(&state, &on_disk).unwrap();
    let disk = fs::File::options().write(true).open(&state).unwrap();
    disk.set_modified(before).unwrap();
    let content = Store::open(&dirs, &instance).unwrap().content().clone();
    assert_eq!(content, expected);

    // A file that was changed since counts for more than the journal, and so does none.
    disk.set_modified(std::time::SystemTime::now()).unwrap();
    let edited = Store::open(&dirs, &instance).unwrap();
    assert!(!edited.content().fastpath_off);
    fs::remove_file(&state).unwrap();
    let anew = Store::open(&dirs, &instance).unwrap();
    assert!(!anew.content().fastpath_off);
    anew.remove().unwrap();
    assert!(!journal.exists() && !dirs.state_dir.join("n").exists());
}

/// A model with endpoints of these names, which were all added at run time.
fn model(names: &[String]) -> Model {
    let mut text = "[node]\nname = \"n\"\nunderlay = \"eth1\"\n[[networks]]\nname = \"lab\"\nvni = 1\ncidr = \"10.0.0.0/8\"\nsubnet = \"10.1.0.0/16\"\n".to_owned();
    for name in names {
        let endpoint =
            format!("[[endpoints]]\nname = \"{name}\"\nnetwork = \"lab\"\nnetns = \"{name}\"\n");
        text.push_str(&endpoint);
    }
    config::parse(Path::new("t.toml"), &text).unwrap()
}

/// What a store that was left behind without its disk comes back with.
fn revived(dirs: &Dirs, instance: &Name) -> Content {
    let state = dirs.state(instance);
    let disk = fs::File::options().write(true).open(state).unwrap();
    disk.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    Store::open(dirs, instance).unwrap().content().clone()
}

#[test]
fn each_change_of_an_endpoint_is_in_the_journal_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let names: Vec<String> = (0..600).map(|number| format!("c{number}")).collect();
    let model = model(&names);
    let network = &model.networks[0];
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.write_behind().unwrap();
    let (mut longest, mut begun_anew) = (0, 0);
    for (number, endpoint) in model.endpoints.iter().enumerate() {
        store.admit(endpoint, network, None, |_| None).unwrap();
        if number % 3 == 0 {
            store.forget(&endpoint.name).unwrap();
        }
        let length = fs::metadata(dirs.journal(&instance)).unwrap().len();
        begun_anew += usize::from(length < longest);
        longest = length;
    }
    assert!(begun_anew > 0, "it grows for ever");
    assert_eq!(store.content().endpoints.len(), 400);
    assert_eq!(store.content().allocations.len(), 400);
    let expected = store.content().clone();
    drop(store);
    assert_eq!(*Store::open(&dirs, &instance).unwrap().content(), expected);
    assert_eq!(revived(&dirs, &instance), expected);
}

#[test]
fn a_line_that_was_being_written_does_not_count_and_one_that_is_no_line_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let model = model(&["a".to_owned(), "b".to_owned()]);
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.write_behind().unwrap();
    let network = &model.networks[0];
    store
        .admit(&model.endpoints[0], network, None, |_| None)
        .unwrap();
    let expected = store.content().clone();
    let short = fs::metadata(dirs.journal(&instance)).unwrap().len();
    store
        .admit(&model.endpoints[1], network, None, |_| None)
        .unwrap();
    drop(store);
    let journal = dirs.journal(&instance);
    let whole = fs::read(&journal).unwrap();
    for length in usize::try_from(short).unwrap()..whole.len() {
        fs::write(&journal, &whole[..length]).unwrap();
        assert_eq!(revived(&dirs, &instance), expected, "{length} bytes");
    }
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let without_begin = lines[1..].concat();
    let foreign = [
        without_begin.as_slice(),
        b"",
        b"{}\n",
        b"[1, {\"other\": 1}]\n",
    ];
    for foreign in foreign {
        fs::write(&journal, foreign).unwrap();
        let error = Store::open(&dirs, &instance).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("journal"), "{error}");
        assert_eq!(fs::read(&journal).unwrap(), foreign);
    }
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.write_behind().unwrap();
    // A folder in the way of what is written: root may write anywhere.
    let obstacle = unfinished(&store.file);
    fs::create_dir(&obstacle).unwrap();
    store.update(|content| content.fastpath_off = true).unwrap();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(std::time::Instant::now() < patience);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    until(&|| store.failure().is_some());
    let failure = store.failure().unwrap();
    assert!(failure.contains("state.json.new"), "{failure}");
    fs::remove_dir(&obstacle).unwrap();
    until(&|| store.failure().is_none());
    let expected = store.content().clone();
    drop(store);
    fs::remove_file(dirs.journal(&instance)).unwrap();
    let again = Store::open(&dirs, &instance).unwrap();
    assert_eq!(*again.content(), expected);
}

#[test]
fn a_device_that_was_being_made_is_known_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (dirs, instance) = (dirs(dir.path()), "n".parse::<Name>().unwrap());
    let mut store = Store::open(&dirs, &instance).unwrap();
    store.write_behind().unwrap();
    let (device, other) = ("ovlbr2".parse().unwrap(), "ovlbr3".parse().unwrap());
    store.begins_to_make(device).unwrap();
    drop(store);
    let mut killed = Store::open(&dirs, &instance).unwrap();
    let content = killed.content();
    assert!(content.was_making(device, None));
    // Somebody has put his mark on it, or it is another one.
    assert!(!content.was_making(device, Some("mine")) && !content.was_making(other, None));
    killed.has_made().unwrap();
    assert!(!killed.content().was_making(device, None));
    let again = Store::open(&dirs, &instance).unwrap();
    assert!(!again.content().was_making(device, None));
}
