//! The place that each test has for itself, and what it puts there.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{
    model::{IfName, Mac, Vni},
    objects::{Link, LinkKind, Vxlan},
};
use overlay_kernel::netlink::{LinkInfo, Netlink};

#[path = "../common/namespace.rs"]
mod common;

pub(crate) use common::Namespace;

impl Namespace {
    pub(crate) fn new() -> Self {
        Self::named("ovl-kernel-")
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.path()).unwrap()
    }
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac::unicast([2, 0x4f, 0, 0, 0, last]).unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn bridge() -> Link {
    Link {
        kind: LinkKind::Bridge,
        mac: Some(mac(1)),
        mtu: 1450,
        up: true,
        master: None,
        alias: Some("overlay:test:bridge".to_owned()),
        altered: false,
        oversized: false,
    }
}

pub(crate) fn vxlan() -> Link {
    let settings = Vxlan {
        vni: Vni::try_from(7).unwrap(),
        port: 4789,
        local: ip("192.0.2.1"),
        source_ports: (49_152, 65_535),
        learning: false,
        copies_dscp: true,
    };
    Link {
        kind: LinkKind::Vxlan(settings),
        mac: Some(mac(2)),
        ..bridge()
    }
}

pub(crate) async fn made(netlink: &Netlink, device: &str, link: &Link) -> LinkInfo {
    netlink.create(&name(device), link, None).await.unwrap();
    netlink.link_by_name(device).await.unwrap().unwrap()
}
