use std::collections::BTreeMap;

use bytemuck::Zeroable as _;
use overlay_common::maps;

use super::{Step, plan};
use crate::{
    model::{IfName, Mac, Vni},
    objects::{
        Address, AttachmentState, Filter, FilterRules, Hook, Link, LinkId, LinkKind, LinkRef,
        Masquerade, Objects, Outer, Route, RouteKey, Scope, Vxlan,
    },
};

mod properties;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn inside() -> LinkId {
    LinkId {
        scope: Scope::Endpoint("web".parse().unwrap()),
        name: name("eth0"),
    }
}

fn link(kind: LinkKind) -> Link {
    Link {
        kind,
        mac: None,
        mtu: 1450,
        up: true,
        master: None,
        alias: Some("overlay:n1".to_owned()),
        altered: false,
        oversized: false,
    }
}

fn vxlan(port: u16) -> LinkKind {
    LinkKind::Vxlan(Vxlan {
        vni: 1.try_into().unwrap(),
        port,
        local: [192, 168, 56, 11].into(),
        source_ports: (49_152, 65_535),
        learning: false,
        copies_dscp: false,
    })
}

/// A bridge, a VXLAN device with a peer, and one endpoint.
fn node() -> Objects {
    let mut objects = Objects::default();
    objects
        .links
        .insert(LinkId::node(name("ovlbr1")), link(LinkKind::Bridge));
    objects
        .links
        .insert(LinkId::node(name("ovl1")), link(vxlan(4789)));
    let veth = Link {
        master: Some(name("ovlbr1")),
        ..link(LinkKind::Veth { peer: inside() })
    };
    objects.links.insert(LinkId::node(name("ovl-web")), veth);
    objects.links.insert(
        inside(),
        Link {
            alias: None,
            ..link(LinkKind::VethPeer {
                host: name("ovl-web"),
            })
        },
    );
    objects.addresses.insert(Address {
        link: LinkId::node(name("ovlbr1")),
        net: "10.244.1.1/24".parse().unwrap(),
    });
    let mac: Mac = "02:4f:c0:a8:38:0c".parse().unwrap();
    objects
        .peers
        .neighbours
        .insert((name("ovl1"), [10, 244, 2, 0].into()), mac);
    objects.peers.fdb.insert(
        (name("ovl1"), mac),
        Outer {
            vtep: [192, 168, 56, 12].into(),
            via: None,
        },
    );
    objects.peers.routes.insert(
        RouteKey {
            scope: Scope::Node,
            destination: "10.244.2.0/24".parse().unwrap(),
            metric: 3,
        },
        Route {
            dev: name("ovl1"),
            via: [10, 244, 2, 0].into(),
            onlink: true,
            source: Some([10, 244, 1, 1].into()),
            mtu: None,
        },
    );
    objects.attachments.insert(
        (name("ovl-web"), Hook::FromEndpoint),
        AttachmentState::Current,
    );
    objects
        .attachments
        .insert((name("ovl1"), Hook::FromHost), AttachmentState::Current);
    objects
}

fn steps(observed: &Objects, desired: &Objects) -> Vec<String> {
    plan(observed, desired)
        .steps()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nothing_is_done_where_nothing_differs() {
    assert!(plan(&node(), &node()).is_empty());
}

#[test]
fn everything_goes_top_down_and_devices_take_what_is_on_them() {
    assert_eq!(
        steps(&node(), &Objects::default()),
        [
            "delete link ovl-web",
            "delete link ovl1",
            "delete link ovlbr1",
            // Of programs that went with their devices, what is pinned.
            "detach from_endpoint from ovl-web",
            "detach from_host from ovl1",
        ]
    );
}

#[test]
fn programs_on_devices_that_stay_are_detached_before_what_they_read_goes() {
    let vni = Vni::try_from(1).unwrap();
    let mut observed = node();
    observed
        .entries
        .networks
        .insert(vni, maps::Network::zeroed());
    let mut desired = node();
    desired.attachments.clear();
    assert_eq!(
        steps(&observed, &desired),
        [
            "detach from_endpoint from ovl-web",
            "detach from_host from ovl1",
            "unmap network 1",
        ]
    );
}

#[test]
fn a_changed_device_is_changed_and_not_made_anew() {
    let mut observed = node();
    let bridge = observed
        .links
        .get_mut(&LinkId::node(name("ovlbr1")))
        .unwrap();
    bridge.mtu = 1500;
    bridge.up = false;
    assert_eq!(
        steps(&observed, &node()),
        ["set link ovlbr1 mtu 1450", "set link ovlbr1 up"]
    );
}

#[test]
fn a_vxlan_device_of_another_port_is_made_anew_with_all_that_was_on_it() {
    let mut desired = node();
    desired
        .links
        .insert(LinkId::node(name("ovl1")), link(vxlan(8472)));
    assert_eq!(
        steps(&node(), &desired),
        [
            "delete link ovl1",
            "add vxlan ovl1 id 1 local 192.168.56.11 dstport 8472 nolearning mtu 1450",
            "set neighbour 10.244.2.0 lladdr 02:4f:c0:a8:38:0c dev ovl1",
            "set fdb 02:4f:c0:a8:38:0c dst 192.168.56.12 dev ovl1",
            "set route 10.244.2.0/24 via 10.244.2.0 dev ovl1 onlink src 10.244.1.1 metric 3",
            "attach from_host to ovl1",
        ]
    );
}

#[test]
fn a_bridge_that_is_made_anew_brings_back_the_routes_that_prefer_its_address() {
    let mut observed = node();
    observed.links.remove(&LinkId::node(name("ovlbr1")));
    observed.addresses.clear();
    let veth = observed
        .links
        .get_mut(&LinkId::node(name("ovl-web")))
        .unwrap();
    veth.master = None;
    assert_eq!(
        steps(&observed, &node()),
        [
            "add bridge ovlbr1 mtu 1450",
            "set link ovl-web master ovlbr1",
            "add address 10.244.1.1/24 to ovlbr1",
            "set route 10.244.2.0/24 via 10.244.2.0 dev ovl1 onlink src 10.244.1.1 metric 3",
        ]
    );
}

#[test]
fn a_veth_whose_inside_is_gone_is_made_anew() {
    let mut observed = node();
    observed.links.remove(&inside());
    observed
        .links
        .insert(LinkId::node(name("ovl-web")), link(LinkKind::Other));
    assert_eq!(
        steps(&observed, &node()),
        [
            "delete link ovl-web",
            "add veth ovl-web peer eth0 of endpoint web mtu 1450 master ovlbr1",
            "set link eth0 of endpoint web up",
            "attach from_endpoint to ovl-web",
        ]
    );
}

#[test]
fn programs_of_an_earlier_agent_are_replaced_and_detached_ones_attached() {
    let mut observed = node();
    observed.attachments = BTreeMap::from([
        (
            (name("ovl-web"), Hook::FromEndpoint),
            AttachmentState::Outdated,
        ),
        ((name("ovl1"), Hook::FromHost), AttachmentState::Broken),
        ((name("gone0"), Hook::FromUnderlay), AttachmentState::Broken),
    ]);
    assert_eq!(
        steps(&observed, &node()),
        [
            "attach from_endpoint to ovl-web",
            "attach from_host to ovl1",
            "detach from_underlay from gone0",
        ]
    );
}

#[test]
fn maps_of_another_build_go_after_the_programs_that_read_them() {
    let mut observed = node();
    observed.layouts.insert(1);
    observed
        .attachments
        .insert((name("gone0"), Hook::FromUnderlay), AttachmentState::Broken);
    assert_eq!(
        steps(&observed, &node()),
        [
            "detach from_underlay from gone0",
            "remove the maps of ABI 1"
        ]
    );
}

#[test]
fn a_map_entry_of_a_vanished_device_is_removed() {
    let mut observed = node();
    let port = bytemuck::Zeroable::zeroed();
    observed.entries.ports.insert(LinkRef::Gone(42), port);
    assert_eq!(steps(&observed, &node()), ["unmap port ifindex 42 (gone)"]);
}

#[test]
fn settings_of_all_devices_come_after_those_of_one() {
    let value = |value: &str| {
        [
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/eth1/accept_ra",
        ]
        .map(|key| (key.to_owned(), value.to_owned()))
        .into()
    };
    let observed = Objects {
        sysctls: value("0"),
        ..Objects::default()
    };
    let desired = Objects {
        sysctls: value("2"),
        ..Objects::default()
    };
    assert_eq!(
        steps(&observed, &desired),
        [
            "set net/ipv6/conf/eth1/accept_ra from 0 to 2",
            "set net/ipv6/conf/all/forwarding from 0 to 2",
        ]
    );
}

#[test]
fn a_device_is_up_once_it_has_its_settings() {
    let mut desired = Objects::default();
    let bridge = LinkId::node(name("ovlbr1"));
    desired.links.insert(bridge, link(LinkKind::Bridge));
    let key = "net/ipv6/conf/ovlbr1/accept_dad".to_owned();
    desired.sysctls.insert(key, "0".to_owned());
    let plan = plan(&Objects::default(), &desired);
    let born_up = plan.steps().iter().find_map(|step| match step {
        Step::CreateLink { link, .. } => Some(link.up),
        _ => None,
    });
    assert_eq!(born_up, Some(false));
    assert_eq!(
        steps(&Objects::default(), &desired),
        [
            "add bridge ovlbr1 mtu 1450",
            "set net/ipv6/conf/ovlbr1/accept_dad to 0",
            "set link ovlbr1 up",
        ]
    );
    assert_eq!(steps(&desired, &desired), [""; 0]);
}

#[test]
fn packet_filter_rules_come_before_addresses_and_go_after_devices() {
    let rules = FilterRules {
        isolated: [name("ovlbr1"), name("ovl1")].into(),
        together: [(name("ovlbr1"), name("ovl1"))].into(),
        masqueraded: [Masquerade {
            subnet: "10.244.1.0/24".parse().unwrap(),
            cidr: "10.244.0.0/16".parse().unwrap(),
            inside: [name("ovlbr1")].into(),
        }]
        .into(),
    };
    let desired = Objects {
        filter: Some(Filter::Rules(rules)),
        ..node()
    };
    let set = "set packet filter rules isolate ovl1,ovlbr1 but 1 pair masquerade 10.244.1.0/24 to other than 10.244.0.0/16";
    assert_eq!(steps(&node(), &desired), [set]);
    let all = steps(&Objects::default(), &desired);
    let place = |text: &str| all.iter().position(|step| step.starts_with(text)).unwrap();
    assert!(place(set) < place("add address"), "{all:?}");

    let altered = Objects {
        filter: Some(Filter::Altered),
        ..node()
    };
    assert_eq!(steps(&altered, &desired), [set]);
    assert_eq!(steps(&desired, &desired), [""; 0]);
    let removal = steps(&altered, &Objects::default());
    assert_eq!(removal.last().unwrap(), "delete packet filter rules");
}

#[test]
fn sources_follow_their_device_to_its_new_index() {
    let mut desired = node();
    let host = LinkRef::Name(name("ovl-web"));
    let prefix = "10.99.0.0/24".parse().unwrap();
    desired.entries.sources.insert((host, prefix));
    let mut observed = desired.clone();
    assert_eq!(steps(&observed, &desired), [""; 0]);
    observed.links.remove(&inside());
    observed
        .links
        .insert(LinkId::node(name("ovl-web")), link(LinkKind::Other));
    let again = steps(&observed, &desired);
    assert!(
        again.contains(&"map source 10.99.0.0/24 of port ovl-web".to_owned()),
        "{again:?}"
    );
    assert!(
        steps(&desired, &node()).contains(&"unmap source 10.99.0.0/24 of port ovl-web".to_owned())
    );
}
