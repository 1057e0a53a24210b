//! The node's devices and their addresses: listed now and then, and followed in between.
//!
//! With many containers the lists are long. The kernel announces which device has changed, and
//! that one is looked at again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use overlay_kernel::{
    self as kernel,
    netlink::{AddressInfo, Changes, LinkInfo, Netlink},
};

/// Devices are listed again after this time, which finds changes that no event has announced.
const TRUST: Duration = Duration::from_secs(10);
/// Devices that are looked at one by one; more are listed.
const FEW: usize = 32;

/// The devices as they were at the last look.
#[derive(Default)]
pub(super) struct Devices {
    /// In the order of their indices.
    pub(super) links: Vec<LinkInfo>,
    pub(super) addresses: Vec<AddressInfo>,
    /// When they were listed, if they still count.
    listed: Option<Instant>,
}

impl Devices {
    /// Has all of them listed the next time.
    pub(super) fn distrust(&mut self) {
        self.listed = None;
    }

    /// Takes changes in; without them, all may have changed. Whether all were listed again.
    pub(super) async fn update(
        &mut self,
        netlink: &Netlink,
        changes: Option<&Changes>,
    ) -> kernel::Result<bool> {
        let listed = self.listed.take();
        let trusted = listed.filter(|listed| listed.elapsed() < TRUST);
        let touched = changes.map(|changes| (self.touched(changes), changes.touched.addresses));
        match (trusted, touched) {
            (Some(listed), Some((links, addresses))) if links.len() <= FEW => {
                for index in links {
                    self.look_at(netlink, index).await?;
                }
                if addresses {
                    self.addresses = netlink.addresses().await?;
                }
                self.listed = Some(listed);
                Ok(false)
            }
            _ => {
                self.links = netlink.links().await?;
                self.links.sort_by_key(|link| link.index);
                self.addresses = netlink.addresses().await?;
                self.listed = Some(Instant::now());
                Ok(true)
            }
        }
    }

    /// The devices that changed, those that lead to where something did, and those that are not
    /// up: of them the kernel tells nothing.
    fn touched(&self, changes: &Changes) -> BTreeSet<u32> {
        let may_differ = |link: &&LinkInfo| {
            let number = link.link_netnsid;
            !link.up || number.is_some_and(|number| changes.namespaces.contains(&number))
        };
        let unseen = self.links.iter().filter(may_differ);
        let unseen = unseen.map(|link| link.index);
        unseen
            .chain(changes.touched.links.iter().copied())
            .collect()
    }

    async fn look_at(&mut self, netlink: &Netlink, index: u32) -> kernel::Result<()> {
        let now = netlink.link_by_index(index).await?;
        let place = self.links.binary_search_by_key(&index, |link| link.index);
        match (place, now) {
            (Ok(place), Some(link)) => {
                if let Some(known) = self.links.get_mut(place) {
                    *known = link;
                }
            }
            (Ok(place), None) => drop(self.links.remove(place)),
            (Err(place), Some(link)) => self.links.insert(place, link),
            (Err(_), None) => {}
        }
        Ok(())
    }
}
