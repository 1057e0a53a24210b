//! What `explain` says, against what then happens.

mod asked;
mod delivered;
mod left;
mod others;
mod said;
mod slow;

/// Packets that were counted under a reason.
fn count(counts: &[(String, u64)], reason: &str) -> u64 {
    let known = counts.iter().find(|(name, _)| name == reason);
    known.map_or(0, |&(_, packets)| packets)
}
