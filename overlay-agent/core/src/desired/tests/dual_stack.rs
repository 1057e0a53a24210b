//! Both families inside and outside, several networks, and what follows from them.

use std::net::IpAddr;

use overlay_common::maps::{endpoint_flags, network_flags};

use super::{bare, build, name};
use crate::{
    desired::{Desired, Problem, peers},
    objects::{Hook, LinkId, LinkKind, LinkRef, Objects, RouteKey, Scope},
    plan::plan,
    surroundings::{EndpointPlace, Observed, Way},
};

pub(super) const CONFIG: &str = r#"
[node]
name = "n1"
underlay = "eth1"
guard = "native"
[[networks]]
name = "lab"
vni = 7
cidr = ["10.244.0.0/16", "fd00:244::/48"]
subnet = ["10.244.1.0/24", "fd00:244:0:1::/64"]
dscp = "copy"
security = { martians = "accept" }
[[networks.peers]]
name = "n2"
vtep = "192.168.56.12"
subnet = ["10.244.2.0/24", "fd00:244:0:2::/64"]
[[networks.peers]]
name = "n3"
vtep = "fd56::13"
subnet = ["10.244.3.0/24", "fd00:244:0:3::/64"]
udp6_checksum = true
[[endpoints]]
name = "web"
network = "lab"
netns = "web"
forwarding = true
allowed_sources = ["10.99.0.0/24", "fd99::/64"]
"#;

/// A node with both families on its underlay, and a way to both peers.
pub(super) fn dual() -> Observed {
    let mut observed = bare();
    let eth1 = observed.around.links.get_mut(&name("eth1")).unwrap();
    eth1.addresses.push("fd56::11/64".parse().unwrap());
    let vtep: IpAddr = "fd56::13".parse().unwrap();
    let way = Way {
        link: name("eth1"),
        next_hop: "fe80::1".parse().unwrap(),
        path_mtu: None,
        hops: Vec::new(),
    };
    observed.around.ways.insert(vtep, way);
    observed
}

pub(super) fn built(config: &str, observed: &Observed) -> Desired {
    build(config, observed).unwrap_or_else(|obstacles| panic!("{obstacles:?}"))
}

fn mtu(desired: &Desired, device: &str) -> u32 {
    desired.objects.links[&LinkId::node(name(device))].mtu
}

#[test]
fn each_family_goes_the_way_of_its_peer_and_the_second_plan_is_empty() {
    let first = built(CONFIG, &dual());
    assert_eq!(first.problems, []);
    let steps = plan(&Objects::default(), &first.objects).to_string();
    let expected = [
        "add bridge ovlbr7 address 02:47:0a:f4:01:01 mtu 1430",
        "add veth ovl-web peer eth0 of endpoint web mtu 1430 master ovlbr7",
        "add vxlan ovl6-7 id 7 local fd56::11 dstport 4789 nolearning tos inherit address 02:36:",
        "add vxlan ovl7 id 7 local 192.168.56.11 dstport 4789 nolearning tos inherit address 02:4f:c0:a8:38:0b mtu 1430",
        "set net/ipv6/conf/ovlbr7/accept_dad to 0\n",
        "set net/ipv6/conf/all/forwarding to 1\n",
        "set link ovlbr7 up\n",
        "add address 10.244.1.1/24 to ovlbr7",
        "add address fd00:244:0:1::1/64 to ovlbr7",
        "add address 10.244.1.2/24 to eth0 of endpoint web",
        "add address fd00:244:0:1::2/64 to eth0 of endpoint web",
        "set neighbour 10.244.3.0 lladdr 02:36:",
        "set neighbour fd00:244:0:3:: lladdr 02:36:",
        "set neighbour 10.244.2.0 lladdr 02:4f:c0:a8:38:0c dev ovl7",
        "set neighbour fd00:244:0:2:: lladdr 02:4f:c0:a8:38:0c dev ovl7",
        "set route 10.244.2.0/24 via 10.244.2.0 dev ovl7 onlink src 10.244.1.1 metric 1027",
        "set route 10.244.3.0/24 via 10.244.3.0 dev ovl6-7 onlink src 10.244.1.1 metric 1028",
        "set route fd00:244:0:2::/64 via fd00:244:0:2:: dev ovl7 onlink src fd00:244:0:1::1 metric 1024",
        "set route fd00:244:0:3::/64 via fd00:244:0:3:: dev ovl6-7 onlink src fd00:244:0:1::1 metric 1024",
        "set route 10.99.0.0/24 via 10.244.1.2 dev ovlbr7\n",
        "set route fd99::/64 via fd00:244:0:1::2 dev ovlbr7 metric 1024\n",
        "set route 0.0.0.0/0 via 10.244.1.1 dev eth0 of endpoint web",
        "set route ::/0 via fd00:244:0:1::1 dev eth0 metric 1024 of endpoint web",
        "map VTEP fd56::13 of network 7 as slot 2",
        "map 10.244.3.0/24 of network 7 to VTEP fd56::13 via fe80::1 dev eth1",
        "map fd00:244:0:3::/64 of network 7 to VTEP fd56::13 via fe80::1 dev eth1",
        "map endpoint fd00:244:0:1::2 of network 7 to ovl-web at 02:45:0a:f4:01:02",
        "map source 10.99.0.0/24 of port ovl-web",
        "map source fd99::/64 of port ovl-web",
        "map cidr fd00:244::/48 of network 7",
        "attach from_underlay to eth1",
        "attach underlay_guard_native to eth1",
        "attach from_host to ovl6-7",
        "attach from_host to ovl7",
    ];
    let mut rest = steps.as_str();
    for step in expected {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("{step:?} is not in order in\n{steps}"));
        rest = &rest[at..];
    }
    let second = Observed {
        objects: first.objects,
        ..dual()
    };
    let again = built(CONFIG, &second);
    assert_eq!(plan(&second.objects, &again.objects).to_string(), "");
}

#[test]
fn the_maps_tell_what_is_special() {
    let objects = built(CONFIG, &dual()).objects;
    let entries = &objects.entries;
    let network = entries.networks.values().next().unwrap();
    assert_eq!(
        network.flags,
        network_flags::MARTIANS | network_flags::COPY_DSCP
    );
    assert_eq!(network.vtep, [192, 168, 56, 11]);
    let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    assert_eq!(network.vtep6, ip("fd56::11"));
    assert_eq!(network.subnet6, ip("fd00:244:0:1::"));
    assert_eq!(network.subnet6_mask, ip("ffff:ffff:ffff:ffff::"));
    assert_eq!(network.peer_lengths4[..2], [24, 0]);
    assert_eq!(network.peer_lengths6[..2], [64, 0]);
    let checksums: Vec<bool> = objects
        .peers
        .entries
        .subnets
        .values()
        .map(|p| p.needs_checksum)
        .collect();
    assert_eq!(checksums, [false, true, false, true]);
    let port = |device: &str| entries.ports[&LinkRef::Name(name(device))];
    assert_eq!(port("ovl7").mac, network.vtep_mac);
    assert_eq!(port("ovl6-7").mac, network.vtep6_mac);
    let web = port("ovl-web");
    assert_eq!(web.flags, endpoint_flags::FORWARDING);
    assert_eq!(
        (web.address, web.address6),
        ([10, 244, 1, 2], ip("fd00:244:0:1::2"))
    );
}

#[test]
fn a_path_that_is_narrow_is_told_to_the_programs_and_to_the_routes() {
    let mut observed = dual();
    for way in observed.around.ways.values_mut() {
        way.path_mtu = Some(1400);
    }
    let objects = built(CONFIG, &observed).objects;
    for (prefix, peer) in &objects.peers.entries.subnets {
        let mtu = if peer.vtep.is_ipv6() { 1330 } else { 1350 };
        assert_eq!(peer.mtu, mtu, "{prefix:?}");
        let key = RouteKey {
            scope: Scope::Node,
            destination: prefix.1,
            metric: peers::metric(prefix.1),
        };
        let narrow = objects.peers.routes[&key].mtu;
        assert_eq!(narrow, Some(mtu.into()), "{prefix:?}");
    }
}

#[test]
fn a_tunnel_is_there_for_each_family_that_a_peer_uses() {
    let devices = |config: &str| -> Vec<String> {
        let desired = built(config, &dual());
        let links = desired.objects.links.into_iter();
        links
            .filter(|(_, link)| matches!(link.kind, LinkKind::Vxlan(_)) && link.up)
            .map(|(id, _)| id.to_string())
            .collect()
    };
    assert_eq!(devices(CONFIG), ["ovl6-7", "ovl7"]);
    let over6 = CONFIG.replace("192.168.56.12", "fd56::12");
    assert_eq!(devices(&over6), ["ovl6-7"]);
    let alone = &CONFIG[..CONFIG.find("[[networks.peers]]").unwrap()];
    assert_eq!(devices(alone), ["ovl7"]);
    let only6 = alone.replace("\"eth1\"", "\"fd56::11\"");
    // The other family of the same interface can be joined, too.
    assert_eq!(devices(&only6), ["ovl7"]);
}

#[test]
fn the_headroom_is_that_of_the_larger_tunnel() {
    let local = |config: &str| {
        let desired = built(config, &dual());
        match &desired.objects.links[&LinkId::node(name("ovlpad7"))].kind {
            LinkKind::Vxlan(vxlan) => vxlan.local.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(local(CONFIG), "fd56::11");
    let over4 = &CONFIG[..CONFIG.rfind("[[networks.peers]]").unwrap()];
    assert_eq!(local(over4), "192.168.56.11");
}

#[test]
fn one_peer_over_ipv6_makes_room_for_its_headers_in_the_whole_network() {
    assert_eq!(mtu(&built(CONFIG, &dual()), "ovl7"), 1430);
    let over4 = &CONFIG[..CONFIG.rfind("[[networks.peers]]").unwrap()];
    assert_eq!(mtu(&built(over4, &dual()), "ovl7"), 1450);
    let mut jumbo = dual();
    jumbo.around.links.get_mut(&name("eth1")).unwrap().mtu = 9000;
    assert_eq!(mtu(&built(CONFIG, &jumbo), "ovl-web"), 8930);
    let mut small = dual();
    small.around.links.get_mut(&name("eth1")).unwrap().mtu = 1349;
    assert_eq!(
        build(CONFIG, &small).unwrap_err()[0].to_string(),
        "set MTU 1279 on network lab: IPv6 needs 1280 bytes and the underlay has 1349; raise the underlay's MTU to 1350, or remove the network's IPv6 subnets"
    );
}

#[test]
fn a_peer_of_a_family_that_the_underlay_lacks_is_left_out_and_told() {
    let desired = built(CONFIG, &bare());
    let vtep: IpAddr = "fd56::13".parse().unwrap();
    let problem = Problem::NoTunnel {
        peer: "n3".parse().unwrap(),
        vtep,
        family: crate::model::Family::V6,
    };
    assert_eq!(desired.problems, [problem]);
    let routes: Vec<String> = desired
        .objects
        .peers
        .routes
        .iter()
        .filter(|(_, route)| route.dev == name("ovl7"))
        .map(|(key, _)| key.destination.to_string())
        .collect();
    assert_eq!(routes, ["10.244.2.0/24", "fd00:244:0:2::/64"]);
}

#[test]
fn a_new_address_of_the_underlay_does_not_move_the_tunnels() {
    let mut observed = dual();
    observed.objects = built(CONFIG, &dual()).objects;
    let eth1 = observed.around.links.get_mut(&name("eth1")).unwrap();
    eth1.addresses.insert(0, "fd56::99/64".parse().unwrap());
    let again = built(CONFIG, &observed);
    assert_eq!(again.facts.vteps[1].to_string(), "fd56::11");
    assert_eq!(plan(&observed.objects, &again.objects).to_string(), "");
    // Once the old one is gone, a node without a memory has no choice.
    let eth1 = observed.around.links.get_mut(&name("eth1")).unwrap();
    eth1.addresses
        .retain(|net| net.to_string() != "fd56::11/64");
    let moved = built(CONFIG, &observed);
    assert_eq!(moved.facts.vteps[1].to_string(), "fd56::99");
}

#[test]
fn a_default_route_of_one_family_does_not_keep_the_other_out() {
    let mut observed = dual();
    let there = EndpointPlace::There {
        interface_taken: false,
        default_routes: [(crate::model::Family::V6, "wlan0".to_owned())].into(),
    };
    observed
        .around
        .endpoints
        .insert("web".parse().unwrap(), there);
    let desired = built(CONFIG, &observed);
    assert_eq!(
        desired.problems[0].to_string(),
        "route endpoint web: it has an IPv6 default route through wlan0 already, and ours is left out; add routes to the overlay there yourself"
    );
    let steps = plan(&Objects::default(), &desired.objects).to_string();
    assert!(steps.contains("set route 0.0.0.0/0 via"), "{steps}");
    assert!(!steps.contains("set route ::/0 via"), "{steps}");
}

#[test]
fn what_is_behind_an_endpoint_is_not_taken_from_others() {
    let mut observed = dual();
    observed
        .around
        .routes
        .insert("10.99.0.0/24".parse().unwrap(), Some(name("eth1")));
    let desired = built(CONFIG, &observed);
    assert_eq!(
        desired.problems[0].to_string(),
        "lead 10.99.0.0/24 to endpoint web: there is a route already, through eth1; remove it with \"ip route del 10.99.0.0/24\""
    );
}

#[test]
fn the_guard_runs_as_configured_and_only_with_the_programs() {
    let hooks = |guard: &str| -> Vec<Hook> {
        let desired = built(&CONFIG.replace("\"native\"", guard), &dual());
        let attachments = desired.objects.attachments.into_keys();
        attachments
            .filter(|(device, _)| *device == name("eth1"))
            .map(|(_, hook)| hook)
            .collect()
    };
    assert_eq!(hooks("\"off\""), [Hook::FromUnderlay]);
    assert_eq!(hooks("\"native\""), [Hook::FromUnderlay, Hook::GuardNative]);
    assert_eq!(
        hooks("\"generic\""),
        [Hook::FromUnderlay, Hook::GuardGeneric]
    );
}

#[test]
fn routers_are_still_listened_to_where_they_were() {
    let key = |device: &str| format!("net/ipv6/conf/{device}/accept_ra");
    let wanted = |forwarding: &str, accept: &str| {
        let mut observed = dual();
        let sysctls = &mut observed.around.sysctls;
        sysctls.insert(
            "net/ipv6/conf/all/forwarding".to_owned(),
            forwarding.to_owned(),
        );
        sysctls.insert(key("eth1"), accept.to_owned());
        let sysctls = built(CONFIG, &observed).objects.sysctls;
        sysctls.get(&key("eth1")).cloned()
    };
    assert_eq!(wanted("0", "1").as_deref(), Some("2"));
    assert_eq!(wanted("0", "0"), None);
    // A router before us: it did not listen then, and does not need to now.
    assert_eq!(wanted("1", "1"), None);
    let only4 = super::CONFIG;
    let sysctls = built(only4, &bare()).objects.sysctls;
    assert!(
        sysctls.keys().all(|key| !key.contains("ipv6")),
        "{sysctls:?}"
    );
}
