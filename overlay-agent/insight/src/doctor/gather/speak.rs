//! Speaking to peers.
//!
//! A host tells only so often that nobody listens: of a full packet's answer all is known, so it
//! is asked for first, and no address is asked twice for the same. Small packets tell what the
//! others could not.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use overlay_core::model::Family;
use overlay_kernel::udp::refusals::{self, Question, Reply};

use crate::doctor::facts::{Answer, PeerFacts};

/// A port that nobody listens on: the first one of `traceroute`.
const NOBODY: u16 = 33434;
/// After so long every host answers once more, however often it was asked.
const RATE_LIMIT: Duration = Duration::from_millis(1100);

/// What is asked of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Underlay,
    UnderlayWithAll,
    Tunnel,
    TunnelWithAll,
    Port,
}

/// Speaks to the peers for as long as counters are watched; longer where an answer is doubted.
pub(super) async fn speak(peers: &mut [PeerFacts], vteps: &[IpAddr], sample: Duration) {
    let part = sample / 3;
    let full = [About::UnderlayWithAll, About::TunnelWithAll, About::Port];
    round(peers, vteps, part, |_| full.to_vec()).await;
    for _ in 0..2 {
        round(peers, vteps, part, |peer| {
            let underlay = (!peer.underlay.is_answered()).then_some(About::Underlay);
            let tunnel = (!peer.tunnel.is_answered()).then_some(About::Tunnel);
            underlay.into_iter().chain(tunnel).collect()
        })
        .await;
    }
    if peers.iter().any(|peer| !doubts(peer).is_empty()) {
        tokio::time::sleep(RATE_LIMIT).await;
        round(peers, vteps, part, doubts).await;
    }
}

/// What a peer may have left unanswered only because it was asked so often.
fn doubts(peer: &PeerFacts) -> Vec<About> {
    let mut doubts = Vec::new();
    if peer.underlay.vanishes() {
        doubts.push(About::UnderlayWithAll);
    }
    if peer.tunnel.vanishes() {
        doubts.push(About::TunnelWithAll);
    }
    if peer.underlay.is_answered() && peer.tunnel.small == Answer::Silent {
        doubts.push(About::Tunnel);
    }
    doubts
}

/// Asks all peers that there is a way to, and takes that long.
async fn round(
    peers: &mut [PeerFacts],
    vteps: &[IpAddr],
    patience: Duration,
    wanted: impl Fn(&PeerFacts) -> Vec<About>,
) {
    let start = Instant::now();
    // Who waits for the answer to a question, and what it is about.
    let mut asked: BTreeMap<(SocketAddr, u16), Vec<(usize, About)>> = BTreeMap::new();
    let mut questions = Vec::new();
    let reachable = peers.iter().enumerate();
    for (number, peer) in reachable.filter(|(_, peer)| peer.device.is_some()) {
        for about in wanted(peer) {
            let Some(question) = question(peer, about, vteps) else {
                continue;
            };
            let waiting = asked.entry((question.to, question.size)).or_default();
            if waiting.is_empty() {
                questions.push(question);
            }
            waiting.push((number, about));
        }
    }
    let replies = ask(questions.clone(), patience).await;
    for (question, reply) in questions.iter().zip(replies) {
        for &(number, about) in asked
            .get(&(question.to, question.size))
            .into_iter()
            .flatten()
        {
            if let Some(peer) = peers.get_mut(number) {
                note(peer, about, reply);
            }
        }
    }
    tokio::time::sleep(patience.saturating_sub(start.elapsed())).await;
}

/// Beside the runtime, which must not be kept from its sockets.
async fn ask(questions: Vec<Question>, patience: Duration) -> Vec<Reply> {
    let asked = tokio::task::spawn_blocking(move || refusals::ask(&questions, patience));
    // Without a thread nothing was asked.
    asked.await.unwrap_or_default()
}

fn question(peer: &PeerFacts, about: About, vteps: &[IpAddr]) -> Option<Question> {
    let outer = |port: u16, size: u16| {
        let mut own = vteps.iter().copied();
        Question {
            from: own.find(|vtep| Family::of(*vtep) == Family::of(peer.vtep)),
            to: SocketAddr::new(peer.vtep, port),
            size,
        }
    };
    let through = |size: u16| {
        Some(Question {
            from: None,
            to: SocketAddr::new(peer.inner?, NOBODY),
            size,
        })
    };
    match about {
        About::Underlay => Some(outer(NOBODY, 0)),
        About::UnderlayWithAll => Some(outer(NOBODY, peer.underlay.size)),
        About::Port => Some(outer(peer.port, 0)),
        About::Tunnel => through(0),
        About::TunnelWithAll => through(peer.tunnel.size),
    }
}

/// An answer counts, however often there was none.
fn note(peer: &mut PeerFacts, about: About, reply: Reply) {
    let of = match about {
        About::Underlay => &mut peer.underlay.small,
        About::UnderlayWithAll => &mut peer.underlay.large,
        About::Tunnel => &mut peer.tunnel.small,
        About::TunnelWithAll => &mut peer.tunnel.large,
        About::Port => &mut peer.port_answer,
    };
    if *of == Answer::Answered {
        return;
    }
    *of = match reply {
        Reply::Refused => Answer::Answered,
        Reply::TooBig => Answer::TooBig,
        Reply::Nothing => Answer::Silent,
        Reply::Unsent => Answer::Unasked,
    };
}
