use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use super::{Desired, Inputs, Obstacle, Problem, desired};
use crate::{
    config,
    model::{IfName, Model},
    objects::{AttachmentState, Capacity, Hook, LinkId, LinkKind, Objects},
    plan::plan,
    state::Content,
    surroundings::{EndpointPlace, NodeLink, Observed, Way},
};

mod alone;
mod dual_stack;
mod few;
mod full;
mod hooks;
mod packet_filter;
mod rotation;
mod settings;
mod uplinks;
mod wireguard;

const CONFIG: &str = r#"
[node]
name = "n1"
underlay = "eth1"
[[networks]]
name = "lab"
vni = 7
cidr = "10.244.0.0/16"
subnet = "10.244.1.0/24"
[[networks.peers]]
name = "n2"
vtep = "192.168.56.12"
subnet = "10.244.2.0/24"
[[networks.peers]]
name = "n3"
vtep = "192.168.60.13"
subnet = ["10.244.3.0/24", "10.244.128.0/20"]
[[endpoints]]
name = "web"
network = "lab"
netns = "web"
"#;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A node as it is before the agent: an underlay, and a route to one of two peers.
fn bare() -> Observed {
    let mut observed = Observed::default();
    let eth1 = NodeLink {
        index: 2,
        mtu: 1500,
        addresses: vec!["192.168.56.11/24".parse().unwrap()],
        ..NodeLink::default()
    };
    observed.around.links.insert(name("eth1"), eth1);
    let vtep = IpAddr::from([192, 168, 56, 12]);
    observed.around.ways.insert(
        vtep,
        Way {
            link: name("eth1"),
            next_hop: vtep,
            path_mtu: None,
            hops: Vec::new(),
        },
    );
    observed
}

/// What the desired state of a node follows from, whose programs are attached and whose maps hold all.
fn inputs<'a>(model: &'a Model, store: &'a Content, observed: &'a Observed) -> Inputs<'a> {
    Inputs {
        model,
        store,
        observed,
        loaded: true,
        attached: true,
        capacity: Capacity::default(),
        before: None,
        late: None,
        translated: None,
    }
}

fn build(config: &str, observed: &Observed) -> Result<Desired, Vec<Obstacle>> {
    build_within(config, observed, Capacity::default())
}

/// The same with maps that hold so much.
fn build_within(
    config: &str,
    observed: &Observed,
    capacity: Capacity,
) -> Result<Desired, Vec<Obstacle>> {
    let model = config::parse(Path::new("t.toml"), config).unwrap();
    let mut store = Content::new("n1".parse().unwrap());
    store.allocate(&model);
    let inputs = Inputs {
        capacity,
        ..inputs(&model, &store, observed)
    };
    desired(inputs).map_err(|obstacles| obstacles.0)
}

#[test]
fn a_network_has_a_last_resort_unless_that_would_cut_a_tunnel_off() {
    let last_resorts = |config: &str, observed: &Observed| {
        let Desired {
            objects, problems, ..
        } = build(config, observed).unwrap();
        let ranges = objects.last_resorts.iter();
        let ranges: Vec<String> = ranges.map(ToString::to_string).collect();
        let around = |problem: &&Problem| matches!(problem, Problem::RangeAroundVtep { .. });
        (ranges, problems.iter().filter(around).count())
    };
    let whole = |cidr: &str| (vec![cidr.to_owned()], 0);
    assert_eq!(last_resorts(CONFIG, &bare()), whole("10.244.0.0/16"));
    // 192.168.56.12 is on the link, 192.168.60.13 behind a router.
    let wide = CONFIG
        .replace("10.244.0.0/16", "192.168.0.0/16")
        .replace("10.244.1.0/24", "192.168.101.0/24")
        .replace("10.244.2.0/24", "192.168.102.0/24")
        .replace(
            "\"10.244.3.0/24\", \"10.244.128.0/20\"",
            "\"192.168.103.0/24\"",
        );
    assert_eq!(last_resorts(&wide, &bare()), (vec![], 1));
    let mut routed = bare();
    let route = "192.168.60.0/24".parse().unwrap();
    routed.around.routes.insert(route, Some(name("eth1")));
    assert_eq!(last_resorts(&wide, &routed), whole("192.168.0.0/16"));
}

#[test]
fn a_node_is_planned_from_nothing_and_the_second_plan_is_empty() {
    let first = build(CONFIG, &bare()).unwrap();
    let steps = plan(&Objects::default(), &first.objects).to_string();
    let expected = [
        "add namespace web",
        "add bridge ovlbr7 address 02:47:0a:f4:01:01 mtu 1450",
        "add veth ovl-web peer eth0 of endpoint web mtu 1450 master ovlbr7",
        "set link eth0 of endpoint web up",
        "add vxlan ovl7 id 7 local 192.168.56.11 dstport 4789 nolearning address 02:4f:c0:a8:38:0b mtu 1450",
        "set net/ipv4/ip_forward to 1",
        "add address 10.244.1.1/24 to ovlbr7",
        "add address 10.244.1.2/24 to eth0 of endpoint web",
        "set neighbour 10.244.2.0 lladdr 02:4f:c0:a8:38:0c dev ovl7",
        "set fdb 02:4f:c0:a8:38:0c dst 192.168.56.12 dev ovl7",
        "set route 10.244.2.0/24 via 10.244.2.0 dev ovl7 onlink src 10.244.1.1 metric 1027",
        "set route 0.0.0.0/0 via 10.244.1.1 dev eth0 of endpoint web",
        "map network 7",
        "map VTEP 192.168.56.12 of network 7 as slot 1",
        "map 10.244.2.0/24 of network 7 to VTEP 192.168.56.12 via 192.168.56.12 dev eth1",
        "count for ovl-web in slot 2",
        "map endpoint 10.244.1.2 of network 7 to ovl-web at 02:45:0a:f4:01:02",
        "map port ovl7 of network 7",
        "attach from_underlay to eth1",
        "attach from_endpoint to ovl-web",
        "attach to_endpoint to ovl-web",
        "attach from_host to ovl7",
    ];
    let mut rest = steps.as_str();
    for step in expected {
        let at = rest
            .find(&format!("{step}\n"))
            .unwrap_or_else(|| panic!("{step:?} is not in order in\n{steps}"));
        rest = &rest[at..];
    }
    let second = Observed {
        objects: first.objects.clone(),
        ..bare()
    };
    let again = build(CONFIG, &second).unwrap();
    assert_eq!(plan(&second.objects, &again.objects).to_string(), "");
}

/// A node that has lost its underlay's routes tells so once, not for each of very many peers.
#[test]
fn of_many_peers_without_a_route_some_are_named_and_the_others_counted() {
    let more = (1..=12).map(|n| {
        format!(
            "[[networks.peers]]\nname = \"m{n}\"\nvtep = \"192.168.61.{n}\"\nsubnet = \"10.244.{}.0/24\"\n",
            100 + n
        )
    });
    let config = CONFIG.to_owned() + "\n" + &more.collect::<String>();
    let problems = build(&config, &bare()).unwrap().problems;
    let named = problems.iter();
    let named = named.filter(|problem| matches!(problem, Problem::NoWay { .. }));
    assert_eq!(named.count(), 10, "{problems:?}");
    let counted = problems.iter().find_map(|problem| match problem {
        Problem::NoWayToMore { peers, .. } => Some(*peers),
        _ => None,
    });
    // One of the configuration's own has none either.
    assert_eq!(counted, Some(3), "{problems:?}");
}

#[test]
fn a_peer_without_a_route_keeps_its_entry_and_is_told() {
    let desired = build(CONFIG, &bare()).unwrap();
    let vtep = IpAddr::from([192, 168, 60, 13]);
    assert_eq!(
        desired.problems,
        [Problem::NoWay {
            peer: "n3".parse().unwrap(),
            vtep
        }]
    );
    let entries: Vec<String> = desired
        .objects
        .peers
        .entries
        .subnets
        .iter()
        .map(|((_, net), peer)| format!("{net} {}", peer.underlay))
        .collect();
    assert_eq!(
        entries,
        [
            "10.244.2.0/24 eth1",
            "10.244.3.0/24 ifindex 0 (gone)",
            "10.244.128.0/20 ifindex 0 (gone)"
        ]
    );
}

#[test]
fn prefix_lengths_are_listed_longest_first() {
    let desired = build(CONFIG, &bare()).unwrap();
    let network = desired.objects.entries.networks.values().next().unwrap();
    assert_eq!(network.peer_lengths4[..3], [24, 20, 0]);
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_planned() {
    let with = |link: &str, change: fn(&mut NodeLink)| {
        let mut observed = bare();
        change(observed.around.links.entry(name(link)).or_default());
        build(CONFIG, &observed)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        with("ovlbr7", |_| {}),
        [
            "make device ovlbr7: the name is taken by a device that this instance did not make; see whose it is with \"ip -d link show ovlbr7\", and give it another name with \"ip link set dev ovlbr7 name x-ovlbr7\", or choose another VNI"
        ]
    );
    // The same node under another name, perhaps: all that it has is told at once.
    let other = |link: &mut NodeLink| link.owner = Some("old".parse().unwrap());
    assert_eq!(
        with("ovlbr7", other),
        [
            "make the devices of network lab: instance old of this node has ovlbr7; if this node was called old before, run it with \"--instance old\", or remove what it left with \"overlay-agent down --instance old\"; else choose another VNI"
        ]
    );
    assert_eq!(
        with("flannel.1", |link| link.vxlan_port = Some(4789)),
        [
            "open UDP port 4789 for network lab: VXLAN device flannel.1 has UDP port 4789; see whose it is with \"ip -d link show flannel.1\", and have it use another port, or choose another port"
        ]
    );
    assert_eq!(
        with("cni0", |link| link.addresses =
            vec!["10.244.1.1/24".parse().unwrap()]),
        [
            "give 10.244.1.1 to ovlbr7 as gateway of network lab: the address is in use on cni0; remove it there, or choose another subnet"
        ]
    );
    assert_eq!(
        with("eth1", |link| link.addresses = Vec::new()),
        [
            "use underlay eth1: no global IPv4 or IPv6 address there that stays; add one with \"ip address add\""
        ]
    );
    let text = CONFIG.replace("\"eth1\"", "\"eth9\"");
    assert_eq!(
        build(&text, &bare()).unwrap_err()[0].to_string(),
        "use underlay eth9: there is no such interface (there are: eth1); correct node.underlay"
    );
    let text = CONFIG.replace("vni = 7", "vni = 7\nmtu = 1451");
    assert_eq!(
        build(&text, &bare()).unwrap_err()[0].to_string(),
        "set MTU 1451 on network lab: the underlay's 1500 leaves 1450 bytes; use mtu = \"auto\", or raise the underlay's MTU"
    );
    let mut observed = bare();
    observed
        .around
        .routes
        .insert("10.244.2.0/24".parse().unwrap(), Some(name("eth1")));
    assert_eq!(
        build(CONFIG, &observed).unwrap_err()[0].to_string(),
        "add route 10.244.2.0/24 for peer n2: there is a route already, through eth1; remove it with \"ip route del 10.244.2.0/24\""
    );
}

#[test]
fn a_container_that_cannot_be_attached_leaves_the_rest_in_place() {
    let mut observed = bare();
    let there = EndpointPlace::There {
        interface_taken: true,
        default_routes: BTreeMap::new(),
    };
    observed
        .around
        .endpoints
        .insert("web".parse().unwrap(), there);
    let desired = build(CONFIG, &observed).unwrap();
    assert!(
        desired
            .problems
            .iter()
            .any(|problem| matches!(problem, Problem::InterfaceTaken { .. }))
    );
    assert!(
        desired
            .objects
            .links
            .contains_key(&LinkId::node(name("ovl7")))
    );
    assert!(
        !desired
            .objects
            .links
            .contains_key(&LinkId::node(name("ovl-web")))
    );
}

#[test]
fn without_programs_the_kernel_s_objects_are_the_same() {
    let model = config::parse(Path::new("t.toml"), CONFIG).unwrap();
    let mut store = Content::new("n1".parse().unwrap());
    store.allocate(&model);
    let observed = bare();
    let with = |loaded, attached| {
        desired(Inputs {
            loaded,
            attached,
            ..inputs(&model, &store, &observed)
        })
        .unwrap()
        .objects
    };
    let (fast, off, none) = (with(true, true), with(true, false), with(false, true));
    assert_eq!(fast.links, none.links);
    assert_eq!(fast.peers.routes, none.peers.routes);
    assert!(none.attachments.is_empty() && none.peers.entries.subnets.is_empty());
    assert!(off.attachments.is_empty());
    assert_eq!(off.entries, fast.entries);
    assert!(
        fast.attachments
            .contains_key(&(name("eth1"), Hook::FromUnderlay))
    );
    assert!(matches!(
        fast.links[&LinkId::node(name("ovl7"))].kind,
        LinkKind::Vxlan(_)
    ));
}

#[test]
fn maps_of_another_build_stay_while_its_programs_may_run() {
    let layouts = |state| {
        let mut observed = bare();
        observed.objects.layouts.insert(1);
        let hook = (name("eth1"), Hook::FromUnderlay);
        observed.objects.attachments.insert(hook, state);
        build(CONFIG, &observed).unwrap().objects.layouts
    };
    assert_eq!(layouts(AttachmentState::Outdated), BTreeSet::from([1]));
    assert_eq!(layouts(AttachmentState::Current), BTreeSet::new());
}
