//! A dry run, as `plan` shows and `doctor` examines it: the steps that would be taken.

use overlay_common::maps::MAX_PEERS;
use overlay_core::{
    desired::{self, Desired, Inputs, Obstacles},
    model::Model,
    objects::{Capacity, MAPS},
    plan::{Plan, plan},
    state::Content,
    surroundings::Observed,
    trouble::Trouble,
};
use overlay_kernel::{self as kernel, KernelError};

use crate::{
    node::Node,
    observe::{Known, observe},
};

/// The output of `plan`.
#[derive(Debug)]
pub struct Preview {
    /// The steps that `run` would take.
    pub plan: Plan,
    /// The objects that it would have to leave out.
    pub problems: Vec<Trouble>,
}

/// The steps that would be taken, with nothing loaded, written or changed.
pub async fn preview(
    node: &Node,
    model: &Model,
    store: &Content,
    agent_runs: bool,
) -> Result<Preview, PreviewError> {
    let (mut observed, desired) = look_ahead(node, model, store).await?;
    let desired = desired?;
    if !agent_runs {
        // An agent that starts puts programs of its own in the place of the last one's.
        for state in observed.objects.attachments.values_mut() {
            *state = state.of_another_agent();
        }
    }
    let problems = desired.problems.iter().map(Trouble::from).collect();
    Ok(Preview {
        plan: plan(&observed.objects, &desired.objects),
        problems,
    })
}

/// Observed and desired state, or the obstacle, with nothing loaded, written or changed.
pub async fn look_ahead(
    node: &Node,
    model: &Model,
    store: &Content,
) -> kernel::Result<(Observed, Result<Desired, Obstacles>)> {
    let mut store = store.clone();
    let model = store.complete(model.clone());
    store.allocate(&model);
    let mut observed = observe(node, Some(&model), &store, &mut Known::default(), None).await?;
    if observed.objects.pins.is_empty() {
        // Loading the programs pins all of them.
        observed.objects.pins = MAPS.into();
    }
    let there = node.with_maps(|maps| Ok(maps.capacity()))?;
    let capacity = Capacity {
        // Counters are made as large as they must be.
        slots: MAX_PEERS,
        ..there.unwrap_or_default()
    };
    let inputs = Inputs {
        model: &model,
        store: &store,
        observed: &observed,
        loaded: true,
        attached: !store.fastpath_off,
        capacity,
        before: None,
        late: None,
        translated: None,
    };
    let desired = desired::desired(inputs);
    Ok((observed, desired))
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
