use std::{fs, path::Path};

use crate::config::{Files, Loaded};

const MAIN: &str = r#"
[node]
name = "node01"
underlay = "192.0.2.1"

[[networks]]
name = "lab"
vni = 1
cidr = "10.244.0.0/16"
subnet = "10.244.1.0/24"

[[networks.peers]]
name = "node02"
vtep = "192.0.2.2"
subnet = "10.244.2.0/24"

[[endpoints]]
name = "router"
network = "lab"
netns = "router"
forwarding = true
allowed_sources = "10.244.100.0/24"
"#;

fn peer(name: &str, vtep: &str, subnet: &str) -> String {
    format!("[[networks.peers]]\nname = \"{name}\"\nvtep = \"{vtep}\"\nsubnet = \"{subnet}\"\n")
}

fn fragment(peers: &[String]) -> String {
    format!("[[networks]]\nname = \"lab\"\n{}", peers.concat())
}

struct Folder {
    folder: tempfile::TempDir,
    files: Files,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("node.toml"));
        fs::create_dir(folder.path().join("peers.d")).unwrap();
        let new = Self { folder, files };
        new.write("node.toml", MAIN);
        new
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn load(&mut self) -> Loaded {
        self.files.load().unwrap()
    }
}

fn names(loaded: &Loaded) -> Vec<&str> {
    let peers = loaded.model.networks[0].peers.iter();
    peers.map(|peer| peer.name.as_str()).collect()
}

fn refused(loaded: &Loaded, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    let texts = loaded.refused_fragments.iter().map(ToString::to_string);
    texts.map(|text| text.replace(&root, "")).collect()
}

#[test]
fn fragments_add_their_peers_in_the_order_of_their_names() {
    let mut folder = Folder::new();
    folder.write(
        "peers.d/20.toml",
        &fragment(&[peer("node04", "192.0.2.4", "10.244.4.0/24")]),
    );
    folder.write(
        "peers.d/10.toml",
        &fragment(&[peer("node03", "192.0.2.3", "10.244.3.0/24")]),
    );
    folder.write("peers.d/.10.toml.swp", "this is not a peer");
    folder.write("peers.d/README", "nor is this");
    let loaded = folder.load();
    assert_eq!(names(&loaded), ["node02", "node03", "node04"]);
    assert_eq!(loaded.fragments, 2);
    assert!(loaded.refused_fragments.is_empty(), "{loaded:?}");
    assert!(folder.files.reload().is_none(), "nothing has changed");
}

#[test]
fn without_a_folder_there_are_no_fragments() {
    let mut folder = Folder::new();
    fs::remove_dir(folder.folder.path().join("peers.d")).unwrap();
    let loaded = folder.load();
    assert_eq!((names(&loaded), loaded.fragments), (vec!["node02"], 0));
}

#[test]
fn a_fault_refuses_its_fragment_alone() {
    // What is in the way, the message of the fragment that is refused.
    let cases = [
        (
            peer("node03", "nowhere", "10.244.3.0/24"),
            "5: networks[0].peers[0].vtep: invalid IP address \"nowhere\"; write an address of the underlay alone, such as 192.168.56.12 or 2001:db8::12",
        ),
        (
            peer("node02", "192.0.2.3", "10.244.3.0/24"),
            "4: networks[0].peers[0].name: peer name node02 is used twice, first by a peer of the configuration file; each must have its own",
        ),
        (
            peer("node03", "192.0.2.2", "10.244.3.0/24"),
            "5: networks[0].peers[0].vtep: VTEP 192.0.2.2 is used twice, first by a peer of the configuration file; each must have its own",
        ),
        (
            peer("node03", "192.0.2.1", "10.244.3.0/24"),
            "5: networks[0].peers[0].vtep: 192.0.2.1 is this node's own underlay address; a peer is another node",
        ),
        (
            peer("node03", "192.0.2.3", "10.244.2.128/25"),
            "6: networks[0].peers[0].subnet: 10.244.2.128/25 overlaps 10.244.2.0/24 of peer node02; give every node its own part",
        ),
        (
            peer("node03", "192.0.2.3", "10.244.0.0/22"),
            "6: networks[0].peers[0].subnet: 10.244.0.0/22 overlaps 10.244.1.0/24 of this node; give every node its own part",
        ),
        (
            peer("node03", "192.0.2.3", "10.244.100.128/25"),
            "6: networks[0].peers[0].subnet: 10.244.100.128/25 overlaps 10.244.100.0/24 of endpoint router; give every node its own part",
        ),
        (
            peer("node03", "192.0.2.3", "10.245.0.0/24"),
            "6: networks[0].peers[0].subnet: 10.245.0.0/24 is not inside the network's cidr 10.244.0.0/16; choose a part of it",
        ),
        (
            "[[endpoints]]\nname = \"web\"\n".to_owned(),
            "3: endpoints: there is no such key; there are: networks",
        ),
        (
            "[[networks]]\nname = \"other\"\n".to_owned(),
            "4: networks[1].name: there is no network \"other\"; name one of [[networks]]",
        ),
    ];
    for (wrong, message) in cases {
        let mut folder = Folder::new();
        folder.write("peers.d/1.toml", &fragment(&[wrong]));
        let good = peer("node05", "192.0.2.5", "10.244.5.0/24");
        folder.write("peers.d/2.toml", &fragment(&[good]));
        let loaded = folder.load();
        assert_eq!(names(&loaded), ["node02", "node05"], "{message}");
        let told = refused(&loaded, folder.folder.path());
        assert_eq!(told, [format!("peers.d/1.toml:{message}")]);
    }
}

#[test]
fn of_two_fragments_the_first_one_wins() {
    let mut folder = Folder::new();
    let text = fragment(&[peer("node03", "192.0.2.3", "10.244.3.0/24")]);
    folder.write("peers.d/1.toml", &text);
    folder.write("peers.d/2.toml", &text);
    let loaded = folder.load();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    let told = refused(&loaded, folder.folder.path());
    assert_eq!(told.len(), 1);
    let first = told[0].lines().next();
    let message = "peers.d/2.toml:4: networks[0].peers[0].name: peer name node03 is used twice, \
                   first by a peer of peers.d/1.toml; each must have its own";
    assert_eq!(first, Some(message));
}

#[test]
fn a_new_file_takes_nothing_from_one_that_is_in_force() {
    let mut folder = Folder::new();
    let old = fragment(&[peer("node03", "192.0.2.3", "10.244.3.0/24")]);
    folder.write("peers.d/2.toml", &old);
    folder.load();
    let new = fragment(&[
        peer("node03", "192.0.2.3", "10.244.3.0/24"),
        peer("node04", "192.0.2.4", "10.244.4.0/24"),
    ]);
    folder.write("peers.d/1.toml", &new);
    let loaded = folder.files.reload().unwrap();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    let told = refused(&loaded, folder.folder.path());
    assert!(told[0].starts_with("peers.d/1.toml:"), "{told:?}");
    // The second half of a move from one file to the other.
    folder.write("peers.d/2.toml", "");
    let loaded = folder.files.reload().unwrap();
    assert_eq!(names(&loaded), ["node02", "node03", "node04"]);
    assert!(loaded.refused_fragments.is_empty());
}

#[test]
fn what_was_good_stays_in_force_until_it_is_good_again_or_gone() {
    let mut folder = Folder::new();
    let text = |last: u8| fragment(&[peer("node03", &format!("192.0.2.{last}"), "10.244.3.0/24")]);
    folder.write("peers.d/1.toml", &text(3));
    folder.load();
    folder.write("peers.d/1.toml", "half a fi");
    let loaded = folder.files.reload().unwrap();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    assert_eq!(loaded.refused_fragments.len(), 1);
    folder.write("peers.d/1.toml", &text(7));
    let loaded = folder.files.reload().unwrap();
    assert_eq!(
        loaded.model.networks[0].peers[1].vtep.to_string(),
        "192.0.2.7"
    );
    assert!(loaded.refused_fragments.is_empty());
    fs::remove_file(folder.folder.path().join("peers.d/1.toml")).unwrap();
    assert_eq!(names(&folder.files.reload().unwrap()), ["node02"]);
}

#[test]
fn a_bad_configuration_file_does_not_stop_fragments() {
    let mut folder = Folder::new();
    folder.load();
    folder.write("node.toml", "bad");
    folder.write(
        "peers.d/1.toml",
        &fragment(&[peer("node03", "192.0.2.3", "10.244.3.0/24")]),
    );
    let loaded = folder.files.reload().unwrap();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    assert!(loaded.refused.is_some());
}

#[test]
fn one_folder_serves_all_nodes() {
    let mut folder = Folder::new();
    let own = peer("node01", "192.0.2.1", "10.244.1.0/24");
    let other = peer("node03", "192.0.2.3", "10.244.3.0/24");
    folder.write("peers.d/all.toml", &fragment(&[own, other]));
    // A number counts the peers of the file, this node included.
    let wrong = peer("node04", "192.0.2.3", "10.244.4.0/24");
    let own = peer("node01", "192.0.2.1", "10.244.1.0/24");
    folder.write("peers.d/wrong.toml", &fragment(&[own, wrong]));
    let loaded = folder.load();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    let told = refused(&loaded, folder.folder.path());
    assert!(
        told[0].contains("networks[0].peers[1].vtep: VTEP 192.0.2.3"),
        "{told:?}"
    );
}

#[test]
fn no_fragment_has_a_vtep_in_a_subnet() {
    let mut folder = Folder::new();
    let files = [
        ("1", peer("node03", "10.244.9.3", "10.244.3.0/24")),
        ("2", peer("node04", "10.244.3.4", "10.244.4.0/24")),
        ("3", peer("node05", "192.0.2.5", "10.244.9.0/24")),
        ("4", peer("node06", "10.244.1.6", "10.244.6.0/24")),
    ];
    for (name, peer) in files {
        folder.write(&format!("peers.d/{name}.toml"), &fragment(&[peer]));
    }
    let loaded = folder.load();
    assert_eq!(names(&loaded), ["node02", "node03"]);
    let told = refused(&loaded, folder.folder.path());
    for (told, fault) in told.iter().zip([
        "vtep: 10.244.3.0/24 of peer node03 has the VTEP 10.244.3.4 in it",
        "subnet: 10.244.9.0/24 of peer node05 has the VTEP 10.244.9.3 in it",
        "vtep: 10.244.1.0/24 of this node has the VTEP 10.244.1.6 in it",
    ]) {
        assert!(told.contains(fault), "{told}");
    }
    assert_eq!(told.len(), 3);
}
