use std::{collections::BTreeMap, fs};

use overlay_cluster::{
    changes::Changes,
    talk::{News, State},
};
use overlay_core::config::Files;

use super::{Helper, Outcome, Told};
use crate::daemon::config_file::ConfigFile;

const FILE: &str = "[node]\nname = \"n1\"\nunderlay = \"192.0.2.1\"\n[cluster]\netcd = \"http://192.0.2.9:2379\"\nnetwork = \"lab\"\n";
const HEAD: &str = "# Written by overlay-agent from the cluster's store\n[[networks]]\nname = \"lab\"\nvni = 1\ncidr = \"10.5.0.0/16\"\nsubnet = \"10.5.1.0/24\"\n";

fn key(subnet: u8) -> String {
    format!("10.5.{subnet}.0-24")
}

fn text(subnet: u8, host: u8) -> String {
    let key = key(subnet);
    format!(
        "\n# lease {key} {{}}\n[[networks.peers]]\nname = \"p{subnet}\"\nvtep = \"192.0.2.{host}\"\nsubnet = \
         \"10.5.{subnet}.0/24\"\n"
    )
}

fn news(fragment: Option<String>, changes: Option<Changes>) -> Told {
    Told::News(Box::new(News {
        state: State::Following,
        endpoint: String::new(),
        away: None,
        problems: Vec::new(),
        fragment,
        changes,
        subnet: None,
        nodes: 0,
        doubtful: 0,
        with_key: 0,
        without_key: Vec::new(),
        revision: 0,
        connections: 1,
        answered_ms: None,
    }))
}

#[tokio::test]
async fn what_is_in_force_is_written_down_though_the_next_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    let (path, cluster) = (inside("node.toml"), inside("cluster.toml"));
    fs::write(&path, FILE).unwrap();
    let mut files = Files::new(&path).with_cluster(cluster.clone());
    files.load().unwrap();
    let mut config = ConfigFile::watch(&path, files);
    let mut helper = Helper::new(cluster.clone());
    let whole = HEAD.to_owned() + &text(2, 2);
    let outcome = helper.take(Ok(news(Some(whole.clone()), None)), &mut config);
    assert!(matches!(outcome, Outcome::Read));
    config.read().unwrap();
    let mut change = |number, subnet, host| {
        let changes = Changes {
            number,
            set: BTreeMap::from([(key(subnet), text(subnet, host))]),
            ..Changes::default()
        };
        helper.take(Ok(news(None, Some(changes))), &mut config)
    };
    assert!(matches!(change(1, 3, 3), Outcome::Peers(_)));
    // It has the address of another.
    assert!(matches!(change(2, 4, 3), Outcome::Nothing));
    helper.finish(&config);
    assert_eq!(fs::read_to_string(&cluster).unwrap(), whole + &text(3, 3));
}
