//! What is different with IPv6, inside and outside of the tunnel.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use overlay_core::{
    model::Family,
    objects::{Link, LinkKind, ROUTE_PROTOCOL, Vxlan},
};
use overlay_kernel::{
    netlink::{FdbInfo, Lifetime, RouteSpec},
    sysctl, udp,
};

use crate::namespace::{Namespace, bridge, ip, mac, made, name, net, vxlan};

/// The device of [`vxlan`] over IPv6.
fn vxlan6() -> Link {
    let LinkKind::Vxlan(settings) = vxlan().kind else {
        panic!("it is a VXLAN device");
    };
    Link {
        kind: LinkKind::Vxlan(Vxlan {
            local: ip("2001:db8::1"),
            ..settings
        }),
        mac: Some(mac(3)),
        ..vxlan()
    }
}

#[tokio::test]
async fn a_network_has_a_device_for_each_family_of_outer_addresses() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    made(&netlink, "ovl7", &vxlan()).await;
    let found = made(&netlink, "ovl6-7", &vxlan6()).await;
    assert!(found.up);
    let settings = found.vxlan.unwrap();
    assert_eq!((settings.vni, settings.port), (7, 4789));
    assert_eq!(settings.local, Some(ip("2001:db8::1")));
    let details = namespace.run("ip -d link show dev ovl6-7");
    // Everybody accepts a checksum, and we accept that there is none.
    assert!(details.contains(" noudp6zerocsumtx "), "{details}");
    assert!(details.contains(" udp6zerocsumrx "), "{details}");
}

#[tokio::test]
async fn an_address_can_be_used_at_once() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovlbr7", &bridge()).await.index;
    let ours = net("fd00:244:0:1::1/64");
    netlink.add_address(index, ours).await.unwrap();
    netlink.add_address(index, ours).await.unwrap();
    namespace.run("ip address add fd00:9::9/64 dev ovlbr7 valid_lft 900 preferred_lft 900");
    let found = async || {
        let all = netlink.addresses().await.unwrap();
        let mut global: Vec<_> = all
            .into_iter()
            .filter(|found| found.index == index && found.global)
            .map(|found| (found.net, found.lifetime, found.usable))
            .collect();
        global.sort_by_key(|(net, ..)| *net);
        global
    };
    let leased = net("fd00:9::9/64");
    let before = found().await;
    assert_eq!(before.len(), 2);
    assert_eq!(before[1], (ours, Lifetime::Permanent, true));
    assert_eq!(before[0].1, Lifetime::Limited);
    let socket = namespace
        .inside(|| UdpSocket::bind((Ipv6Addr::from(0xfd00_0244_0000_0001_u128 << 64 | 1), 0)));
    socket.unwrap();
    netlink.delete_address(index, ours).await.unwrap();
    assert_eq!(
        found()
            .await
            .iter()
            .map(|(net, ..)| *net)
            .collect::<Vec<_>>(),
        [leased]
    );
    let error = netlink.delete_address(index, ours).await.unwrap_err();
    assert!(error.not_there(), "{error}");
}

#[tokio::test]
async fn a_device_without_ipv6_is_told_with_its_cure() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovlbr7", &bridge()).await.index;
    let key = "net/ipv6/conf/ovlbr7/disable_ipv6";
    namespace.inside(|| sysctl::write(key, "1")).unwrap();
    let added = netlink.add_address(index, net("fd00::1/64")).await;
    let cure = "allow IPv6 there: sysctl net.ipv6.conf.DEVICE.disable_ipv6=0";
    assert_eq!(added.unwrap_err().cure(), Some(cure));
}

#[tokio::test]
async fn a_subnet_is_reached_through_its_first_address() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let bridge = made(&netlink, "ovlbr7", &bridge()).await.index;
    let index = made(&netlink, "ovl6-7", &vxlan6()).await.index;
    netlink
        .add_address(bridge, net("fd00:244:0:1::1/64"))
        .await
        .unwrap();
    namespace.run("ip -6 route add fd00:244:0:2::/64 dev ovl6-7 metric 50");
    let spec = RouteSpec {
        destination: net("fd00:244:0:2::/64"),
        oif: index,
        via: Some(ip("fd00:244:0:2::")),
        onlink: true,
        source: Some(ip("fd00:244:0:1::1")),
        mtu: Some(1330),
        metric: 0,
        protocol: ROUTE_PROTOCOL,
    };
    netlink.replace_route(&spec).await.unwrap();
    netlink.replace_route(&spec).await.unwrap();
    let found = async || {
        let all = netlink.routes(Family::V6).await.unwrap();
        let to_peer = all
            .into_iter()
            .filter(|route| route.destination == spec.destination);
        to_peer.collect::<Vec<_>>()
    };
    let routes = found().await;
    let ours = routes
        .iter()
        .find(|route| route.protocol == ROUTE_PROTOCOL)
        .unwrap();
    assert_eq!(routes.len(), 2);
    assert_eq!((ours.gateway, ours.onlink), (spec.via, true));
    assert_eq!((ours.source, ours.metric), (spec.source, 1024));
    assert_eq!(ours.mtu, spec.mtu);

    namespace.run("ip -6 route del fd00:244:0:2::/64 dev ovl6-7 metric 50");
    let way = netlink
        .route_to(ip("fd00:244:0:2::9"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((way.oif, way.gateway), (index, spec.via));
    assert_eq!(way.source, spec.source);
    assert_eq!(netlink.route_to(ip("2001:db8:9::1")).await.unwrap(), None);

    netlink
        .delete_route(spec.destination, spec.metric, Some(index), ROUTE_PROTOCOL)
        .await
        .unwrap();
    assert_eq!(found().await, []);
    let error = netlink
        .delete_route(spec.destination, spec.metric, Some(index), ROUTE_PROTOCOL)
        .await
        .unwrap_err();
    assert!(error.not_there(), "{error}");
}

#[tokio::test]
async fn neighbours_and_forwarding_entries_of_both_families_share_a_device() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl6-7", &vxlan6()).await.index;
    let next_hops = [ip("10.244.2.0"), ip("fd00:244:0:2::")];
    for next_hop in next_hops {
        netlink
            .replace_neighbour(index, next_hop, mac(5))
            .await
            .unwrap();
        netlink
            .replace_neighbour(index, next_hop, mac(6))
            .await
            .unwrap();
    }
    let found = async || {
        let all = netlink.neighbours(index).await.unwrap();
        let mut set: Vec<_> = all.into_iter().filter(|found| found.permanent).collect();
        set.sort_by_key(|found| found.address);
        set.iter()
            .map(|found| (found.address, found.mac))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found().await,
        next_hops.map(|next_hop| (next_hop, Some(mac(6))))
    );
    netlink
        .replace_fdb(index, mac(6), ip("2001:db8::9"))
        .await
        .unwrap();
    netlink
        .replace_fdb(index, mac(6), ip("2001:db8::2"))
        .await
        .unwrap();
    let entry = FdbInfo {
        mac: mac(6).octets(),
        dst: Some(ip("2001:db8::2")),
        permanent: true,
        own: true,
        via: None,
        detour: false,
    };
    assert_eq!(netlink.fdb(index).await.unwrap(), [entry]);
    for next_hop in next_hops {
        netlink.delete_neighbour(index, next_hop).await.unwrap();
    }
    netlink.delete_fdb(index, mac(6)).await.unwrap();
    assert_eq!(found().await, []);
    assert_eq!(netlink.fdb(index).await.unwrap(), []);
}

#[tokio::test]
async fn a_port_is_busy_by_family() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let busy =
        || namespace.inside(|| Family::ALL.map(|family| udp::is_busy(family, 4789).unwrap()));
    assert_eq!(busy(), [false, false]);
    made(&netlink, "ovl6-7", &vxlan6()).await;
    assert_eq!(busy(), [false, true]);
    let socket = namespace.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4789)).unwrap());
    assert_eq!(busy(), [true, true]);
    drop(socket);
    assert_eq!(
        netlink.link_by_name("ovl6-7").await.unwrap().unwrap().name,
        name("ovl6-7")
    );
}
