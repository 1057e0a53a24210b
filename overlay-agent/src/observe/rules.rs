//! The packet filter of others, as far as it follows connections.

use tracing::debug;

use super::Known;
use crate::{
    desired::{bridge_name, vxlan_name},
    doctor::filter::{Between, Following, Ruleset},
    kernel::{self, nft},
    model::{Family, IfName, Model, Network},
    store::Content,
    surroundings::Surroundings,
};

/// Finds the networks whose connections rules follow.
///
/// Where rules cannot be listed, those of before count, and the next look tries again; `doctor`
/// says why.
pub(super) fn observe(
    model: &Model,
    store: &Content,
    known: &mut Known,
    around: &mut Surroundings,
) {
    if !known.has_rules {
        match read(store) {
            Ok(ruleset) => (known.ruleset, known.has_rules) = (Some(ruleset), true),
            Err(error) => debug!("{error}"),
        }
    }
    let Some(ruleset) = &known.ruleset else {
        return;
    };
    let networks = model.networks.iter();
    around.followed = networks
        .filter_map(|network| Some((network.name.clone(), why(ruleset, network)?)))
        .collect();
}

/// All rules that judge packets but our own, which the programs heed.
fn read(store: &Content) -> kernel::Result<Ruleset> {
    let listing = nft::rules_of_others(store.instance())?;
    Ok(Ruleset::read(&listing, |_, _| false))
}

fn why(ruleset: &Ruleset, network: &Network) -> Option<Following> {
    let bridge = bridge_name(network.vni)?;
    let tunnels: Vec<IfName> = Family::ALL
        .into_iter()
        .filter_map(|family| vxlan_name(network.vni, family))
        .collect();
    let tunnels: Vec<&str> = tunnels.iter().map(IfName::as_str).collect();
    let ranges: Vec<_> = network
        .ranges
        .iter()
        .map(|range| (range.cidr, range.subnet))
        .collect();
    ruleset.follows(&Between {
        bridge: bridge.as_str(),
        tunnels: &tunnels,
        ranges: &ranges,
    })
}
