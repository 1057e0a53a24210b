//! Destinations that routes of others refuse.

use std::collections::BTreeMap;

use ipnet::IpNet;
use overlay_core::{
    model::{Family, Model},
    surroundings::{MAIN_TABLE, Routing, Rule, Table},
};

use super::tables::Tables;

impl Tables {
    /// The prefixes whose packets others have refused in the main table, and how.
    pub(super) fn refused(&self) -> impl Iterator<Item = (IpNet, &'static str)> {
        let main = self.others.iter().filter(|route| route.table == MAIN_TABLE);
        main.filter_map(|route| Some((route.destination, route.refuses?)))
    }

    /// Routes of others in the tables that rules lead to, as far as they are about networks.
    pub(super) fn asked(
        &self,
        rules: &BTreeMap<Family, Vec<Rule>>,
        model: &Model,
    ) -> BTreeMap<(Family, u32), Table> {
        let asked = Routing::tables_asked(rules);
        let ranges = model.networks.iter().flat_map(|network| &network.ranges);
        let ranges: Vec<IpNet> = ranges.map(|range| range.cidr).collect();
        let mut tables: BTreeMap<_, Table> = BTreeMap::new();
        for route in &self.others {
            let net = route.destination;
            let key = (Family::of(net.addr()), route.table);
            let mut ranges = ranges.iter();
            if asked.contains(&key)
                && ranges.any(|range| range.contains(&net) || net.contains(range))
            {
                let table = tables.entry(key).or_default();
                table.add(net, route.metric, route.refuses);
            }
        }
        tables
    }
}
