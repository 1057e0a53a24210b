//! The peers' health: what is drawn of each, and in which order.

use std::cmp::Reverse;

use overlay_control::{Mesh, MeshPeer, PeerAgent, PeerHealth, PeerState};
use overlay_core::model::Probe;
use overlay_insight::stats::{ago, milliseconds};

/// The columns that can sort.
pub(super) const HEAD: [&str; 6] = ["PEER", "STATE", "RTT", "JITTER", "LOSS", "MTU"];

/// The peers by a column, the worst first; by name where that does not decide.
pub(super) fn sorted(mesh: &Mesh, column: usize) -> Vec<&MeshPeer> {
    let mut peers: Vec<&MeshPeer> = mesh.peers.iter().collect();
    peers.sort_by_cached_key(|peer| (Reverse(weight(peer, column)), name(peer)));
    peers
}

fn weight(peer: &MeshPeer, column: usize) -> u64 {
    let health = &peer.health;
    match column {
        1 => match Tone::of(peer) {
            Tone::Bad => 3,
            Tone::Doubtful => 2,
            Tone::Good => 1,
            Tone::Unknown => 0,
        },
        2 => health.rtt.map_or(0, |rtt| rtt.mean_ns),
        3 => health.rtt.map_or(0, |rtt| rtt.jitter_ns),
        4 => health.loss_percent().map_or(0, u64::from),
        5 => missing(peer).map_or(0, u64::from),
        _ => 0,
    }
}

/// A peer's name where there can be several networks.
pub(super) fn name(peer: &MeshPeer) -> String {
    format!("{} {}", peer.network, peer.name)
}

/// How good what is known of a peer is. A colour shows it; signs and words say it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Doubtful,
    Bad,
    Unknown,
}

impl Tone {
    pub(super) fn of(peer: &MeshPeer) -> Self {
        match peer.health.state {
            state if state.is_lost() => Self::Bad,
            PeerState::Answers if peer.health.lost > 0 || !remarks(peer).is_empty() => {
                Self::Doubtful
            }
            PeerState::Answers => Self::Good,
            _ => Self::Unknown,
        }
    }
}

/// Round trip, jitter, loss and path MTU, as far as they are of now.
pub(super) fn figures(health: &PeerHealth) -> [String; 4] {
    let text = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
    let answers = health.state == PeerState::Answers;
    let rtt = health.rtt.filter(|_| answers);
    let loss = health.loss_percent();
    [
        text(rtt.map(|rtt| milliseconds(rtt.mean_ns))),
        text(rtt.map(|rtt| milliseconds(rtt.jitter_ns))),
        text(loss.map(|percent| format!("{percent} %"))),
        text(
            health
                .path_mtu
                .filter(|_| answers)
                .map(|mtu| mtu.to_string()),
        ),
    ]
}

/// Remarks that figures do not tell, a sentence each.
pub(super) fn remarks(peer: &MeshPeer) -> Vec<String> {
    let health = &peer.health;
    let mut remarks = Vec::new();
    match health.state {
        PeerState::Silent => {
            let when = health
                .answered_age_ms
                .map_or_else(|| "never".to_owned(), ago);
            remarks.push(format!("it answered {when}"));
        }
        PeerState::OneWay => {
            let when = health.heard_age_ms.map_or_else(|| "before".to_owned(), ago);
            remarks.push(format!("it was heard {when}, and does not hear this node"));
        }
        PeerState::NotAsked => {
            remarks.extend(
                health
                    .heard_age_ms
                    .map(|ms| format!("it asked {}", ago(ms))),
            );
        }
        _ => {}
    }
    if let (Some(_), Some(largest)) = (missing(peer), health.path_mtu) {
        remarks.push(format!("packets of more than {largest} bytes are lost"));
    }
    let other = health.agent.as_ref().filter(|agent| agent.differs);
    if let Some(PeerAgent { version, abi, .. }) = other {
        remarks.push(format!("another agent: {version}, maps v{abi}"));
    }
    remarks
}

/// By how many bytes the path is too narrow for the network's packets.
fn missing(peer: &MeshPeer) -> Option<u16> {
    let answers = peer.health.state == PeerState::Answers;
    let path_mtu = peer.health.path_mtu.filter(|_| answers)?;
    peer.mtu?
        .checked_sub(path_mtu)
        .filter(|missing| *missing > 0)
}

/// How many do not reach this node any more.
pub(super) fn lost(mesh: &Mesh) -> usize {
    let states = mesh.states.iter();
    states
        .filter(|(state, _)| state.is_lost())
        .map(|(_, number)| number)
        .sum()
}

/// The line above the peers: who probes, how often, and how many peers are in each state.
pub(super) fn summary(mesh: &Mesh) -> String {
    let Some(interval) = mesh.probe.interval_ms else {
        return match mesh.probe.mode {
            Probe::Off => "Probes are off: nothing is known of the peers' health. ",
            Probe::Answer | Probe::Every(_) => {
                "This node answers probes and sends none: of the peers' health, it knows what \
                 they say themselves. "
            }
        }
        .to_owned()
            + "probe = \"5s\" in [node] of the configuration has every peer asked.";
    };
    let every = Probe::Every(std::time::Duration::from_millis(interval));
    let states = mesh.states.iter();
    let states = states.map(|(state, number)| format!("{} {number}", state.words()));
    let all: usize = mesh.states.values().sum();
    let told = mesh.peers.len();
    let rest = (all > told).then(|| format!("(the worst {told} follow)"));
    let parts = std::iter::once(format!("asked every {every}:"));
    let parts: Vec<String> = parts.chain(states).chain(rest).collect();
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::super::samples::{mesh, peer};
    use super::*;

    #[test]
    fn the_worst_come_first_and_columns_sort() {
        use PeerState::{Answers, NoAgent, OneWay, Silent};
        let mut narrow = peer("narrow", Answers, 1, 0);
        narrow.health.path_mtu = Some(1300);
        let mesh = mesh(vec![
            peer("none", NoAgent, 0, 100),
            peer("far", Answers, 90, 0),
            peer("near", Answers, 1, 0),
            peer("lossy", Answers, 2, 3),
            narrow,
            peer("deaf", OneWay, 1, 50),
            peer("gone", Silent, 1, 60),
        ]);
        let order = |column| {
            let peers = sorted(&mesh, column).into_iter();
            peers
                .map(|peer| peer.name.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(order(1), "deaf gone lossy narrow far near none");
        assert_eq!(order(0), "deaf far gone lossy narrow near none");
        assert!(order(2).starts_with("far lossy"));
        assert!(order(4).starts_with("none gone deaf lossy"));
        assert!(order(5).starts_with("narrow"));
        assert_eq!(lost(&mesh), 2);
        assert_eq!(
            summary(&mesh),
            "asked every 1s:  answers 4  no agent 1  silent 1  one way 1"
        );
    }

    #[test]
    fn figures_are_of_now_and_the_rest_is_said() {
        let mut one = peer("n2", PeerState::Answers, 3, 1);
        assert_eq!(figures(&one.health), ["3.00 ms", "0.30 ms", "1 %", "1450"]);
        assert_eq!(remarks(&one), Vec::<String>::new());
        assert_eq!(Tone::of(&one), Tone::Doubtful);
        one.health.state = PeerState::Silent;
        assert_eq!(figures(&one.health), ["-", "-", "1 %", "-"]);
        assert_eq!(remarks(&one), ["it answered 14 s ago"]);
        assert_eq!(Tone::of(&one), Tone::Bad);
        one.health.state = PeerState::OneWay;
        assert_eq!(
            remarks(&one),
            ["it was heard 1 s ago, and does not hear this node"]
        );
        one.health.state = PeerState::Answers;
        one.health.path_mtu = Some(1404);
        one.health.agent = Some(PeerAgent {
            node: "n2".to_owned(),
            version: "0.9.0".to_owned(),
            abi: 7,
            differs: true,
            mtu: None,
            arrives: None,
        });
        assert_eq!(
            remarks(&one),
            [
                "packets of more than 1404 bytes are lost",
                "another agent: 0.9.0, maps v7"
            ]
        );
    }

    #[test]
    fn without_probes_it_says_how_to_have_them() {
        let mut mesh = mesh(Vec::new());
        mesh.probe.interval_ms = None;
        for (mode, said) in [("off", "Probes are off"), ("answer", "sends none")] {
            mesh.probe.mode = mode.parse().unwrap();
            let text = summary(&mesh);
            assert!(
                text.contains(said) && text.contains("probe = \"5s\""),
                "{text}"
            );
        }
    }
}
