//! Where routes of others lead out of the node.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_core::{model::Family, surroundings::MAIN_TABLE};

use super::tables::Tables;

/// By device and family; `None`: anywhere.
type Exits = BTreeMap<(u32, Family), Option<BTreeSet<IpNet>>>;

/// `RT_TABLE_DEFAULT`, which is asked after the main one.
const DEFAULT_TABLE: u32 = 253;
/// A router that has more routes by a device has them from a routing daemon, and they change with
/// the hour.
const MOST_ROUTES: usize = 4096;

/// Routes that leave the node by a device.
#[derive(Default)]
struct Exit {
    nets: Vec<IpNet>,
    /// A default route of the usual tables does,
    is_default: bool,
    /// one of another table.
    is_chosen: bool,
}

impl Tables {
    /// Where routes of others lead that are no default routes, by device; anywhere by those of which
    /// they are too many to tell, and by those that only other tables have a default route by, to
    /// which a rule leads.
    pub(super) fn exits(&self) -> Exits {
        let mut exits: BTreeMap<(u32, Family), Exit> = BTreeMap::new();
        for route in &self.others {
            // `rt6_need_strict`: what is to such an address stays on its link.
            if matches!(route.destination, IpNet::V6(net) if net.addr().is_unicast_link_local()) {
                continue;
            }
            let family = Family::of(route.destination.addr());
            for device in &route.exits {
                let exit = exits.entry((*device, family)).or_default();
                if route.destination.prefix_len() > 0 {
                    if exit.nets.len() <= MOST_ROUTES {
                        exit.nets.push(route.destination);
                    }
                } else if [MAIN_TABLE, DEFAULT_TABLE].contains(&route.table) {
                    exit.is_default = true;
                } else {
                    exit.is_chosen = true;
                }
            }
        }
        let exits = exits.into_iter();
        exits
            .map(|(key, exit)| {
                let anywhere = exit.nets.len() > MOST_ROUTES || exit.is_chosen && !exit.is_default;
                let nets = (!anywhere).then(|| IpNet::aggregate(&exit.nets).into_iter().collect());
                (key, nets)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipnet::IpNet;
    use overlay_core::model::Family;

    use super::{MAIN_TABLE, MOST_ROUTES, Tables};
    use crate::observe::tables::OtherRoute;

    fn route(destination: &str, table: u32, device: u32) -> OtherRoute {
        OtherRoute {
            destination: destination.parse().unwrap(),
            table,
            metric: 0,
            protocol: 4,
            device: Some(device),
            many: false,
            exits: vec![device],
            refuses: None,
        }
    }

    #[test]
    fn a_default_route_leads_nowhere_but_one_that_a_rule_chooses() {
        let mut tables = Tables::default();
        tables.others.extend([
            route("0.0.0.0/0", MAIN_TABLE, 2),
            route("0.0.0.0/0", 100, 2),
            route("192.0.2.0/24", MAIN_TABLE, 2),
            route("192.0.2.128/25", 100, 2),
            route("::/0", 100, 2),
            route("0.0.0.0/0", 100, 3),
            route("fe80::/64", MAIN_TABLE, 5),
        ]);
        let many = (0..=MOST_ROUTES).map(|number| {
            let [.., high, low] = number.to_be_bytes();
            route(&format!("10.{high}.{low}.0/24"), MAIN_TABLE, 4)
        });
        tables.others.extend(many);
        let one: BTreeSet<IpNet> = ["192.0.2.0/24".parse().unwrap()].into();
        let expected = [
            ((2, Family::V4), Some(one)),
            ((2, Family::V6), None),
            ((3, Family::V4), None),
            ((4, Family::V4), None),
        ];
        assert_eq!(tables.exits(), expected.into());
    }
}
