//! What status says of a way with several next hops.

use crate::{
    api::NextHopStatus,
    surroundings::{Way, WayHop},
};

/// All of them; none where there is one.
pub(super) fn of(way: &Way) -> Vec<NextHopStatus> {
    let status = |hop: &WayHop| NextHopStatus {
        dev: hop.link,
        via: hop.next_hop,
        weight: hop.weight,
    };
    way.hops.iter().map(status).collect()
}
