//! The packet filter of others: all of it, or the part of it that has changed.

use std::collections::BTreeSet;

use overlay_core::{filter::Part, model::Name};
use serde_json::{Value, json};

use super::{complete, listed, listed_if_there, ownership, tables_of};
use crate::Result;

/// Of chains that judge packets or translate them.
const KINDS: [&str; 2] = ["filter", "nat"];

/// A table, by family and name.
type TableName = (String, String);

/// The packet filter of others.
#[derive(Debug)]
pub struct Others {
    /// The tables that have chains that judge packets or translate them, as
    /// [`ruleset`](super::ruleset) has them.
    pub rules: Value,
    /// These tables.
    pub tables: BTreeSet<TableName>,
    /// Those of instances of overlay, this one too, which are not among them.
    pub overlays: BTreeSet<TableName>,
    /// Whether any of another instance's translates addresses.
    pub overlays_translate: bool,
}

/// The tables that are not the instance's. What the instance has made can be much, and is not
/// listed.
pub fn rules_of_others(instance: &Name) -> Result<Others> {
    let chains = listed(&["list", "chains"])?;
    let ours = tables_of(&chains, instance);
    // What another instance does is about its own networks.
    let overlays = ownership::marked(&chains);
    let [filters, translating] = KINDS.map(|kind| ownership::with_chains(&chains, kind));
    let mut objects = Vec::new();
    let mut tables = BTreeSet::new();
    for table in filters.union(&translating) {
        if overlays.contains(table) {
            continue;
        }
        // Or it has gone meanwhile, which is announced.
        if let Some(listing) = listed_if_there(&["list", "table", &table.0, &table.1])? {
            let listed = listing["nftables"].as_array();
            objects.extend(listed.into_iter().flatten().cloned());
            tables.insert(table.clone());
        }
    }
    complete(&mut objects)?;
    let mut by_overlays = translating.intersection(&overlays);
    Ok(Others {
        rules: json!({ "nftables": objects }),
        tables,
        overlays_translate: by_overlays.any(|table| !ours.contains(table)),
        overlays,
    })
}

/// A part of a table of others, as it is now; nothing of a table without chains that judge packets or
/// translate them, and nothing where it is gone.
pub fn part_of_others((family, table): &TableName, part: &Part) -> Result<Value> {
    let listing = match part {
        Part::All => {
            let listing = listed_if_there(&["list", "table", family, table])?;
            listing.filter(|listing| {
                let mut kinds = KINDS.iter();
                ownership::marked(listing).is_empty()
                    && kinds.any(|kind| !ownership::with_chains(listing, kind).is_empty())
            })
        }
        Part::Chain(chain) => listed_if_there(&["list", "chain", family, table, chain])?,
        Part::Set(set) => match listed_if_there(&["list", "set", family, table, set])? {
            None => listed_if_there(&["list", "map", family, table, set])?,
            listing => listing,
        },
    };
    let Some(mut listing) = listing else {
        return Ok(json!({ "nftables": [] }));
    };
    if let Some(objects) = listing["nftables"].as_array_mut() {
        complete(objects)?;
    }
    Ok(listing)
}
