//! Changes of the cluster's network one by one come to what its whole text would.

use std::{collections::BTreeMap, fs, path::Path};

use overlay_cluster::{changes::Changes, subnet::Subnet};
use proptest::prelude::*;

use super::cluster::FILE;
use crate::{
    config::{Files, Taken},
    model::Model,
};

/// Behind [`FILE`].
const ENDPOINT: &str = r#"
[[endpoints]]
name = "router"
network = "lab"
netns = "router"
forwarding = true
allowed_sources = "10.5.20.0/24"
"#;
const OF_FILES: &str = "[[networks]]\nname = \"lab\"\n[[networks.peers]]\nname = \"p30\"\nvtep = \"192.0.2.30\"\n\
                        subnet = \"10.5.30.0/24\"\n";
const HEAD: &str = "# store 1 1\n[[networks]]\nname = \"lab\"\nvni = 1\nport = 8472\ncidr = \"10.5.0.0/16\"\n\
                    subnet = \"10.5.1.0/24\"\n";

/// A node by its subnet: who it says that it is, and what its text has besides.
type Present = BTreeMap<u8, (u8, Besides)>;

#[derive(Clone, Copy, Debug)]
enum Besides {
    Nothing,
    /// A word that counts for nothing.
    Doubt,
    /// A second peer.
    Another(u8),
    /// Something that is no peer.
    Network,
}

fn key(subnet: u8) -> Subnet {
    format!("10.5.{subnet}.0-24").parse().unwrap()
}

fn text(subnet: u8, (host, besides): (u8, Besides)) -> String {
    let peer = |name: u8, subnet: u8| {
        // The MAC of a node of ours, or of one of flannel's.
        let begin = ["02:4f:c0:00:02", "d2:cf:28:5c:8b"][usize::from(name % 2)];
        format!(
            "[[networks.peers]]\nname = \"p{name}\"\nvtep = \"192.0.2.{name}\"\nsubnet = \"10.5.{subnet}.0/24\"\n\
             mac = \"{begin}:{name:02x}\"\n"
        )
    };
    let (doubt, more) = match besides {
        Besides::Nothing => ("", String::new()),
        Besides::Doubt => (" (kept)", String::new()),
        Besides::Another(other) => ("", peer(other + 50, other + 50)),
        Besides::Network => ("", "[networks.security]\nmode = \"off\"\n".to_owned()),
    };
    format!(
        "\n# lease {} {{}}{doubt}\n{}{more}",
        key(subnet),
        peer(host, subnet)
    )
}

fn whole(present: &Present) -> String {
    let nodes = present.iter().map(|(subnet, node)| text(*subnet, *node));
    HEAD.to_owned() + &nodes.collect::<String>()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("node.toml"), FILE.to_owned() + ENDPOINT).unwrap();
        fs::create_dir(folder.path().join("peers.d")).unwrap();
        fs::write(folder.path().join("peers.d/a.toml"), OF_FILES).unwrap();
        Self(folder)
    }

    fn files(&self) -> Files {
        let path: &Path = self.0.path();
        Files::new(&path.join("node.toml")).with_cluster(path.join("cluster.toml"))
    }

    /// What an agent that starts makes of a text; `None` where it is refused.
    fn model(&self, text: &str) -> Option<Model> {
        let mut files = self.files();
        files.load().unwrap();
        files.cluster_faults(text).is_none().then(|| {
            fs::write(self.0.path().join("cluster.toml"), text).unwrap();
            let model = self.files().load().unwrap().model;
            fs::remove_file(self.0.path().join("cluster.toml")).unwrap();
            model
        })
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Set(u8, u8, Besides),
    Gone(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let besides = prop_oneof![
        16 => Just(Besides::Nothing),
        4 => Just(Besides::Doubt),
        2 => (0..3_u8).prop_map(Besides::Another),
        1 => Just(Besides::Network),
    ];
    // Mostly each is itself.
    let host = prop_oneof![6 => Just(None), 1 => (1..34_u8).prop_map(Some)];
    let set = (0..34_u8, host, besides).prop_map(|(subnet, host, besides)| {
        Happens::Set(subnet, host.unwrap_or(subnet + 2), besides)
    });
    prop_oneof![3 => set, 1 => (0..34_u8).prop_map(Happens::Gone)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn changes_come_to_the_whole(all in proptest::collection::vec(proptest::collection::vec(happens(), 1..4), 1..16)) {
        let (folder, other) = (Folder::new(), Folder::new());
        let mut files = folder.files();
        files.load().unwrap();
        let mut present: Present = [(40, (40, Besides::Nothing))].into();
        let first = whole(&present);
        files.tell_cluster(&first);
        files.accept_cluster();
        let mut model = files.reload().unwrap().model;
        let fresh = other.model(&first);
        prop_assert_eq!(Some(&model), fresh.as_ref());
        for (number, happens) in (1..).zip(all) {
            let before = present.clone();
            for one in happens {
                match one {
                    Happens::Set(subnet, host, besides) => drop(present.insert(subnet, (host, besides))),
                    Happens::Gone(subnet) => drop(present.remove(&subnet)),
                }
            }
            let set = present.iter().map(|(subnet, node)| (key(*subnet).to_string(), text(*subnet, *node)));
            let gone = before.keys().filter(|subnet| !present.contains_key(subnet));
            let changes = Changes {
                number,
                store: Some((1, 1)),
                set: set.collect(),
                gone: gone.map(|subnet| key(*subnet).to_string()).collect(),
            };
            let now = whole(&present);
            match files.change_cluster(&changes).unwrap() {
                Taken::Peers(change) => {
                    model.networks[0].peers = change.peers;
                    prop_assert_eq!(files.cluster_text(), Some(now.clone()));
                    prop_assert!(files.reload().is_none());
                }
                Taken::Whole => {
                    prop_assert_eq!(files.told_cluster(), Some(now.clone()));
                    if files.cluster_faults(&now).is_none() {
                        files.accept_cluster();
                        model = files.reload().unwrap().model;
                    }
                }
            }
            // What is refused leaves what was in force.
            if let Some(whole) = other.model(&now) {
                prop_assert_eq!(&model, &whole);
            }
        }
    }
}

#[test]
fn plain_changes_take_no_look_at_the_whole() {
    let folder = Folder::new();
    let mut files = folder.files();
    files.load().unwrap();
    let present: Present = [(40, (40, Besides::Nothing))].into();
    files.tell_cluster(&whole(&present));
    files.accept_cluster();
    let model = files.reload().unwrap().model;
    assert_eq!(model.networks[0].peers.len(), 2);
    let plain = [
        (40, (40, Besides::Doubt), 0, 0),
        (7, (7, Besides::Nothing), 1, 0),
        (7, (7, Besides::Doubt), 0, 0),
        (7, (8, Besides::Nothing), 1, 1),
        (8, (9, Besides::Another(1)), 2, 0),
        (8, (9, Besides::Nothing), 1, 2),
    ];
    for (number, (subnet, node, come, gone)) in (1..).zip(plain) {
        let set = BTreeMap::from([(key(subnet).to_string(), text(subnet, node))]);
        let changes = Changes {
            number,
            set,
            ..Changes::default()
        };
        let Taken::Peers(change) = files.change_cluster(&changes).unwrap() else {
            panic!("{subnet} {node:?} is looked at as a whole");
        };
        assert_eq!((change.come.len(), change.gone.len()), (come, gone));
    }
}
