//! Tables that are nearly full.

use overlay_control::Finding;
use overlay_core::desired::Problem;

use super::{Check, Fault, Looked, advice, command};
use crate::doctor::{
    commands,
    facts::{Facts, MapUse},
};

/// What comes of a full map.
pub(super) const LEFT_OUT: &str = "What does not fit is left to the kernel, without the rules of the \
     programs, and a container that nothing could check is not attached.";

const MAPS: Fault = Fault::warning("map-nearly-full", LEFT_OUT);
const CONNECTIONS: Fault = Fault::warning(
    "conntrack-nearly-full",
    "The kernel drops the first packets of new connections that it carries, the tunnel's among them.",
);

pub(super) const CHECKS: [Check; 2] = [MAPS.if_seen(maps), CONNECTIONS.always(connections)];

const COUNT: &str = "net/netfilter/nf_conntrack_count";
const MOST: &str = "net/netfilter/nf_conntrack_max";

/// Nine tenths of it.
fn is_nearly_full(used: usize, capacity: usize) -> bool {
    used.saturating_mul(10) >= capacity.saturating_mul(9) && used > 0
}

/// Whether something has been left out of a map: that is told by itself.
fn is_full(facts: &Facts, map: &MapUse) -> bool {
    let mut full = facts.problems.iter().filter_map(Problem::full);
    full.any(|(name, _)| name == map.name)
}

fn maps(facts: &Facts) -> Looked {
    let maps = facts.maps.as_ref().map_err(Clone::clone)?;
    let nearly = maps
        .iter()
        .filter(|map| is_nearly_full(map.used, map.capacity) && !is_full(facts, map));
    Ok(nearly
        .map(|map| {
            let what = format!("it has {} of {} entries", map.used, map.capacity);
            let cure = advice(
                "spread the network over fewer subnets a peer, or peers and containers over more \
                 nodes: the sizes are fixed in overlay-common/src/maps.rs",
            );
            MAPS.at(map.name, what, cure)
        })
        .collect())
}

fn connections(facts: &Facts) -> Vec<Finding> {
    let number = |key: &str| facts.settings.get(key)?.parse::<usize>().ok();
    let Some((used, most)) = number(COUNT).zip(number(MOST)) else {
        // Nobody has asked the kernel to track any.
        return Vec::new();
    };
    if !is_nearly_full(used, most) {
        return Vec::new();
    }
    let what = format!("{used} of {most} connections are tracked");
    let cure = command("allow more", commands::set(MOST, most.saturating_mul(2)));
    vec![CONNECTIONS.at("conntrack", what, cure)]
}

#[cfg(test)]
mod tests {
    use overlay_core::desired::Problem;

    use super::super::healthy::{broken, only};
    use crate::doctor::facts::{Facts, MapUse};

    fn used(used: usize) -> impl FnOnce(&mut Facts) {
        move |facts| {
            facts.maps = Ok(vec![MapUse {
                name: "PEERS4",
                used,
                capacity: 10,
            }]);
        }
    }

    #[test]
    fn nine_tenths_are_nearly_full() {
        let found = only("map-nearly-full", used(9));
        assert_eq!(found.what, "it has 9 of 10 entries");
        assert!(broken(used(8)).is_empty());
        let network = || "lab".parse().unwrap();
        let full = ("PEERS4", 10);
        for problem in [
            Problem::PeersLeftOut {
                network: network(),
                peers: 1,
                full,
            },
            Problem::AddressesLeftOut {
                network: network(),
                addresses: 1,
                full,
            },
        ] {
            only("map-full", |facts| {
                used(10)(facts);
                facts.problems = vec![problem];
            });
        }
    }

    #[test]
    fn tracked_connections_are_counted_where_they_are() {
        let tracked = |number: &'static str| {
            move |facts: &mut Facts| {
                let key = super::COUNT.to_owned();
                drop(facts.settings.insert(key, number.to_owned()));
            }
        };
        let found = only("conntrack-nearly-full", tracked("65000"));
        assert_eq!(
            found.cure.commands,
            ["sysctl -w net.netfilter.nf_conntrack_max=131072"]
        );
        assert!(broken(tracked("100")).is_empty());
    }
}
