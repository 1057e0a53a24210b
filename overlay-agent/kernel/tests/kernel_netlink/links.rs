//! Devices.

use std::net::Ipv4Addr;

use overlay_core::objects::{Link, LinkId, LinkKind, Scope};
use overlay_kernel::{netlink::VethPeerSpec, netns};

use crate::namespace::{Namespace, bridge, ip, mac, made, name, vxlan};

#[tokio::test]
async fn a_bridge_is_as_it_was_asked_for() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let found = made(&netlink, "ovlbr7", &bridge()).await;
    assert_eq!(found.kind.as_deref(), Some("bridge"));
    assert_eq!(found.mac, Some(mac(1).octets()));
    assert_eq!((found.mtu, found.up, found.master), (1450, true, None));
    assert_eq!(found.alias.as_deref(), Some("overlay:test:bridge"));
    let details = namespace.run("ip -d link show dev ovlbr7");
    assert!(details.contains("forward_delay 0 "), "{details}");
    assert!(details.contains("stp_state 0 "), "{details}");

    let error = netlink
        .create(&name("ovlbr7"), &bridge(), None)
        .await
        .unwrap_err();
    assert!(error.already_there());
    assert_eq!(error.to_string(), "create device ovlbr7: File exists");
    assert_eq!(
        netlink.link_by_index(found.index).await.unwrap(),
        Some(found)
    );
}

#[tokio::test]
async fn the_mtu_of_a_bridge_outlives_its_ports() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let bridge = made(&netlink, "ovlbr7", &bridge()).await;
    namespace.run("ip link add port mtu 1300 type veth peer name other");
    let port = netlink.link_by_name("port").await.unwrap().unwrap();
    netlink
        .set_master(port.index, Some(bridge.index))
        .await
        .unwrap();
    assert_eq!(
        netlink.link_by_name("port").await.unwrap().unwrap().master,
        Some(bridge.index)
    );
    netlink.set_master(port.index, None).await.unwrap();
    assert_eq!(
        netlink.link_by_name("port").await.unwrap().unwrap().master,
        None
    );
    netlink.delete_link(port.index).await.unwrap();
    assert_eq!(
        netlink.link_by_name("ovlbr7").await.unwrap().unwrap().mtu,
        1450
    );
    assert_eq!(netlink.link_by_name("other").await.unwrap(), None);
}

#[tokio::test]
async fn a_vxlan_device_is_as_it_was_asked_for() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let found = made(&netlink, "ovl7", &vxlan()).await;
    assert_eq!(found.kind.as_deref(), Some("vxlan"));
    let settings = found.vxlan.unwrap();
    assert_eq!((settings.vni, settings.port), (7, 4789));
    assert_eq!(settings.local, Some(ip("192.0.2.1")));
    assert_eq!(settings.source_ports, (49_152, 65_535));
    assert!(!settings.learning && !settings.altered && settings.copies_dscp);
    assert_eq!(
        (found.mtu, found.up, found.mac),
        (1450, true, Some(mac(2).octets()))
    );
    let details = namespace.run("ip -d link show dev ovl7");
    assert!(details.contains(" noudpcsum "), "{details}");
    assert!(details.contains(" ttl 64 "), "{details}");

    // The same VNI and port again: refused, and explained.
    let error = netlink
        .create(&name("ovl8"), &vxlan(), None)
        .await
        .unwrap_err();
    assert!(
        error.cure().unwrap().contains("VNI 7 and port 4789"),
        "{error}"
    );
    assert_eq!(netlink.link_by_name("ovl8").await.unwrap(), None);
}

#[tokio::test]
async fn a_device_that_cannot_be_finished_is_removed() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    // The UDP port is taken, so the device can be made, but not be set up.
    let taken = netns::run_in(&namespace.path(), || {
        std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4789)).unwrap()
    });
    let error = netlink
        .create(&name("ovl7"), &vxlan(), None)
        .await
        .unwrap_err();
    drop(taken);
    assert!(
        error
            .to_string()
            .contains("another program has UDP port 4789"),
        "{error}"
    );
    assert_eq!(netlink.link_by_name("ovl7").await.unwrap(), None);

    let orphan = Link {
        master: Some(name("missing")),
        ..bridge()
    };
    let error = netlink
        .create(&name("ovlbr7"), &orphan, None)
        .await
        .unwrap_err();
    assert!(error.not_there());
    assert_eq!(
        error.to_string(),
        "create device ovlbr7: No such device: missing"
    );
}

#[tokio::test]
async fn a_veth_pair_spans_two_namespaces() {
    let node = Namespace::new();
    let container = Namespace::new();
    let netlink = node.netlink();
    let bridge = made(&netlink, "ovlbr7", &bridge()).await;
    let peer = LinkId {
        scope: Scope::Endpoint("web".parse().unwrap()),
        name: name("eth0"),
    };
    let link = Link {
        kind: LinkKind::Veth { peer },
        mac: Some(mac(3)),
        master: Some(name("ovlbr7")),
        alias: Some("overlay:test:web".to_owned()),
        ..crate::namespace::bridge()
    };
    let path = container.path();
    let spec = VethPeerSpec {
        name: name("eth0"),
        mac: Some(mac(4)),
        mtu: 1450,
        netns: &path,
    };
    netlink
        .create(&name("ovl-web"), &link, Some(spec))
        .await
        .unwrap();

    let outer = netlink.link_by_name("ovl-web").await.unwrap().unwrap();
    let inside = container.netlink();
    let inner = inside.link_by_name("eth0").await.unwrap().unwrap();
    assert_eq!(outer.kind.as_deref(), Some("veth"));
    assert_eq!((outer.mac, outer.mtu), (Some(mac(3).octets()), 1450));
    assert_eq!((outer.up, outer.master), (true, Some(bridge.index)));
    assert_eq!(outer.alias.as_deref(), Some("overlay:test:web"));
    assert_eq!(outer.peer_index, Some(inner.index));
    assert!(outer.link_netnsid.is_some());
    assert_eq!(
        (inner.mac, inner.mtu, inner.up),
        (Some(mac(4).octets()), 1450, false)
    );
    assert_eq!(inner.peer_index, Some(outer.index));
    assert!(!outer.running);

    inside.set_up(inner.index, true).await.unwrap();
    let outer = netlink.link_by_index(outer.index).await.unwrap().unwrap();
    assert!(outer.running);
    inside.delete_link(inner.index).await.unwrap();
    assert_eq!(netlink.link_by_name("ovl-web").await.unwrap(), None);
}

#[tokio::test]
async fn a_device_can_be_changed() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovlbr7", &bridge()).await.index;
    netlink.set_mtu(index, 1400).await.unwrap();
    netlink.set_mac(index, mac(9)).await.unwrap();
    netlink.set_alias(index, "other").await.unwrap();
    netlink.set_up(index, false).await.unwrap();
    let found = netlink.link_by_index(index).await.unwrap().unwrap();
    assert_eq!((found.mtu, found.up), (1400, false));
    assert_eq!(found.mac, Some(mac(9).octets()));
    assert_eq!(found.alias.as_deref(), Some("other"));

    let error = netlink.set_mtu(index, 1).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("set device ovlbr7 mtu 1: Invalid argument: mtu "),
        "{text}"
    );
    netlink.delete_link(index).await.unwrap();
    let error = netlink.delete_link(index).await.unwrap_err();
    assert!(error.not_there(), "{error}");
    let names: Vec<_> = netlink
        .links()
        .await
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert_eq!(names, [name("lo")]);
}
