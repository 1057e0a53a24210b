//! Learning of changes.

use std::time::Duration;

use overlay_core::model::Mac;
use overlay_kernel::netlink::Watch;

use tokio::time::timeout;

use crate::namespace::{Namespace, ip, mac, made, vxlan};

#[tokio::test]
async fn a_watch_tells_of_changes_and_not_of_learning() {
    /// Long enough for an event to arrive, were there one.
    const QUIET: Duration = Duration::from_millis(200);
    /// Only reached when the test fails.
    const LIMIT: Duration = Duration::from_secs(20);

    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    let mut watch = Watch::open_in(&namespace.path()).unwrap();
    while timeout(QUIET, watch.changed()).await.is_ok() {}

    namespace.run("ip neighbour replace 10.0.0.9 lladdr 02:00:00:00:00:09 nud stale dev ovl7");
    assert!(timeout(QUIET, watch.changed()).await.is_err());

    netlink
        .replace_neighbour(index, ip("10.244.2.0"), mac(5))
        .await
        .unwrap();
    timeout(LIMIT, watch.changed()).await.unwrap().unwrap();
    while timeout(QUIET, watch.changed()).await.is_ok() {}
    netlink.delete_link(index).await.unwrap();
    timeout(LIMIT, watch.changed()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_says_when_a_way_is_cut_off() {
    /// Only reached when the test fails.
    const LIMIT: Duration = Duration::from_secs(20);

    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let way = made(&netlink, "ovl7", &vxlan()).await.index;
    namespace.run("ip link set ovl7 up");
    let mut watch = Watch::open_in(&namespace.path()).unwrap();
    watch.hasten([way].into());
    netlink
        .replace_neighbour(way, ip("10.244.2.0"), mac(5))
        .await
        .unwrap();
    assert!(!timeout(LIMIT, watch.changed()).await.unwrap().unwrap());
    namespace.run("ip link set ovl7 down");
    let is_told = async { while !watch.changed().await.unwrap() {} };
    timeout(LIMIT, is_told).await.unwrap();
}

#[tokio::test]
async fn a_watch_survives_more_events_than_it_can_hold() {
    const LIMIT: Duration = Duration::from_secs(20);

    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let index = made(&netlink, "ovl7", &vxlan()).await.index;
    let mut watch = Watch::open_in(&namespace.path()).unwrap();
    for round in 0..4000_u16 {
        let mac = Mac::unicast([2, 0x4f, 0, 0, 1, round.to_be_bytes()[1]]).unwrap();
        netlink
            .replace_neighbour(index, ip("10.244.2.0"), mac)
            .await
            .unwrap();
    }
    timeout(LIMIT, watch.changed()).await.unwrap().unwrap();
    timeout(LIMIT, watch.changed()).await.unwrap().unwrap();
}
