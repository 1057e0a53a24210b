//! Carries out a plan, step by step.
//!
//! A step that fails is reported and stops those that need what it should have
//! made; the rest goes on. The next reconciliation tries again.

mod bulk;
mod encryption;
mod insides;
mod steps;

use std::collections::BTreeSet;

use overlay_control::progress::Activity;
use overlay_core::{
    model::{Model, Name, NetnsRef},
    objects::{LinkId, LinkKind, Scope},
    plan::{Dependency, Plan, Step},
    trouble::{Trouble, ids},
};
use overlay_kernel::{KernelError, hooks};
use serde::Serialize;
use tracing::debug;

use crate::{
    key::KeyError,
    node::Node,
    store::{Store, StoreError},
};

use self::insides::Insides;

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state that must be saved first could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A device of the plan has vanished, or an endpoint has left the configuration.
    #[error("{0} is gone; it is looked at again")]
    Gone(String),
    /// The programs were not loaded and no maps are pinned.
    #[error("the eBPF maps are not there; restart the agent")]
    NoMaps,
}

/// The outcome of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Steps that were carried out.
    pub done: usize,
    /// Steps that failed, each with its reason.
    pub failed: Vec<Trouble>,
    /// Steps that were left out because one that they need has failed.
    pub skipped: usize,
}

impl Report {
    /// Whether every step was done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.skipped == 0
    }
}

/// Carries out a plan on a node.
pub async fn apply(
    plan: &Plan,
    node: &mut Node,
    model: Option<&Model>,
    store: &mut Store,
) -> Report {
    let mut report = Report::default();
    let mut broken = Broken::default();
    let mut insides = Insides::default();
    let mut rest = plan.steps();
    while let Some(next) = rest.first() {
        let activity = Activity::Applying {
            done: plan.steps().len() - rest.len(),
            of: plan.steps().len(),
            step: next.to_string(),
        };
        node.progress.tell(activity).await;
        let (mut now, later) = rest.split_at(bulk::length(rest));
        rest = later;
        let wanted: Vec<Step>;
        if now.iter().any(|step| broken.concerns(step, model)) {
            let concerned = |step: &&Step| broken.concerns(step, model);
            let (skipped, kept): (Vec<&Step>, Vec<&Step>) = now.iter().partition(concerned);
            for step in &skipped {
                broken.add(step);
            }
            report.skipped += skipped.len();
            wanted = kept.into_iter().cloned().collect();
            now = &wanted;
        }
        let outcomes = match now {
            [] => continue,
            [step] => vec![steps::run(step, node, &mut insides, model, store).await],
            steps => bulk::run(steps, node).await,
        };
        for (step, outcome) in now.iter().zip(outcomes) {
            hooks::step_done();
            match outcome {
                Ok(()) => {
                    debug!("{step}");
                    report.done += 1;
                }
                Err(error) => {
                    debug!("{step}: {error}");
                    report.failed.push(failure(step, &error));
                    broken.add(step);
                }
            }
        }
    }
    node.progress.tell(Activity::Waiting).await;
    report
}

fn failure(step: &Step, error: &ApplyError) -> Trouble {
    const AGAIN: &str = "the agent tries again; OVERLAY_LOG=debug has its log tell of each try";
    let endpoint = step.endpoint();
    let provided = match step.provides() {
        Some(Dependency::Link(id)) => Some(id.name),
        Some(Dependency::Namespace(_)) | None => None,
    };
    let device = provided.or_else(|| step.device().map(|id| id.name));
    let subject = match (endpoint, device) {
        (Some(endpoint), _) => endpoint.to_string(),
        (None, Some(device)) => device.to_string(),
        (None, None) => "node".to_owned(),
    };
    let (what, cure) = match error {
        ApplyError::Kernel(error) => (error.what(), error.cure().unwrap_or(AGAIN).to_owned()),
        error => (error.to_string(), AGAIN.to_owned()),
    };
    let mut trouble = Trouble::new(ids::AGENT_CANNOT, subject, what, cure).during(step.to_string());
    trouble.endpoint = endpoint.cloned();
    trouble
}

/// Objects that failed steps should have provided.
#[derive(Default)]
struct Broken {
    links: BTreeSet<LinkId>,
    namespaces: BTreeSet<Name>,
}

impl Broken {
    fn add(&mut self, step: &Step) {
        match step.provides() {
            Some(Dependency::Link(id)) => {
                self.links.insert(id.clone());
                if let Step::CreateLink { link, .. } = step
                    && let LinkKind::Veth { peer } = &link.kind
                {
                    self.links.insert(peer.clone());
                }
            }
            Some(Dependency::Namespace(name)) => {
                self.namespaces.insert(name.clone());
            }
            None => {}
        }
    }

    fn concerns(&self, step: &Step, model: Option<&Model>) -> bool {
        if step.device().is_some_and(|id| self.links.contains(&id)) {
            return true;
        }
        let Step::CreateLink { link, .. } = step else {
            return false;
        };
        let LinkKind::Veth {
            peer:
                LinkId {
                    scope: Scope::Endpoint(endpoint),
                    ..
                },
        } = &link.kind
        else {
            return false;
        };
        let endpoints = model.iter().flat_map(|model| &model.endpoints);
        endpoints
            .filter(|other| other.name == *endpoint)
            .any(|endpoint| match &endpoint.netns {
                NetnsRef::Name(name) => self.namespaces.contains(name),
                NetnsRef::Path(_) | NetnsRef::Pid(_) => false,
            })
    }
}
