//! Whose a table is.
//!
//! A name proves nothing: anybody can have a table called like ours. So each table of an instance
//! has an empty chain that no hook leads to and that names the instance, and a transaction that
//! replaces or deletes a table removes this chain first: the kernel refuses the whole of it where
//! the chain is not there, however late somebody else came in between.
//!
//! It is no comment of the table, because nft 1.0.6 neither reads nor writes that in JSON.

use std::collections::BTreeSet;

use nftables::{
    batch::Batch,
    schema::{Chain, NfCmd, NfListObject},
    types::NfFamily,
};
use overlay_core::{model::Name, objects::TableOwner};
use serde_json::Value;

use super::itself;
use crate::KernelError;

/// Prefix of the chain's name; the instance follows.
const MARK: &str = "made-by-overlay-";

/// Name of the chain that names the instance.
pub(super) fn mark_of(instance: &Name) -> String {
    format!("{MARK}{instance}")
}

/// The instance that a chain of this name marks.
pub(super) fn owner_by(chain: &str) -> Option<Name> {
    chain.strip_prefix(MARK)?.parse().ok()
}

/// The chain that names the instance.
pub(super) fn mark<'a>(table: &'a str, instance: &Name) -> NfListObject<'a> {
    NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: table.into(),
        name: mark_of(instance).into(),
        ..Chain::default()
    })
}

/// Whose mark is in a table, as `nft --json list table` prints it; `None` when nobody's is.
pub(super) fn marked_by(listing: &Value, instance: &Name) -> Option<TableOwner> {
    let objects = listing.get("nftables")?.as_array()?;
    let chains = objects
        .iter()
        .filter_map(|object| object.get("chain")?.get("name")?.as_str());
    let owners: Vec<Name> = chains.filter_map(owner_by).collect();
    if owners.contains(instance) {
        return Some(TableOwner::This);
    }
    owners.into_iter().next().map(TableOwner::Instance)
}

/// The tables, by family and name, that have an instance's mark, of all that `nft --json list
/// ruleset` prints.
pub fn tables_of(ruleset: &Value, instance: &Name) -> BTreeSet<(String, String)> {
    let mark = mark_of(instance);
    tables_with(ruleset, |chain| chain == mark)
}

/// The tables that have any instance's mark, likewise.
pub(super) fn marked(ruleset: &Value) -> BTreeSet<(String, String)> {
    tables_with(ruleset, |chain| owner_by(chain).is_some())
}

fn tables_with(ruleset: &Value, is_it: impl Fn(&str) -> bool) -> BTreeSet<(String, String)> {
    let objects = ruleset.get("nftables").and_then(Value::as_array);
    let chains = objects.into_iter().flatten().filter_map(|object| {
        let chain = object.get("chain")?;
        let text = |key| chain.get(key)?.as_str();
        is_it(text("name")?).then_some((text("family")?.into(), text("table")?.into()))
    });
    chains.collect()
}

/// The refusal to touch a table of somebody else.
pub(super) fn taken(operation: String) -> KernelError {
    let cause = "a table of this name is there that this instance did not make";
    KernelError::new(operation, cause).with_cure("give this instance another node.name")
}

/// The tables, by family and name, with a chain of this type at a hook, of all that `nft --json
/// list chains` prints.
pub(super) fn with_chains(chains: &Value, kind: &str) -> BTreeSet<(String, String)> {
    let objects = chains.get("nftables").and_then(Value::as_array);
    let tables = objects.into_iter().flatten().filter_map(|object| {
        let chain = object.get("chain")?;
        let text = |key| chain.get(key)?.as_str();
        (text("type") == Some(kind)).then_some((text("family")?.into(), text("table")?.into()))
    });
    tables.collect()
}

/// A transaction that makes a table of the instance as new, to be filled; `None` where the table
/// is somebody else's. `there` is whose it is now, if there is one.
pub(super) fn renewal<'a>(
    table: &'a str,
    instance: &Name,
    there: Option<&TableOwner>,
) -> Option<Batch<'a>> {
    let mut batch = match there {
        None => Batch::new(),
        Some(owner) => removal(table, instance, owner)?,
    };
    // Unlike `add`, it fails when somebody has just made one.
    batch.add_cmd(NfCmd::Create(itself(table)));
    batch.add(mark(table, instance));
    Some(batch)
}

/// A transaction that deletes a table of the instance; `None` where it is somebody else's.
pub(super) fn removal<'a>(
    table: &'a str,
    instance: &Name,
    owner: &TableOwner,
) -> Option<Batch<'a>> {
    let mut batch = Batch::new();
    match owner {
        TableOwner::This => batch.delete(mark(table, instance)),
        TableOwner::Earlier => {}
        TableOwner::Instance(_) | TableOwner::Unknown => return None,
    }
    batch.delete(itself(table));
    Some(batch)
}

#[cfg(test)]
mod tests {
    use overlay_core::{model::Name, objects::TableOwner};
    use serde_json::json;

    use super::{marked_by, removal, renewal};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_table_is_whose_mark_it_has() {
        let with = |chains: &[&str]| {
            let chains = chains.iter().map(|name| json!({"chain": {"name": name}}));
            let table = json!({"table": {"name": "overlay-n1"}});
            json!({"nftables": chains.chain([table]).collect::<Vec<_>>()})
        };
        for (chains, owner) in [
            (&[][..], None),
            (&["forward"], None),
            (&["made-by-overlay-"], None),
            (&["forward", "made-by-overlay-n1"], Some(TableOwner::This)),
            (
                &["made-by-overlay-n1-guard"],
                Some(TableOwner::Instance(name("n1-guard"))),
            ),
            (
                &["made-by-overlay-n2", "made-by-overlay-n1"],
                Some(TableOwner::This),
            ),
        ] {
            assert_eq!(marked_by(&with(chains), &name("n1")), owner, "{chains:?}");
        }
    }

    #[test]
    fn what_somebody_else_made_is_neither_replaced_nor_deleted() {
        for (owner, may) in [
            (TableOwner::This, true),
            (TableOwner::Earlier, true),
            (TableOwner::Instance(name("n2")), false),
            (TableOwner::Unknown, false),
        ] {
            let table = "overlay-n1";
            assert_eq!(removal(table, &name("n1"), &owner).is_some(), may);
            assert_eq!(renewal(table, &name("n1"), Some(&owner)).is_some(), may);
        }
    }
}
