//! What nobody announces: changed maps, detached links, most settings, devices that are not
//! up, sizes of packets, namespaces behind names, and ways to peers: carriers, learned paths and some settings choose
//! among routes that stay.
//!
//! A round looks at everything and takes its time on a large node. A patrol looks at little,
//! twice a second: whether that is still what the last round has seen. What there may be many
//! of it looks at in turns.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use overlay_core::{
    model::{IfName, Model},
    objects::{Hook, PeerObjects, Scope},
    shared::Shared,
    surroundings::{Asked, Observed, TcxPrograms},
};
use overlay_kernel::{
    self as kernel,
    bpf::{self, Sums},
    netlink::LinkInfo,
    sysctl,
};
use overlay_node::node::Node;
use tracing::{debug, warn};

/// Links, and namespaces, that one patrol looks at: more would cost a node with a thousand
/// containers a hundredth of a core.
const LINKS: usize = 128;
/// Devices that one patrol looks at.
const DEVICES: usize = 64;
/// Devices of which one patrol asks how long packets may be, each with its other side.
const SIZES: usize = 32;
/// Questions about the ways to peers that one patrol asks again.
const WAYS: usize = 64;

/// The last round's observations that a patrol compares, and how far it has come.
#[derive(Default)]
pub(super) struct Patrol {
    namespaces: Vec<(PathBuf, Option<Identity>)>,
    attachments: Vec<(IfName, u32, Hook)>,
    /// Programs of others, too.
    programs: Vec<((IfName, u32), TcxPrograms)>,
    ways: Shared<Vec<Asked>>,
    peers: Option<Expected>,
    /// The kernel keeps to itself what becomes of these.
    down: Vec<LinkInfo>,
    /// Of these, and of their other sides inside of containers, it announces all but the greatest sizes of
    /// packets (`do_setlink()`).
    up: Vec<(IfName, u32)>,
    round: usize,
}

/// The rows that the maps should have for the peers.
struct Expected {
    objects: Shared<PeerObjects>,
    /// The devices that lead to them.
    devices: BTreeMap<IfName, u32>,
    sums: Sums,
}

impl Patrol {
    /// Takes what a round has seen for what there should be.
    pub(super) async fn expect(&mut self, node: &mut Node, model: &Model, observed: &Observed) {
        let links = &observed.around.links;
        let attachments = observed.objects.attachments.keys();
        self.attachments = attachments
            .filter_map(|&(device, hook)| Some((device, links.get(&device)?.index, hook)))
            .collect();
        let programs = observed.around.programs.iter();
        self.programs = programs.map(|(at, all)| (*at, all.clone())).collect();
        self.down = down(node, observed).await.unwrap_or_else(|error| {
            warn!("{error}");
            Vec::new()
        });
        self.up = places(observed, true)
            .map(|(name, index)| (*name, index))
            .collect();
        let paths = model.endpoints.iter().map(|endpoint| endpoint.netns.path());
        self.namespaces = paths
            .map(|path| {
                let known = identity(&path);
                (path, known)
            })
            .collect();
        self.ways = observed.around.asked.clone();
        let indices: BTreeMap<IfName, u32> = links
            .iter()
            .map(|(name, link)| (*name, link.index))
            .collect();
        if let Some(dataplane) = &mut node.dataplane {
            // Whoever takes a program of ours off before the first look must not cost it its place.
            for &(device, index, hook) in &self.attachments {
                if let Err(error) = dataplane.runs(device, index, hook) {
                    debug!("{error}");
                }
            }
            let index_of = |name: IfName| indices.get(&name).copied();
            let objects = &observed.objects;
            let sums = self
                .sums_of_peers(&objects.peers, &indices)
                .and_then(|peers| Ok(Sums::of(&objects.entries, index_of)?.and(&peers)));
            match sums {
                Ok(sums) => dataplane.drift().expect(sums),
                // A device has gone since; its event is on its way.
                Err(error) => debug!("{error}"),
            }
        }
    }

    /// Has the rows of the peers added up anew at the next turn.
    pub(super) fn forget_peers(&mut self) {
        self.peers = None;
    }

    /// Those of the last time, when nothing has changed since: there can be very many rows.
    fn sums_of_peers(
        &mut self,
        peers: &Shared<PeerObjects>,
        indices: &BTreeMap<IfName, u32>,
    ) -> kernel::Result<Sums> {
        let known = self.peers.take().filter(|known| {
            let same = |(name, index): (&IfName, &u32)| indices.get(name) == Some(index);
            known.objects.is_same(peers) && known.devices.iter().all(same)
        });
        let known = if let Some(known) = known {
            known
        } else {
            let devices = RefCell::new(BTreeMap::new());
            let sums = Sums::of_peers(&peers.entries, |name| {
                let index = *indices.get(&name)?;
                devices.borrow_mut().insert(name, index);
                Some(index)
            })?;
            Expected {
                objects: peers.clone(),
                devices: devices.into_inner(),
                sums,
            }
        };
        let sums = known.sums.clone();
        self.peers = Some(known);
        Ok(sums)
    }

    /// Looks around; whether anything is not as it was.
    pub(super) async fn finds_something(&mut self, node: &mut Node, observed: &Observed) -> bool {
        self.round = self.round.wrapping_add(1);
        match self.look(node, observed).await {
            Ok(None) => false,
            Ok(Some(what)) => {
                debug!("{what} has changed");
                true
            }
            Err(error) => {
                warn!("{error}");
                true
            }
        }
    }

    async fn look(&self, node: &mut Node, observed: &Observed) -> kernel::Result<Option<String>> {
        for (key, value) in &observed.objects.sysctls {
            if sysctl::read(key)?.as_ref() != Some(value) {
                return Ok(Some(key.clone()));
            }
        }
        for known in turn(&self.down, DEVICES, self.round) {
            let now = node.netlink.link_by_index(known.index).await?;
            if now.as_ref() != Some(known) {
                return Ok(Some(known.name.to_string()));
            }
        }
        for &(device, index) in turn(&self.up, SIZES, self.round) {
            let now = node.netlink.link_by_index(index).await?;
            let other = now
                .as_ref()
                .and_then(|link| Some((link.link_netnsid?, link.peer_index?)));
            let is_big = now.is_some_and(|link| link.oversized)
                || match other {
                    Some((namespace, index)) => {
                        node.netlink.has_big_sizes(namespace, index).await?
                    }
                    None => false,
                };
            if is_big {
                return Ok(Some(format!("the sizes of {device}")));
            }
        }
        for (path, known) in turn(&self.namespaces, LINKS, self.round) {
            if identity(path) != *known {
                return Ok(Some(path.display().to_string()));
            }
        }
        if let Some(dataplane) = &mut node.dataplane {
            for &(device, index, hook) in turn(&self.attachments, LINKS, self.round) {
                if !dataplane.runs(device, index, hook)? {
                    return Ok(Some(format!("{hook} of {device}")));
                }
            }
        }
        for ((device, index), known) in turn(&self.programs, LINKS, self.round) {
            if bpf::tcx_programs(*device, *index)? != *known {
                return Ok(Some(format!("the programs of {device}")));
            }
        }
        for asked in turn(&self.ways, WAYS, self.round) {
            let question = asked.question;
            let mut is_same = node.netlink.way_of(question).await? == asked.answer;
            if let Some(hops) = &asked.hops {
                is_same &= node.netlink.hops_of(question).await? == *hops;
            }
            if !is_same {
                return Ok(Some(format!("the way to {}", question.to)));
            }
        }
        let changed = node
            .dataplane
            .as_mut()
            .map(|dataplane| dataplane.drift().look());
        Ok(changed
            .transpose()?
            .flatten()
            .map(|map| format!("map {map}")))
    }
}

/// The devices of ours that are not up.
async fn down(node: &Node, observed: &Observed) -> kernel::Result<Vec<LinkInfo>> {
    let mut found = Vec::new();
    for (_, index) in places(observed, false) {
        found.extend(node.netlink.link_by_index(index).await?);
    }
    Ok(found)
}

/// Name and index of the node's devices of ours that are up, or that are not.
fn places(observed: &Observed, up: bool) -> impl Iterator<Item = (&IfName, u32)> {
    let links = observed.objects.links.iter();
    let links = links.filter(move |(id, link)| link.up == up && id.scope == Scope::Node);
    links.filter_map(|(id, _)| Some((&id.name, observed.around.links.get(&id.name)?.index)))
}

/// Device and inode.
type Identity = (u64, u64);

/// The file at a path; one that cannot be looked at is none that we know.
fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// A part of a list: all of a short one, of a long one the next part each time.
fn turn<T>(list: &[T], part: usize, round: usize) -> &[T] {
    let parts = list.chunks(part).len().max(1);
    list.chunks(part).nth(round % parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::turn;

    #[test]
    fn every_part_has_its_turn() {
        let list = [1, 2, 3, 4, 5];
        let seen: Vec<i32> = (0..3)
            .flat_map(|round| turn(&list, 2, round))
            .copied()
            .collect();
        assert_eq!(seen, list);
        assert_eq!(turn(&list, 9, 7), list);
        assert!(turn::<i32>(&[], 2, 1).is_empty());
    }
}
