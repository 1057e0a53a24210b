//! The part of `status` about a route with several next hops.

use overlay_control::NextHopStatus;
use overlay_core::surroundings::{Way, WayHop};

/// All of them; none where there is one.
pub(super) fn of(way: &Way) -> Vec<NextHopStatus> {
    let status = |hop: &WayHop| NextHopStatus {
        dev: hop.link,
        via: hop.next_hop,
        weight: hop.weight,
    };
    way.hops.iter().map(status).collect()
}
