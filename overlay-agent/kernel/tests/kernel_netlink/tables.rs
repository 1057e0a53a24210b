//! Addresses, routes, neighbours and forwarding entries.

use std::net::IpAddr;

use overlay_core::{
    model::{Family, Mac},
    objects::ROUTE_PROTOCOL,
};
use overlay_kernel::netlink::{FdbInfo, Place, RouteKind, RouteSpec};

use crate::namespace::{Namespace, bridge, ip, mac, made, net, vxlan};

#[tokio::test]
async fn addresses_come_and_go() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovlbr7", &bridge()).await.index;
    namespace.run("ip address add 10.9.0.1/24 dev ovlbr7");
    let ours = net("10.244.1.1/24");
    netlink.add_address(index, ours).await.unwrap();
    netlink.add_address(index, ours).await.unwrap();
    let of_bridge = async || {
        let all = netlink.addresses().await.unwrap();
        let v4 = all
            .into_iter()
            .filter(|found| found.index == index && found.net.addr().is_ipv4());
        v4.map(|found| (found.net, found.global, found.place == Place::Secondary))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of_bridge().await,
        [(net("10.9.0.1/24"), true, false), (ours, true, false)]
    );
    netlink.delete_address(index, ours).await.unwrap();
    assert_eq!(of_bridge().await, [(net("10.9.0.1/24"), true, false)]);
    let error = netlink.delete_address(index, ours).await.unwrap_err();
    assert!(error.not_there());
    assert!(
        error
            .to_string()
            .starts_with("delete address 10.244.1.1/24 dev ovlbr7: "),
        "{error}"
    );
}

#[tokio::test]
async fn routes_come_and_go() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    netlink
        .add_address(index, net("10.244.1.0/32"))
        .await
        .unwrap();
    namespace.run("ip route add 10.244.2.0/24 dev ovl7 metric 50");
    let spec = RouteSpec {
        destination: net("10.244.2.0/24"),
        oif: index,
        via: Some(ip("10.244.2.0")),
        onlink: true,
        source: Some(ip("10.244.1.0")),
        mtu: Some(1330),
        metric: 0,
        protocol: ROUTE_PROTOCOL,
    };
    netlink.replace_route(&spec).await.unwrap();
    netlink.replace_route(&spec).await.unwrap();
    let found = async || {
        let all = netlink.routes(Family::V4).await.unwrap();
        let to_peer = all
            .into_iter()
            .filter(|route| route.destination == net("10.244.2.0/24"));
        to_peer.collect::<Vec<_>>()
    };
    let routes = found().await;
    let [ours, theirs] = routes.as_slice() else {
        panic!("{routes:?}")
    };
    assert_eq!(
        (ours.table, ours.protocol, ours.oif),
        (254, ROUTE_PROTOCOL, Some(index))
    );
    assert_eq!((ours.gateway, ours.onlink), (Some(ip("10.244.2.0")), true));
    assert_eq!((ours.source, ours.metric), (Some(ip("10.244.1.0")), 0));
    assert_eq!((ours.kind, ours.mtu), (RouteKind::Unicast, spec.mtu));
    assert_eq!(
        (theirs.metric, theirs.gateway, theirs.onlink),
        (50, None, false)
    );

    let hop = netlink.route_to(ip("10.244.2.9")).await.unwrap().unwrap();
    assert_eq!(
        (hop.oif, hop.gateway, hop.local),
        (index, Some(ip("10.244.2.0")), false)
    );
    assert_eq!(hop.source, Some(ip("10.244.1.0")));
    let hop = netlink.route_to(ip("10.244.1.0")).await.unwrap().unwrap();
    assert!(hop.local);
    assert_eq!(netlink.route_to(ip("203.0.113.1")).await.unwrap(), None);

    // Theirs has another protocol: it stays.
    netlink
        .delete_route(spec.destination, spec.metric, Some(index), ROUTE_PROTOCOL)
        .await
        .unwrap();
    assert_eq!(found().await.len(), 1);
    let error = netlink
        .delete_route(spec.destination, spec.metric, None, ROUTE_PROTOCOL)
        .await
        .unwrap_err();
    assert!(error.not_there());
    assert_eq!(
        error.to_string(),
        "delete route 10.244.2.0/24: No such process"
    );

    netlink.set_up(index, false).await.unwrap();
    let error = netlink.replace_route(&spec).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("add route 10.244.2.0/24 dev ovl7: Network is down"),
        "{error}"
    );
}

#[tokio::test]
async fn neighbours_come_and_go() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    let other = made(&netlink, "ovlbr7", &bridge()).await.index;
    netlink
        .replace_neighbour(other, ip("10.244.2.0"), mac(8))
        .await
        .unwrap();
    netlink
        .replace_neighbour(index, ip("10.244.2.0"), mac(5))
        .await
        .unwrap();
    netlink
        .replace_neighbour(index, ip("10.244.2.0"), mac(6))
        .await
        .unwrap();
    let found = async || {
        let all = netlink.neighbours(index).await.unwrap();
        let v4 = all
            .into_iter()
            .filter(|neighbour| neighbour.address.is_ipv4());
        v4.map(|found| (found.address, found.mac, found.permanent))
            .collect::<Vec<_>>()
    };
    assert_eq!(found().await, [(ip("10.244.2.0"), Some(mac(6)), true)]);
    netlink
        .delete_neighbour(index, ip("10.244.2.0"))
        .await
        .unwrap();
    assert_eq!(found().await, []);
    assert!(
        netlink
            .delete_neighbour(index, ip("10.244.2.0"))
            .await
            .unwrap_err()
            .not_there()
    );
}

#[tokio::test]
async fn a_forwarding_entry_has_one_destination() {
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    netlink
        .replace_fdb(index, mac(5), ip("192.0.2.9"))
        .await
        .unwrap();
    netlink
        .replace_fdb(index, mac(5), ip("192.0.2.2"))
        .await
        .unwrap();
    netlink
        .replace_fdb(index, mac(6), ip("192.0.2.3"))
        .await
        .unwrap();
    let entry = |last: u8, dst: &str| FdbInfo {
        mac: mac(last).octets(),
        dst: Some(ip(dst)),
        permanent: true,
        own: true,
        via: None,
        detour: false,
    };
    let found = async || {
        let mut all = netlink.fdb(index).await.unwrap();
        all.sort_by_key(|found| (found.mac, found.dst));
        all
    };
    assert_eq!(
        found().await,
        [entry(5, "192.0.2.2"), entry(6, "192.0.2.3")]
    );

    // Somebody floods unknown MACs to two nodes: it is seen, and can be taken away singly.
    namespace.run("bridge fdb append 00:00:00:00:00:00 dev ovl7 dst 192.0.2.3");
    namespace.run("bridge fdb append 00:00:00:00:00:00 dev ovl7 dst 192.0.2.4");
    let all = found().await;
    assert_eq!(all.len(), 4);
    assert_eq!((all[1].mac, all[1].dst), ([0; 6], Some(ip("192.0.2.4"))));
    netlink
        .delete_fdb_entry(index, all[1].mac, all[1].dst)
        .await
        .unwrap();
    let all = found().await;
    assert_eq!((all.len(), all[0].dst), (3, Some(ip("192.0.2.3"))));
    netlink
        .delete_fdb_entry(index, all[0].mac, all[0].dst)
        .await
        .unwrap();
    assert_eq!(
        found().await,
        [entry(5, "192.0.2.2"), entry(6, "192.0.2.3")]
    );

    netlink.delete_fdb(index, mac(5)).await.unwrap();
    assert_eq!(found().await, [entry(6, "192.0.2.3")]);
    let error = netlink.delete_fdb(index, mac(5)).await.unwrap_err();
    assert!(error.not_there(), "{error}");
}

#[tokio::test]
async fn large_tables_are_read_whole() {
    const COUNT: u16 = 3000;
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    let requests = (0..COUNT).map(|number| {
        let netlink = netlink.clone();
        async move {
            let [high, low] = number.to_be_bytes();
            let address = IpAddr::from([10, 7, high, low]);
            let mac = Mac::unicast([2, 0x4f, 10, 7, high, low]).unwrap();
            netlink
                .replace_neighbour(index, address, mac)
                .await
                .unwrap();
            netlink.replace_fdb(index, mac, address).await.unwrap();
        }
    });
    futures::future::join_all(requests).await;
    let neighbours = netlink.neighbours(index).await.unwrap();
    assert_eq!(
        neighbours.iter().filter(|n| n.permanent).count(),
        usize::from(COUNT)
    );
    assert_eq!(netlink.fdb(index).await.unwrap().len(), usize::from(COUNT));
}
