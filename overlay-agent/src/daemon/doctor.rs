//! An examination takes its time: it is made beside the daemon, on a thread of its own.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use overlay_control::{DoctorSpec, PeerHealth, PeerState, Reply};
use overlay_core::model::Name;
use overlay_insight::doctor::{Agent, Health, Patient, examine};
use overlay_kernel::memory;
use tokio::sync::oneshot;

use super::Reconciler;

/// Nobody who asks waits longer for counters to move.
const LONGEST: Duration = Duration::from_mins(1);

impl Reconciler {
    /// Has the node examined, and answers when that is done.
    pub(super) fn doctor(&self, spec: DoctorSpec, reply: oneshot::Sender<Reply>) {
        let patient = self.patient(spec);
        let thread = thread::Builder::new().name("doctor".to_owned());
        let started = thread.spawn(move || {
            let answer = match examine(&patient) {
                Ok(diagnosis) => Reply::Diagnosis(Box::new(diagnosis)),
                Err(error) => Reply::Failed(error.to_string()),
            };
            super::answer(reply, answer);
            // Of a large node, all was looked at.
            memory::release();
        });
        if let Err(error) = started {
            // The client sees that nobody answers.
            tracing::error!("start an examination: {error}");
        }
    }

    /// The health of the peers that are probed, or have probed.
    fn known_by_probes(&self) -> BTreeMap<(Name, Name), Health> {
        let networks = self.model.networks.iter();
        let peers = networks.flat_map(|network| {
            let peers = network.peers.iter();
            peers.map(move |peer| (network, peer))
        });
        peers
            .filter_map(|(network, peer)| {
                let health = self.probes.health(network.vni, peer)?;
                let of = (network.name.clone(), peer.name.clone());
                Some((of, health_of(health)))
            })
            .collect()
    }

    fn patient(&self, spec: DoctorSpec) -> Patient {
        let content = self.store.content();
        Patient {
            model: self.model.clone(),
            content: content.clone(),
            pins: self.node.pins.clone(),
            key: self.node.key.clone(),
            netns: content.netns.clone(),
            sample: Duration::from_millis(spec.sample_ms.into()).min(LONGEST),
            agent: Some(Agent {
                troubles: self.troubles(),
                replaced: is_replaced(),
                health: self.known_by_probes(),
            }),
        }
    }
}

fn health_of(health: PeerHealth) -> Health {
    let agent = health.agent;
    let answers = health.state == PeerState::Answers;
    Health {
        last_heard: health.heard_age_ms.map(Duration::from_millis),
        // That it once did proves nothing now.
        last_answered: health
            .answered_age_ms
            .filter(|_| answers)
            .map(Duration::from_millis),
        rtt: health.rtt.map(|rtt| Duration::from_nanos(rtt.last_ns)),
        largest: health.path_mtu,
        // Not what it said last, which may be from before this node ran, but what follows from it.
        heard_by_peer: (health.state == PeerState::OneWay).then_some(false),
        abi: agent.as_ref().map(|agent| agent.abi),
        version: agent.map(|agent| agent.version),
    }
}

/// Whether the program of this process is not on the disk any more.
fn is_replaced() -> bool {
    let program = Path::new("/proc/self/exe").read_link();
    program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
}

#[cfg(test)]
mod tests {
    use overlay_control::{PeerHealth, PeerState};

    use super::health_of;

    #[test]
    fn what_a_peer_said_before_it_could_hear_this_node_is_no_fault() {
        let mut health = PeerHealth {
            state: PeerState::Waiting,
            heard_age_ms: Some(3),
            answered_age_ms: None,
            hears_this_node: Some(false),
            rtt: None,
            asked: 0,
            lost: 0,
            path_mtu: None,
            agent: None,
        };
        assert_eq!(health_of(health.clone()).heard_by_peer, None);
        health.state = PeerState::OneWay;
        assert_eq!(health_of(health).heard_by_peer, Some(false));
    }
}
