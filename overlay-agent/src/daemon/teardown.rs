//! The end of an instance: all that is its own goes.

use overlay_core::{
    desired,
    model::Name,
    plan::plan,
    trouble::{self, Trouble},
};
use overlay_kernel::{KernelError, bpf};
use overlay_node::{
    apply,
    node::Node,
    observe::{Known, observe},
    store::{Store, StoreError},
};

use super::subnet_env;

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
    #[error(
        "remove instance {instance}: {}; run \"overlay-agent down --instance {instance}\" again",
        trouble::list(failed)
    )]
    Incomplete {
        /// The instance.
        instance: Name,
        /// The steps with their reasons.
        failed: Vec<Trouble>,
    },
}

/// Removes all that is an instance's: devices, routes, namespaces, programs, pins, state. Returns
/// what it has left alone although the instance once changed it, a sentence each.
pub async fn teardown(mut node: Node, mut store: Store) -> Result<Vec<String>, TeardownError> {
    let known = &mut Known::default();
    let observed = observe(&node, None, store.content(), known, None).await?;
    let nothing = desired::nothing(store.content(), &observed);
    let plan = plan(&observed.objects, &nothing.objects);
    let mut report = apply::apply(&plan, &mut node, None, &mut store).await;
    let mut left = nothing.left;
    if let Some(ours) = store.content().subnet_env.clone() {
        match subnet_env::remove(&ours, &mut store) {
            Ok(stays) => left.extend(stays),
            Err(trouble) => report.failed.push(*trouble),
        }
    }
    if !report.failed.is_empty() {
        let instance = store.content().instance().clone();
        return Err(TeardownError::Incomplete {
            instance,
            failed: report.failed,
        });
    }
    let pins = node.pins.clone();
    drop(node);
    left.extend(bpf::remove_all(&pins)?);
    let stay = store.remove()?.into_iter();
    left.extend(
        stay.map(|folder| format!("{} stays: files of others are in it", folder.display())),
    );
    Ok(left)
}
