//! Frames that end too early, at every byte of every header.

use overlay_tests::families::Family;

use super::{Burst, Case, many};
use crate::shot::Shot;

pub(super) fn all() -> Vec<Case> {
    vec![
        many("the frame cut at each byte", Family::V4, |shot| {
            // Its lengths promise more than there is.
            let frame = shot.frame();
            (14..frame.len())
                .map(|end| vec![frame[..end].to_vec()])
                .collect()
        }),
        many("the inner frame cut at each byte", Family::V4, cut_inside),
        many(
            "the inner IPv6 frame cut at each byte",
            Family::V6,
            cut_inside,
        ),
    ]
}

/// The outer lengths are right; what is in the tunnel is incomplete.
fn cut_inside(shot: &Shot) -> Vec<Burst> {
    let frame = shot.inner_frame();
    (0..frame.len())
        .map(|end| vec![shot.carrying(&frame[..end])])
        .collect()
}
