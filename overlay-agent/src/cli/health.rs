//! Results of the probes, for people.

use std::io::{self, Write};

use overlay_control::{PeerAgent, PeerHealth, PeerState, PeerStatus, Status};
use overlay_core::model::Probe;
use overlay_insight::stats::{ago, milliseconds};

/// A line for each peer of a network: who hears whom, and how well.
pub(super) fn mesh(out: &mut dyn Write, status: &Status, peers: &[PeerStatus]) -> io::Result<()> {
    if !matches!(status.probe.mode, Probe::Every(_)) {
        return Ok(());
    }
    let width = peers.iter().map(|peer| peer.name.as_str().len()).max();
    let width = width.unwrap_or_default();
    for peer in peers {
        let Some(health) = &peer.health else { continue };
        let (node, name) = (&status.node, peer.name.as_str());
        let (arrow, figures) = (health.state.arrow(), figures(health));
        writeln!(out, "{node} {arrow} {name:width$}  {figures}")?;
    }
    Ok(())
}

pub(super) fn figures(health: &PeerHealth) -> String {
    let ago = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), ago);
    let mut parts = match health.state {
        PeerState::NotAsked | PeerState::Waiting => vec!["no answer yet".to_owned()],
        PeerState::NoAgent => vec!["no agent answers".to_owned()],
        PeerState::Silent => vec![format!("silent, answered {}", ago(health.answered_age_ms))],
        PeerState::OneWay => vec![format!(
            "one way: heard {}, does not hear this node",
            ago(health.heard_age_ms)
        )],
        PeerState::Answers => measured(health),
    };
    let other = health.agent.as_ref().filter(|agent| agent.differs);
    if let Some(PeerAgent { version, abi, .. }) = other {
        parts.push(format!("agent {version} (maps v{abi})"));
    }
    parts.join("  ")
}

fn measured(health: &PeerHealth) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(rtt) = &health.rtt {
        parts.push(format!("rtt {}", milliseconds(rtt.mean_ns)));
        parts.push(format!("jitter {}", milliseconds(rtt.jitter_ns)));
    }
    if let Some(percent) = health.loss_percent() {
        parts.push(format!("loss {percent} %"));
    }
    if let Some(mtu) = health.path_mtu {
        parts.push(format!("path mtu {mtu}"));
    }
    parts
}

#[cfg(test)]
mod tests {
    use overlay_control::RoundTrip;

    use super::*;

    fn health(state: PeerState) -> PeerHealth {
        PeerHealth {
            state,
            heard_age_ms: Some(400),
            answered_age_ms: Some(130_000),
            hears_this_node: Some(true),
            rtt: Some(RoundTrip {
                last_ns: 1,
                mean_ns: 214_999,
                min_ns: 1,
                jitter_ns: 25_000,
            }),
            asked: 100,
            lost: 7,
            path_mtu: Some(1450),
            agent: None,
        }
    }

    #[test]
    fn figures_are_short_and_have_units() {
        for (state, expected) in [
            (
                PeerState::Answers,
                "rtt 0.21 ms  jitter 0.03 ms  loss 7 %  path mtu 1450",
            ),
            (PeerState::Silent, "silent, answered 2 min ago"),
            (
                PeerState::OneWay,
                "one way: heard 0 s ago, does not hear this node",
            ),
            (PeerState::NoAgent, "no agent answers"),
        ] {
            assert_eq!(figures(&health(state)), expected);
        }
    }

    #[test]
    fn another_agent_is_named() {
        let agent = |differs| PeerAgent {
            node: "n2".to_owned(),
            version: "0.2.0".to_owned(),
            abi: 9,
            differs,
            mtu: None,
            arrives: None,
        };
        let mut health = health(PeerState::NoAgent);
        health.agent = Some(agent(true));
        assert_eq!(figures(&health), "no agent answers  agent 0.2.0 (maps v9)");
        health.agent = Some(agent(false));
        assert_eq!(figures(&health), "no agent answers");
    }
}
