//! Log lines about peers that come and go: one for each kind of news, however many peers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use overlay_control::PeerState;
use overlay_core::model::{Name, Peer};
use tracing::{info, warn};

/// Peers that a line names.
const NAMED: usize = 5;
/// News are told together for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// News that were not told yet.
#[derive(Debug, Default)]
pub(super) struct News {
    told: Option<Instant>,
    peers: BTreeMap<(Name, Kind), Vec<Name>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Silent,
    Never,
    OneWay,
    Back,
    First,
}

impl News {
    pub(super) fn add(
        &mut self,
        network: &Name,
        peer: &Peer,
        before: Option<PeerState>,
        after: PeerState,
    ) {
        let kind = match (before, after) {
            (_, PeerState::Silent) => Kind::Silent,
            (_, PeerState::OneWay) => Kind::OneWay,
            (_, PeerState::NoAgent) if peer.has_agent => Kind::Never,
            (Some(PeerState::NoAgent), PeerState::Answers) => Kind::First,
            (Some(PeerState::Silent | PeerState::OneWay), PeerState::Answers) => Kind::Back,
            _ => return,
        };
        let peers = self.peers.entry((network.clone(), kind)).or_default();
        peers.push(peer.name.clone());
    }

    /// Logs what there is, unless something was logged just now.
    pub(super) fn tell(&mut self, now: Instant) {
        let just_now = |told: Instant| now.saturating_duration_since(told) < PAUSE;
        if self.peers.is_empty() || self.told.is_some_and(just_now) {
            return;
        }
        self.told = Some(now);
        for ((network, kind), peers) in std::mem::take(&mut self.peers) {
            let peers = enumerate(&peers);
            match kind {
                Kind::Silent => warn!("network {network}: {peers} no longer answers probes"),
                Kind::Never => {
                    warn!("network {network}: {peers} has not answered a single probe yet");
                }
                Kind::OneWay => {
                    warn!("network {network}: {peers} is heard, but does not hear this node");
                }
                Kind::First => info!("network {network}: {peers} answers probes now"),
                Kind::Back => info!("network {network}: {peers} answers probes again"),
            }
        }
    }
}

/// The first names, and how many more there are.
fn enumerate(peers: &[Name]) -> String {
    let named: Vec<&str> = peers.iter().take(NAMED).map(Name::as_str).collect();
    let named = named.join(", ");
    match peers.len().saturating_sub(NAMED) {
        0 => format!("peer {named}"),
        more => format!("peers {named} and {more} more"),
    }
}
