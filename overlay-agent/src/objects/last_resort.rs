//! Routes of last resort: what no peer has is not sent at all.

use crate::model::Name;

/// Metric of an instance's `unreachable` routes, one for each range of its networks.
///
/// Any other route to the same range is preferred to one of them. Instances of one node get
/// different metrics, so that each knows its own: a route has no other place for a name.
pub fn last_resort_metric(instance: &Name) -> u32 {
    let sum = instance.as_str().bytes().fold(0_u16, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    u32::MAX - u32::from(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_metrics_of_their_own() {
        let metric = |name: &str| last_resort_metric(&name.parse().unwrap());
        assert_ne!(metric("lab-n1"), metric("lab-n2"));
        assert!(metric("lab-n1") > u32::MAX - (1 << 16));
    }
}
