//! An examination takes its time: it is made beside the daemon, on a thread of its own.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use tokio::sync::oneshot;

use super::Reconciler;
use crate::{
    api::{DoctorSpec, Reply},
    doctor::{Agent, Patient, examine},
    kernel::memory,
};

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

    fn patient(&self, spec: DoctorSpec) -> Patient {
        let content = self.store.content();
        Patient {
            model: self.model.clone(),
            content: content.clone(),
            pins: self.node.pins.clone(),
            netns: content.netns.clone(),
            sample: Duration::from_millis(spec.sample_ms.into()).min(LONGEST),
            agent: Some(Agent {
                problems: self.problems.clone(),
                refused: self.refused.clone(),
                unavailable: self.unavailable.clone(),
                replaced: is_replaced(),
                health: BTreeMap::new(),
            }),
        }
    }
}

/// Whether the program of this process is not on the disk any more.
fn is_replaced() -> bool {
    let program = Path::new("/proc/self/exe").read_link();
    program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
}
