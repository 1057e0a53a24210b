//! Who receives packets with wrong checksums while it is looked.

use overlay_core::surroundings::EndpointPlace;
use overlay_kernel::{self as kernel, netns, statistics};

use super::Look;
use crate::doctor::facts::WrongChecksums;

/// Containers that are looked into.
const CONTAINERS: usize = 64;

/// What the node and its containers have counted so far.
pub(super) struct Counted(Vec<(String, u64)>);

impl Counted {
    /// Reads the counters; a container that vanishes meanwhile has none.
    pub(super) fn now(look: &Look<'_>) -> kernel::Result<Self> {
        let mut counted = vec![("the node".to_owned(), statistics::wrong_checksums()?)];
        let there = look.model.endpoints.iter().filter(|endpoint| {
            let place = look.observed.around.endpoints.get(&endpoint.name);
            matches!(place, Some(EndpointPlace::There { .. }))
        });
        for endpoint in there.take(CONTAINERS) {
            match netns::run_in(&endpoint.netns.path(), statistics::wrong_checksums).flatten() {
                Ok(count) => counted.push((endpoint.name.to_string(), count)),
                Err(error) => tracing::debug!("examine endpoint {}: {error}", endpoint.name),
            }
        }
        Ok(Self(counted))
    }

    /// Who has received any since an earlier time.
    pub(super) fn since(&self, before: &Self) -> Vec<WrongChecksums> {
        let grown = self.0.iter().filter_map(|(receiver, after)| {
            let (_, before) = before.0.iter().find(|(name, _)| name == receiver)?;
            let packets = after.saturating_sub(*before);
            (packets > 0).then(|| WrongChecksums {
                receiver: receiver.clone(),
                packets,
            })
        });
        grown.collect()
    }
}
