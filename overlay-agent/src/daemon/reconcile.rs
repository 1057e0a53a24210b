//! One round: observe, compute what should be, plan, apply; until nothing is left to do.

use tracing::{debug, info, warn};

use super::patrol::Patrol;
use crate::{
    apply::{self, Report},
    desired::{self, Desired, Facts, Inputs, Obstacles},
    kernel::{
        self, KernelError,
        bpf::{self, AttachMode, DataPlane},
        netns,
    },
    model::{FastPath, Model, Name, Rx},
    node::Node,
    plan::{Plan, plan},
    store::{Content, Store, StoreError},
    surroundings::Observed,
};

/// What a round makes may need another one, such as the index of a new device. Three
/// rounds that all find work mean that somebody works against us; the timer goes on.
const MAX_ROUNDS: usize = 3;

/// Why the instance could not be removed entirely.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state file could not be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Steps have failed.
    #[error("remove instance {instance}: {}; run \"overlay-agent down --instance {instance}\" again", failed.join("; "))]
    Incomplete {
        /// The instance.
        instance: Name,
        /// The steps with their reasons.
        failed: Vec<String>,
    },
}

/// What `plan` shows.
#[derive(Debug)]
pub struct Preview {
    /// The steps that `run` would take.
    pub plan: Plan,
    /// What it would have to leave out.
    pub problems: Vec<String>,
}

/// The desired state, the kernel, and what has come of bringing them together.
pub struct Reconciler {
    pub(super) node: Node,
    pub(super) store: Store,
    /// The configuration that is in force, without what was added at run time.
    pub(super) config: Model,
    /// The same with it.
    pub(super) model: Model,
    pub(super) facts: Facts,
    /// The last look, for `status`.
    pub(super) observed: Observed,
    pub(super) report: Report,
    /// What the last round could not do.
    pub(super) problems: Vec<String>,
    /// Why the file that is there now is not in force.
    pub(super) refused: Option<String>,
    /// Why the programs cannot be used.
    pub(super) unavailable: Option<String>,
    patrol: Patrol,
}

impl Reconciler {
    /// For a node on which nothing has been done yet.
    pub(super) fn new(node: Node, store: Store, config: Model) -> Self {
        let model = store.content().complete(config.clone());
        Self {
            node,
            store,
            config,
            model,
            facts: Facts::default(),
            observed: Observed::default(),
            report: Report::default(),
            problems: Vec::new(),
            refused: None,
            unavailable: None,
            patrol: Patrol::default(),
        }
    }

    /// Takes a new configuration into force.
    pub(super) fn set_config(&mut self, config: Model) {
        self.config = config;
        self.refused = None;
        self.complete();
    }

    /// Notes that the file is not in force, and why.
    pub(super) fn config_refused(&mut self, reason: String) {
        self.refused = Some(reason);
    }

    pub(super) fn complete(&mut self) {
        self.model = self.store.content().complete(self.config.clone());
    }

    /// Whether any network wants the programs.
    pub(super) fn wants_programs(&self) -> bool {
        self.model
            .networks
            .iter()
            .any(|network| network.fastpath != FastPath::Off)
    }

    /// Loads the programs, as the configuration wants them, and takes over the maps that are
    /// pinned.
    pub(super) fn load_programs(&mut self) {
        let rx = self.model.node.rx;
        let loaded = self.node.dataplane.as_ref().map(DataPlane::rx);
        if loaded == Some(rx) || !self.wants_programs() {
            return;
        }
        match load(&self.node.pins, rx) {
            Ok(dataplane) => {
                self.node.dataplane = Some(dataplane);
                self.unavailable = None;
            }
            Err(error) => {
                let reason = error.to_string();
                if self.unavailable.as_ref() != Some(&reason) {
                    warn!(
                        "the fast path is unavailable, the kernel's VXLAN device carries everything: {reason}"
                    );
                }
                self.unavailable = Some(reason);
            }
        }
    }

    /// Brings the node to its desired state; what fails is logged, shown by `status` and tried again.
    pub async fn reconcile(&mut self) {
        let mut problems = Vec::new();
        match self.rounds().await {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(error),
        }
        problems.extend(self.report.failed.iter().cloned());
        for problem in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            warn!("{problem}");
        }
        for problem in self
            .problems
            .iter()
            .filter(|problem| !problems.contains(problem))
        {
            info!("no longer: {problem}");
        }
        self.problems = problems;
        self.patrol
            .expect(&mut self.node, &self.model, &self.observed);
    }

    /// Whether something has changed that nobody announces.
    pub(super) async fn patrol(&mut self) -> bool {
        self.patrol
            .finds_something(&mut self.node, &self.observed)
            .await
    }

    /// Whether nothing is left to be tried again.
    pub(super) fn is_well(&self) -> bool {
        self.problems.is_empty() && self.report == Report::default()
    }

    async fn rounds(&mut self) -> Result<Vec<String>, String> {
        let mut problems = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let desired = self.look().await?;
            problems = desired.problems.iter().map(ToString::to_string).collect();
            let plan = plan(&self.observed.objects, &desired.objects);
            self.facts = desired.facts;
            if plan.is_empty() {
                self.report = Report::default();
                break;
            }
            self.report =
                apply::apply(&plan, &mut self.node, Some(&self.model), &mut self.store).await;
            if self.report.failed.is_empty() {
                info!("applied {} steps", self.report.done);
            } else {
                // Told as problems, once; this would be told at every try.
                debug!(
                    "applied {} of {} steps",
                    self.report.done,
                    plan.steps().len()
                );
                break;
            }
        }
        Ok(problems)
    }

    /// Observes, gives endpoints their addresses and computes what should be.
    async fn look(&mut self) -> Result<Desired, String> {
        self.load_programs();
        let model = &self.model;
        self.store
            .update(|content| {
                content.recognise(model, |path| netns::id(path).ok().flatten());
                content.allocate(model);
            })
            .map_err(|error| error.to_string())?;
        self.observed =
            crate::observe::observe(&self.node, Some(&self.model), self.store.content())
                .await
                .map_err(|error| error.to_string())?;
        self.node.recognise(&self.observed.around.links);
        let inputs = Inputs {
            model: &self.model,
            store: self.store.content(),
            observed: &self.observed,
            loaded: self.node.dataplane.is_some(),
            attached: !self.store.content().fastpath_off,
        };
        desired::desired(inputs).map_err(|obstacles| obstacles.to_string())
    }

    /// Removes all that is the instance's.
    pub(super) async fn down(self) -> Result<(), TeardownError> {
        let Self { node, store, .. } = self;
        teardown(node, store).await
    }
}

/// Loads the programs into the kernel.
pub(super) fn load(pins: &std::path::Path, rx: Rx) -> kernel::Result<DataPlane> {
    DataPlane::open(pins, crate::PROGRAMS, attach_mode(), rx)
}

/// TCX where the kernel has it; tests of the older way force it.
fn attach_mode() -> AttachMode {
    match std::env::var("OVERLAY_ATTACH").as_deref() {
        Ok("clsact") => AttachMode::Clsact,
        Ok("tcx") => AttachMode::Tcx,
        _ => AttachMode::Auto,
    }
}

/// The steps that would be taken, with nothing loaded, written or changed.
pub(super) async fn preview(
    node: &Node,
    model: &Model,
    store: &Content,
) -> Result<Preview, PreviewError> {
    let mut store = store.clone();
    let model = store.complete(model.clone());
    store.allocate(&model);
    let observed = crate::observe::observe(node, Some(&model), &store).await?;
    let inputs = Inputs {
        model: &model,
        store: &store,
        observed: &observed,
        loaded: true,
        attached: !store.fastpath_off,
    };
    let desired = desired::desired(inputs)?;
    let problems = desired.problems.iter().map(ToString::to_string).collect();
    Ok(Preview {
        plan: plan(&observed.objects, &desired.objects),
        problems,
    })
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The node cannot be looked at.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The node makes it impossible.
    #[error(transparent)]
    Obstacles(#[from] Obstacles),
}

/// Removes all that is an instance's: devices, routes, namespaces, programs, pins, state.
pub async fn teardown(mut node: Node, mut store: Store) -> Result<(), TeardownError> {
    let observed = crate::observe::observe(&node, None, store.content()).await?;
    let nothing = desired::nothing(store.content(), &observed);
    let plan = plan(&observed.objects, &nothing);
    let report = apply::apply(&plan, &mut node, None, &mut store).await;
    if !report.failed.is_empty() {
        let instance = store.content().instance().clone();
        return Err(TeardownError::Incomplete {
            instance,
            failed: report.failed,
        });
    }
    let pins = node.pins.clone();
    drop(node);
    bpf::remove_all(&pins)?;
    store.remove()?;
    Ok(())
}
