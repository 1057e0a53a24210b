//! The packet filter where the kernel forwards: networks are kept apart, and packets that
//! leave one can get the node's address.

use super::Derived;
use crate::{
    model::{Model, Verdict},
    objects::{FilterRules, Masquerade},
};

/// Whether a model needs rules at all.
pub fn is_needed(model: &Model) -> bool {
    model.networks.len() > 1 || model.networks.iter().any(|network| network.masquerade)
}

/// The rules; `None` when none are needed.
pub(super) fn rules(networks: &[Derived<'_>]) -> Option<FilterRules> {
    let mut rules = FilterRules::default();
    if networks.len() > 1 {
        rules.isolated = networks.iter().flat_map(Derived::devices).collect();
        for from in networks {
            for to in networks.iter().filter(|to| may_meet(from, to)) {
                for device in from.devices() {
                    let pairs = to.devices().map(|other| (device, other));
                    rules.together.extend(pairs);
                }
            }
        }
    }
    for derived in networks.iter().filter(|derived| derived.network.masquerade) {
        let ranges = derived.network.ranges.iter();
        rules.masqueraded.extend(ranges.map(|range| Masquerade {
            subnet: range.subnet,
            cidr: range.cidr,
            inside: derived.devices().collect(),
        }));
    }
    (rules != FilterRules::default()).then_some(rules)
}

pub(super) fn may_meet(one: &Derived<'_>, other: &Derived<'_>) -> bool {
    let open = |derived: &Derived<'_>| derived.network.security.other_networks == Verdict::Accept;
    one.network.vni == other.network.vni || (open(one) && open(other))
}
