//! Refreshes the entries of neighbours on the underlay that may know a card by another MAC.
//!
//! A kernel goes on sending to the MAC that it knows of a neighbour until it has doubts, which takes
//! it most of a minute; so a node that comes back with another card, or whose card has got another
//! MAC, is cut off for as long as it says nothing itself. But who is asked for its MAC takes over
//! the asker's at once (RFC 826; RFC 4861 §7.2.3), and this kernel asks whom it does not know as
//! soon as it has something to send. That is a datagram with nothing in it to the peer's VXLAN
//! port: firewalls let it pass, and VXLAN devices discard it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use overlay_core::{
    model::{Family, IfName, Model},
    surroundings::{NodeLink, Way},
};
use overlay_kernel::udp::refusals::{self, Question};
use tracing::debug;

use super::Reconciler;

/// Neighbours that are sent a datagram at most. A kernel remembers 1,024 (`gc_thresh3`) unless it is told
/// otherwise, and would forget some for the sake of more.
const MOST: usize = 512;
/// Sockets that are open at a time.
const AT_ONCE: usize = 64;

/// The identity of a device for its neighbours; one that was made anew is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Card {
    index: u32,
    mac: Option<[u8; 6]>,
}

/// Remembers the cards whose neighbours are refreshed.
#[derive(Debug, Default)]
pub(super) struct NeighbourRefresher {
    refreshed: BTreeMap<IfName, Card>,
}

impl NeighbourRefresher {
    /// Refreshes from underlay devices that are new, or have another MAC, since the last round.
    pub(super) fn round(&mut self, reconciler: &Reconciler) {
        let around = &reconciler.observed.around;
        let underlay = &reconciler.facts.underlay;
        let fresh = self.fresh(underlay, &around.links);
        if fresh.is_empty() {
            return;
        }
        let refreshes = refreshes(
            &reconciler.model,
            &around.ways,
            &reconciler.facts.vteps,
            |device| fresh.contains_key(&device),
        );
        let questions: Vec<Question> = refreshes.values().copied().collect();
        for questions in questions.chunks(AT_ONCE) {
            // Nobody has to answer.
            refusals::ask(questions, Duration::ZERO);
        }
        for (device, _) in refreshes.keys() {
            if let Some(card) = fresh.get(device) {
                self.refreshed.insert(*device, *card);
            }
        }
        debug!("refreshed {} neighbours on the underlay", questions.len());
    }

    fn fresh(
        &self,
        underlay: &[IfName],
        links: &BTreeMap<IfName, NodeLink>,
    ) -> BTreeMap<IfName, Card> {
        let cards = underlay.iter().filter_map(|name| {
            let NodeLink { index, mac, .. } = *links.get(name)?;
            Some((*name, Card { index, mac }))
        });
        cards
            .filter(|(name, card)| self.refreshed.get(name) != Some(card))
            .collect()
    }
}

/// One for each neighbour on the wanted devices: peers, and routers that lead to some.
fn refreshes(
    model: &Model,
    ways: &BTreeMap<IpAddr, Way>,
    vteps: &[IpAddr],
    wanted: impl Fn(IfName) -> bool,
) -> BTreeMap<(IfName, IpAddr), Question> {
    let mut refreshes = BTreeMap::new();
    let networks = model.networks.iter();
    let peers = networks.flat_map(|network| network.peers.iter().map(move |peer| (network, peer)));
    for (network, peer) in peers {
        if refreshes.len() == MOST {
            break;
        }
        let Some(way) = ways.get(&peer.vtep).filter(|way| wanted(way.link)) else {
            continue;
        };
        let mut own = vteps.iter().copied();
        let Some(from) = own.find(|vtep| Family::of(*vtep) == Family::of(peer.vtep)) else {
            continue;
        };
        refreshes
            .entry((way.link, way.next_hop))
            .or_insert(Question {
                from: Some(from),
                to: SocketAddr::new(peer.vtep, network.outer_port()),
                size: 0,
            });
    }
    refreshes
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, path::Path};

    use overlay_core::{
        config,
        model::{IfName, Model},
        surroundings::{NodeLink, Way},
    };

    use super::{Card, MOST, NeighbourRefresher, refreshes};

    const VTEPS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// A network with so many peers, 10.9.0.0 and what follows.
    fn model(peers: u16) -> Model {
        let mut text = "[node]\nname = \"n\"\nunderlay = \"eth1\"\n[[networks]]\nname = \"a\"\n\
                        vni = 1\ncidr = [\"10.0.0.0/8\"]\nsubnet = [\"10.255.255.0/24\"]\n"
            .to_owned();
        for [high, low] in (0..peers).map(u16::to_be_bytes) {
            write!(
                text,
                "[[networks.peers]]\nname = \"p{high}-{low}\"\nvtep = \"192.9.{high}.{low}\"\n\
                 subnet = [\"10.{high}.{low}.0/24\"]\n"
            )
            .unwrap();
        }
        config::parse(Path::new("t.toml"), &text).unwrap()
    }

    fn ways(model: &Model, next_hop: impl Fn(IpAddr) -> IpAddr) -> BTreeMap<IpAddr, Way> {
        let peers = model.networks[0].peers.iter();
        let way = |vtep| Way {
            link: name("eth1"),
            next_hop: next_hop(vtep),
            path_mtu: None,
            hops: Vec::new(),
        };
        peers.map(|peer| (peer.vtep, way(peer.vtep))).collect()
    }

    #[test]
    fn each_neighbour_is_refreshed_once_and_not_too_many() {
        let router = IpAddr::from([192, 0, 2, 254]);
        let few = model(3);
        let direct = refreshes(&few, &ways(&few, |vtep| vtep), &VTEPS, |_| true);
        assert_eq!(direct.len(), 3);
        for ((_, neighbour), refresh) in &direct {
            assert_eq!(refresh.to.ip(), *neighbour);
            assert_eq!((refresh.from, refresh.size), (Some(VTEPS[0]), 0));
        }
        let asked = refreshes(&few, &ways(&few, |_| router), &VTEPS, |_| true);
        assert!(asked.into_keys().eq([(name("eth1"), router)]));
        let other = refreshes(&few, &ways(&few, |vtep| vtep), &VTEPS, |device| {
            device == name("eth2")
        });
        assert!(other.is_empty());
        let many = model(2000);
        let capped = refreshes(&many, &ways(&many, |vtep| vtep), &VTEPS, |_| true);
        assert_eq!(capped.len(), MOST);
    }

    #[test]
    fn a_card_is_another_with_another_mac_or_index() {
        let (eth1, link) = (name("eth1"), NodeLink::default());
        let links = |index, mac| {
            let link = NodeLink {
                index,
                mac,
                ..link.clone()
            };
            BTreeMap::from([(eth1, link)])
        };
        let (index, mac) = (2, Some([2, 0, 0, 0, 0, 1]));
        let refresher = NeighbourRefresher {
            refreshed: [(eth1, Card { index, mac })].into(),
        };
        let is_fresh = |index, mac| !refresher.fresh(&[eth1], &links(index, mac)).is_empty();
        assert!(!is_fresh(index, mac));
        assert!(is_fresh(3, mac) && is_fresh(index, Some([2, 0, 0, 0, 0, 2])));
        assert!(
            refresher
                .fresh(&[name("eth2")], &links(index, mac))
                .is_empty()
        );
    }
}
