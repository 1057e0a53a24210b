//! Networks whose tunnels are encrypted.

use overlay_common::maps::network_flags;

use super::*;
use crate::{
    model::PublicKey,
    objects::{LinkRef, Outer},
    plan::Step,
    surroundings::NoWireguard,
};

const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

pub(super) fn encrypted() -> String {
    CONFIG
        .replace("vni = 7", "vni = 7\nencryption = \"wireguard\"")
        .replace(
            "vtep = \"192.168.56.12\"",
            &format!("vtep = \"192.168.56.12\"\npublic_key = \"{KEY}\""),
        )
        .replace(
            "vtep = \"192.168.60.13\"",
            "vtep = \"192.168.60.13\"\npublic_key = \"B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=\"",
        )
}

#[test]
fn all_that_leaves_goes_by_the_device_of_the_network() {
    let Desired { objects, facts, .. } = build(&encrypted(), &bare()).unwrap();
    let device = name("ovlwg7");
    let link = &objects.links[&LinkId::node(device)];
    assert_eq!((&link.kind, link.mtu), (&LinkKind::Wireguard, 1440));
    assert_eq!(facts.mtus.values().copied().collect::<Vec<_>>(), [1390]);
    let by_device = |outer: &Outer| outer.via == Some(device);
    assert!(objects.peers.fdb.values().all(by_device));
    let row = objects.peers.entries.subnets.values();
    let ways: Vec<_> = row.map(|row| (row.underlay, row.next_hop)).collect();
    assert!(ways.contains(&(LinkRef::Name(device), [192, 168, 56, 12].into())));
    assert!(
        !ways
            .iter()
            .any(|(link, _)| *link == LinkRef::Name(name("eth1")))
    );

    let key: PublicKey = KEY.parse().unwrap();
    let settings = &objects.wireguard[&device];
    assert_eq!((settings.port, settings.peers.len()), (51_820, 2));
    let peer = &settings.peers[&key];
    assert_eq!(peer.endpoint, "192.168.56.12:51820".parse().ok());
    let allowed: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.168.56.12/32"]);

    // Only what that device has decrypted is let in.
    let network = objects.entries.networks.values().next().unwrap();
    assert_ne!(network.flags & network_flags::ENCRYPTED, 0);
    assert_eq!(network.decrypted_by, 0, "it has not been made");
    let mut made = bare();
    let link = NodeLink {
        index: 9,
        ours: true,
        ..NodeLink::default()
    };
    made.around.links.insert(device, link);
    let made = build(&encrypted(), &made).unwrap().objects.entries;
    assert_eq!(made.networks.values().next().unwrap().decrypted_by, 9);
    let attached = (device, Hook::FromUnderlay);
    assert!(objects.attachments.contains_key(&attached));
    let guard = facts.guard.unwrap();
    let expected = (4789, BTreeSet::from([device]));
    assert_eq!(guard.encrypted.values().next(), Some(&expected));
    assert!(!guard.inside.contains(&device), "peers speak there");
}

#[test]
fn what_is_there_is_not_set_again_and_another_key_takes_its_place() {
    let mut wanted = build(&encrypted(), &bare()).unwrap().objects;
    let device = name("ovlwg7");
    wanted.wireguard.get_mut(&device).unwrap().public_key = KEY.parse().ok();
    let mut there = wanted.clone();
    let settings = there.wireguard.get_mut(&device).unwrap();
    for peer in settings.peers.values_mut() {
        // Heard from elsewhere.
        peer.endpoint = "203.0.113.1:40000".parse().ok();
    }
    assert!(plan(&there, &wanted).is_empty());

    let settings = there.wireguard.get_mut(&device).unwrap();
    let (old, peer) = settings.peers.pop_first().unwrap();
    let new = PublicKey::new([9; PublicKey::LENGTH]);
    settings.peers.insert(new, peer);
    let plan = plan(&there, &wanted);
    let [
        Step::DeleteWireguardPeer { key: gone, .. },
        Step::SetWireguardPeer { key: come, .. },
    ] = plan.steps()
    else {
        panic!("{plan}");
    };
    assert_eq!((*gone, *come), (new, old));
}

#[test]
fn a_device_that_has_no_key_gets_one_and_all_peers() {
    let wanted = build(&encrypted(), &bare()).unwrap().objects;
    let plan = plan(&Objects::default(), &wanted).to_string();
    let set = plan.find("set wireguard ovlwg7 to this node's key and port 51820");
    let peer = plan.find(&format!("set wireguard ovlwg7 peer {KEY} 192.168.56.12"));
    let used = plan.find("dst 192.168.56.12 via ovlwg7 dev ovl7");
    assert!(set.is_some() && set < peer && peer < used, "{plan}");
}

#[test]
fn this_node_s_own_key_is_no_peer_s() {
    let mut observed = bare();
    observed.around.public_key = KEY.parse().ok();
    let Desired {
        objects, problems, ..
    } = build(&encrypted(), &observed).unwrap();
    assert_eq!(objects.wireguard[&name("ovlwg7")].peers.len(), 1);
    let own = |problem: &Problem| matches!(problem, Problem::OwnKey { .. });
    assert_eq!(problems.iter().filter(|problem| own(problem)).count(), 1);
}

#[test]
fn without_wireguard_nothing_is_changed() {
    let mut observed = bare();
    let why = NoWireguard {
        cause: "not there".to_owned(),
        cure: "load it".to_owned(),
    };
    observed.around.no_wireguard = Some(why);
    let obstacles = build(&encrypted(), &observed).unwrap_err();
    let told: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["encrypt network lab: not there; load it"]);
    assert!(build(CONFIG, &observed).is_ok());
}

#[test]
fn a_cluster_s_network_is_encrypted_with_the_keys_of_the_store() {
    let file = "[node]\nname = \"n1\"\nunderlay = \"eth1\"\n[cluster]\netcd = \"http://192.168.56.9:2379\"\nnetwork = \"lab\"\nencryption = \"wireguard\"\n";
    let network = "[[networks]]\nname = \"lab\"\nvni = 7\nport = 8472\ncidr = [\"10.244.0.0/16\"]\nsubnet = [\"10.244.1.0/24\"]\n";
    let peer = format!(
        "[[networks.peers]]\nname = \"n2\"\nvtep = \"192.168.56.12\"\nsubnet = \"10.244.2.0/24\"\nmac = \"02:4f:c0:a8:38:0c\"\npublic_key = \"{KEY}\"\n"
    );
    let text = format!("{network}{peer}");
    let fragment = Some((Path::new("cluster.toml"), text.as_str()));
    let (model, faults) = config::parse_with(Path::new("t.toml"), file, fragment).unwrap();
    assert!(faults.is_none(), "{faults:?}");
    let (store, observed) = (Content::new("n1".parse().unwrap()), bare());
    let wanted = desired(inputs(&model, &store, &observed)).unwrap().objects;
    let plan = plan(&Objects::default(), &wanted).to_string();
    for step in [
        "set wireguard ovlwg7 to this node's key and port 51820".to_owned(),
        format!("set wireguard ovlwg7 peer {KEY} 192.168.56.12"),
        "dst 192.168.56.12 via ovlwg7 dev ovl7".to_owned(),
    ] {
        assert!(plan.contains(&step), "{step}: {plan}");
    }
}
