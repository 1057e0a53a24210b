//! Which address is a node's VTEP, and how wide its underlay is.

use super::*;
use crate::surroundings::{LinkLayer, Vrf};

fn vteps(config: &str, store: &Content, observed: &Observed) -> Result<Vec<String>, String> {
    let model = config::parse(Path::new("t.toml"), config).unwrap();
    let mut store = store.clone();
    store.allocate(&model);
    let built = desired(inputs(&model, &store, observed));
    let of = |desired: Desired| {
        desired
            .facts
            .vteps
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    built.map(of).map_err(|obstacles| obstacles.to_string())
}

fn with(addresses: &[&str]) -> Observed {
    let mut observed = bare();
    let eth1 = observed.around.links.get_mut(&name("eth1")).unwrap();
    eth1.addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
    observed
}

fn remembering(address: &str) -> Content {
    let mut store = Content::new("n1".parse().unwrap());
    let model = config::parse(Path::new("t.toml"), CONFIG).unwrap();
    store.remember_vteps(&model, &[address.parse().unwrap()], &[name("eth1")]);
    store
}

#[test]
fn a_node_that_had_none_takes_one_that_stays() {
    let new = Content::new("n1".parse().unwrap());
    let first = |addresses: &[&str]| vteps(CONFIG, &new, &with(addresses));
    assert_eq!(
        first(&["10.0.0.9/32", "10.0.0.1/24"]).unwrap(),
        ["10.0.0.1"]
    );
    // As some clouds give them.
    assert_eq!(first(&["10.0.0.9/32"]).unwrap(), ["10.0.0.9"]);
    let mut observed = with(&["10.0.0.1/24", "10.0.0.2/24"]);
    let eth1 = observed.around.links.get_mut(&name("eth1")).unwrap();
    eth1.passing.insert("10.0.0.1".parse().unwrap());
    assert_eq!(vteps(CONFIG, &new, &observed).unwrap(), ["10.0.0.2"]);
}

#[test]
fn a_remembered_one_is_kept_and_waited_for() {
    let store = remembering("10.0.0.2");
    let both = with(&["10.0.0.1/24", "10.0.0.2/24"]);
    assert_eq!(vteps(CONFIG, &store, &both).unwrap(), ["10.0.0.2"]);
    // Now on its way out: peers know it all the same.
    let mut leaving = both.clone();
    let eth1 = leaving.around.links.get_mut(&name("eth1")).unwrap();
    eth1.passing.insert("10.0.0.2".parse().unwrap());
    assert_eq!(vteps(CONFIG, &store, &leaving).unwrap(), ["10.0.0.2"]);
    let gone = vteps(CONFIG, &store, &with(&["10.0.0.1/24"]));
    assert_eq!(
        gone.unwrap_err(),
        "use 10.0.0.2 as VTEP: other nodes know this one by it, and eth1 does not have it at present: the tunnels wait for it; if it does not come back, write vtep = \"10.0.0.1\" under [node], and tell the other nodes"
    );
    // Whoever names another underlay means another address.
    let mut moved = with(&["10.0.0.1/24"]);
    let eth1 = moved.around.links.remove(&name("eth1")).unwrap();
    moved.around.links.insert(name("eth2"), eth1);
    let config = CONFIG.replace("\"eth1\"", "\"eth2\"");
    assert_eq!(vteps(&config, &store, &moved).unwrap(), ["10.0.0.1"]);
}

#[test]
fn one_of_a_family_that_no_peer_has_is_not_waited_for() {
    let mut store = remembering("10.0.0.2");
    let model = config::parse(Path::new("t.toml"), CONFIG).unwrap();
    store.remember_vteps(&model, &["fd00::2".parse().unwrap()], &[name("eth1")]);
    let observed = with(&["10.0.0.2/24", "fd00::9/64"]);
    assert_eq!(
        vteps(CONFIG, &store, &observed).unwrap(),
        ["10.0.0.2", "fd00::9"]
    );
}

#[test]
fn a_configured_one_is_on_any_device_and_does_not_decide_the_mtu() {
    let config = CONFIG.replace("\"eth1\"", "\"eth1\"\nvtep = \"10.255.0.1\"");
    let mut observed = bare();
    let store = remembering("192.168.56.11");
    // What an overlay has made, this one or another, has no outer address to propose.
    for (bridge, owner, inside) in [
        ("ovlbr7", "n1", "10.244.1.1/24"),
        ("ovlbr9", "other", "10.9.1.1/24"),
    ] {
        let inner = NodeLink {
            ours: owner == "n1",
            owner: Some(owner.parse().unwrap()),
            addresses: vec![inside.parse().unwrap()],
            ..NodeLink::default()
        };
        observed.around.links.insert(name(bridge), inner);
    }
    assert_eq!(
        vteps(&config, &store, &observed).unwrap_err(),
        "use 10.255.0.1 as VTEP: no interface has this address (there are: 192.168.56.11); \
         add it with \"ip address add 10.255.0.1/LENGTH dev DEVICE\", or correct node.vtep or node.underlay"
    );
    for underlay in ["ovlbr7", "10.244.1.1"] {
        let inner = CONFIG.replace("\"eth1\"", &format!("\"{underlay}\""));
        assert_eq!(
            vteps(&inner, &store, &observed).unwrap_err(),
            "use underlay ovlbr7: the agent itself has made it, for what is inside of the tunnels (there are: eth1); \
             correct node.underlay: it is where tunnel packets arrive"
        );
    }
    let missing = config.replace("\"eth1\"", "\"eth9\"");
    assert_eq!(
        vteps(&missing, &store, &observed).unwrap_err(),
        "use underlay eth9: there is no such interface (there are: eth1); correct node.underlay"
    );
    let lo = NodeLink {
        index: 1,
        mtu: 65536,
        layer: LinkLayer::Loopback,
        addresses: vec!["10.255.0.1/32".parse().unwrap()],
        ..NodeLink::default()
    };
    observed.around.links.insert(name("lo"), lo);
    assert_eq!(vteps(&config, &store, &observed).unwrap(), ["10.255.0.1"]);
    let built = build(&config, &observed).unwrap();
    assert_eq!(
        built.facts.mtus.values().copied().collect::<Vec<u16>>(),
        [1450]
    );
    // Nor does the card with the address, when the way is by another one.
    let narrow = NodeLink {
        index: 3,
        mtu: 1400,
        ..NodeLink::default()
    };
    observed.around.links.insert(name("wan"), narrow);
    for way in observed.around.ways.values_mut() {
        way.link = name("wan");
    }
    let built = build(&config, &observed).unwrap();
    assert_eq!(
        built.facts.mtus.values().copied().collect::<Vec<u16>>(),
        [1350]
    );
    // Where nothing arrives is no underlay.
    let config = CONFIG.replace("\"eth1\"", "\"10.255.0.1\"");
    let nowhere = vteps(&config, &store, &observed).unwrap_err();
    assert!(nowhere.contains("write vtep = \"10.255.0.1\""), "{nowhere}");
}

#[test]
fn a_device_of_a_vrf_is_told_until_tunnels_heed_it() {
    let mut observed = bare();
    let vrf = Vrf {
        name: name("red"),
        table: 9,
    };
    observed.around.links.get_mut(&name("eth1")).unwrap().vrf = Some(vrf);
    let told = |observed: &Observed| {
        let built = build(CONFIG, observed).unwrap();
        let told = built.problems.iter().map(ToString::to_string);
        told.filter(|text| text.contains("VRF")).collect::<String>()
    };
    let setting = "net/ipv4/udp_l3mdev_accept".to_owned();
    let cure = "run \"ip rule add from 192.168.56.11 lookup 9\" and \
                \"sysctl -w net.ipv4.udp_l3mdev_accept=1\"";
    let sysctls = &mut observed.around.sysctls;
    sysctls.insert(setting.clone(), "0".to_owned());
    assert!(told(&observed).ends_with(cure), "{}", told(&observed));
    observed.around.sysctls.insert(setting, "1".to_owned());
    assert_eq!(told(&observed), "");
    // Without the rule there are no ways.
    observed.around.ways = BTreeMap::new().into();
    assert!(told(&observed).ends_with(cure));
}

#[test]
fn a_subnet_that_would_hide_the_underlay_is_refused() {
    let told = |config: &str, observed: &Observed| {
        let obstacles = build(config, observed).map(|_| ()).unwrap_err();
        obstacles
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let wide = CONFIG.replace("10.244.0.0/16", "192.168.0.0/16");
    let with = |own: &str, two: &str| {
        wide.replace("10.244.1.0/24", own)
            .replace("10.244.2.0/24", two)
            .replace(
                "\"10.244.3.0/24\", \"10.244.128.0/20\"",
                "\"192.168.103.0/24\"",
            )
    };
    // Among the machines of the segment are those whom the node would no longer reach.
    let own = with("192.168.56.0/29", "192.168.102.0/24");
    let mut beside = bare();
    let eth1 = beside.around.links.get_mut(&name("eth1")).unwrap();
    eth1.addresses = vec!["192.168.56.3/24".parse().unwrap()];
    assert_eq!(
        told(&own, &beside),
        [
            "give 192.168.56.0/29 to this node in network lab: 192.168.56.3, which this node has on eth1, is in it: what is for the underlay there would be sent into the network; give the network addresses that no node has: change its cidr, and the subnets of all nodes"
        ]
    );
    // A peer's subnet around the router to others.
    let peers = with("192.168.101.0/24", "192.168.56.0/29");
    let mut routed = bare();
    let way = Way {
        link: name("eth1"),
        next_hop: [192, 168, 56, 1].into(),
        path_mtu: None,
        hops: Vec::new(),
    };
    routed.around.ways.insert([192, 168, 60, 13].into(), way);
    let found = told(&peers, &routed);
    assert!(
        matches!(&found[..], [one] if one.contains("192.168.56.1, the next hop") && one.contains("peer n2")),
        "{found:?}"
    );
    // A better route to it leads past the subnet.
    let route = "192.168.56.1/32".parse().unwrap();
    routed.around.routes.insert(route, Some(name("eth1")));
    assert!(build(&peers, &routed).is_ok());
    // This node's own VTEP behind a peer.
    let peers = with("192.168.101.0/24", "192.168.56.10/31");
    let found = told(&peers, &bare());
    assert!(
        matches!(&found[..], [one] if one.contains("192.168.56.11")),
        "{found:?}"
    );
}
