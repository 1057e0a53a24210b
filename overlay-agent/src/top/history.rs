//! Round trips over time: what each look has seen of each peer.

use std::collections::{HashMap, VecDeque};

use overlay_control::{Mesh, MeshPeer, PeerState};
use overlay_core::model::Name;

/// Looks that are kept; wider than this nobody's column is.
const KEPT: usize = 120;
/// From the shortest bar to the longest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// In the place of a bar: a question was lost, or the peer is.
pub(super) const LOST: char = 'x';

/// A sample of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    /// Nanoseconds of the last round trip.
    Answered(u64),
    Lost,
    /// Nobody has asked.
    Nothing,
}

/// A peer over time.
#[derive(Debug, Default)]
struct Track {
    samples: VecDeque<Sample>,
    /// Of the last questions, as of the last look.
    lost: u32,
}

/// The last looks at all peers that were told.
#[derive(Debug, Default)]
pub(super) struct History {
    tracks: HashMap<(Name, Name), Track>,
}

impl History {
    /// Takes the next look. What is not told any more is forgotten.
    pub(super) fn follow(&mut self, mesh: &Result<Mesh, String>) {
        let Ok(mesh) = mesh else { return };
        let mut before = std::mem::take(&mut self.tracks);
        for peer in &mesh.peers {
            let key = key(peer);
            let mut track = before.remove(&key).unwrap_or_else(|| Track {
                samples: VecDeque::new(),
                lost: peer.health.lost,
            });
            track.add(peer);
            self.tracks.insert(key, track);
        }
    }

    /// A bar for each of the last looks at a peer, the latest one last.
    ///
    /// They stand on nothing, and the mean is half as high as the longest at most: what always
    /// takes the same time looks even, and what took thrice as long stands out.
    pub(super) fn bars(&self, peer: &MeshPeer, looks: usize) -> String {
        let Some(track) = self.tracks.get(&key(peer)) else {
            return String::new();
        };
        let skipped = track.samples.len().saturating_sub(looks);
        let shown = track.samples.iter().skip(skipped);
        let mean = peer.health.rtt.map_or(0, |rtt| rtt.mean_ns);
        let longest = shown.clone().filter_map(|sample| match sample {
            Sample::Answered(ns) => Some(*ns),
            _ => None,
        });
        let full = longest
            .max()
            .unwrap_or(0)
            .max(mean.saturating_mul(2))
            .max(1);
        shown.map(|sample| sample.bar(full)).collect()
    }
}

fn key(peer: &MeshPeer) -> (Name, Name) {
    (peer.network.clone(), peer.name.clone())
}

impl Track {
    fn add(&mut self, peer: &MeshPeer) {
        let health = &peer.health;
        let lost = health.lost > self.lost;
        self.lost = health.lost;
        let sample = match (health.state, health.rtt) {
            (state, _) if state.is_lost() => Sample::Lost,
            (PeerState::Answers, _) if lost => Sample::Lost,
            (PeerState::Answers, Some(rtt)) => Sample::Answered(rtt.last_ns),
            _ => Sample::Nothing,
        };
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

impl Sample {
    fn bar(self, full: u64) -> char {
        match self {
            Self::Lost => LOST,
            Self::Nothing => ' ',
            Self::Answered(ns) => {
                let steps = BARS.len() as u128;
                let height = u128::from(ns) * steps / u128::from(full);
                let step = usize::try_from(height).unwrap_or(usize::MAX);
                BARS[step.min(BARS.len() - 1)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{mesh, peer};
    use super::*;

    fn bars(looks: &[(PeerState, u64, u32)], shown: usize) -> String {
        let mut history = History::default();
        let mut last = None;
        for &(state, ms, lost) in looks {
            let peer = peer("n2", state, ms, lost);
            history.follow(&Ok(mesh(vec![peer.clone()])));
            last = Some(peer);
        }
        history.bars(&last.unwrap(), shown)
    }

    #[test]
    fn what_is_always_the_same_is_even_and_what_is_longer_stands_out() {
        use PeerState::{Answers, NoAgent, OneWay, Silent};
        assert_eq!(bars(&[(Answers, 3, 0); 5], 5), "▅▅▅▅▅");
        let spike = [(Answers, 1, 0), (Answers, 8, 0), (Answers, 1, 0)];
        assert_eq!(bars(&spike, 5), "▂█▂");
        let lost = [
            (Answers, 1, 2),
            (Answers, 1, 3),
            (Silent, 1, 9),
            (OneWay, 1, 9),
            (NoAgent, 1, 9),
            (Answers, 1, 8),
        ];
        assert_eq!(bars(&lost, 6), "▅xxx ▅");
        assert_eq!(bars(&lost, 2), " ▅", "the latest ones");
    }

    #[test]
    fn who_is_not_told_any_more_is_forgotten_and_little_is_kept() {
        let mut history = History::default();
        let one = peer("n2", PeerState::Answers, 1, 0);
        for _ in 0..2 * KEPT {
            history.follow(&Ok(mesh(vec![one.clone()])));
        }
        assert_eq!(history.bars(&one, 1000).chars().count(), KEPT);
        history.follow(&Err("no answer".to_owned()));
        assert_eq!(history.bars(&one, 1000).chars().count(), KEPT);
        history.follow(&Ok(mesh(Vec::new())));
        assert_eq!(history.bars(&one, 1000), "");
    }
}
