//! The place that each test has for itself, and what it puts there.

use std::{
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use ipnet::IpNet;
use overlay_core::{
    identity::Made,
    model::{IfName, Mac, Name, Vni},
    objects::{Link, LinkKind, Vxlan},
};
use overlay_kernel::{
    netlink::{LinkInfo, Netlink},
    netns,
};

/// A namespace that goes when the test ends, however it ends.
pub(crate) struct Namespace {
    pub(crate) name: Name,
    pub(crate) made: Made,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name: Name = format!("ovl-kernel-{}-{number}", std::process::id())
            .parse()
            .unwrap();
        let unnamed =
            netns::create().unwrap_or_else(|error| panic!("this test needs root: {error}"));
        let made = unnamed.made.clone();
        unnamed.name(&name).unwrap();
        Self { name, made }
    }

    pub(crate) fn path(&self) -> PathBuf {
        netns::path_of(&self.name)
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.path()).unwrap()
    }

    /// Does something on a thread in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.path(), work).unwrap()
    }

    /// Runs iproute2 as a second opinion, and as somebody else who changes things.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap())
            .args(["-n", self.name.as_str()])
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = netns::delete(&self.name, &self.made) {
            eprintln!("{error}");
        }
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
