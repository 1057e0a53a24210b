//! The packet filter: one nftables table of the family `inet`, in this thread's namespace.
//!
//! The table belongs to whoever knows its name. It is set as a whole, in one transaction:
//! no packet passes between the old rules and the new.

mod listing;
mod rules;
mod watch;

use std::io;

use nftables::{
    batch::Batch,
    helper::{self, DEFAULT_NFT, NftablesError},
    schema::{NfListObject, Table},
    types::NfFamily,
};

use super::{KernelError, Result};
use crate::objects::{Filter, FilterRules};

pub use watch::Watch;

/// What the table of this name does; `None` when there is none.
pub fn read(table: &str) -> Result<Option<Filter>> {
    let arguments = ["list", "table", "inet", table];
    match helper::get_current_ruleset_with_args(DEFAULT_NFT, arguments) {
        Ok(found) => Ok(Some(listing::understand(table, &found))),
        // Nothing that we make is unknown to the library.
        Err(NftablesError::NftInvalidJson(_)) => Ok(Some(Filter::Altered)),
        Err(NftablesError::NftFailed { stderr, .. }) if is_missing(&stderr) => Ok(None),
        Err(error) => Err(failed(format!("list nftables table inet {table}"), error)),
    }
}

/// All tables of everybody, as `nft --json list ruleset` prints them: others use much that the
/// library does not know.
pub fn ruleset() -> Result<serde_json::Value> {
    let operation = "list the nftables ruleset";
    let text = helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "ruleset"])
        .map_err(|error| failed(operation.to_owned(), error))?;
    serde_json::from_str(&text).map_err(|error| KernelError::new(operation, error.to_string()))
}

/// Makes the table do just this, whatever it did before.
pub fn set(table: &str, rules: &FilterRules) -> Result<()> {
    let mut batch = emptied(table);
    for object in rules::render(table, rules) {
        batch.add(object);
    }
    helper::apply_ruleset(&batch.to_nftables())
        .map_err(|error| failed(format!("set nftables table inet {table}"), error))
}

/// Removes the table, if there is one.
pub fn delete(table: &str) -> Result<()> {
    helper::apply_ruleset(&emptied(table).to_nftables())
        .map_err(|error| failed(format!("delete nftables table inet {table}"), error))
}

/// A transaction after which there is no such table.
fn emptied(table: &str) -> Batch<'_> {
    let mut batch = Batch::new();
    // What is deleted must be there, and what is there can be added.
    batch.add(itself(table));
    batch.delete(itself(table));
    batch
}

fn itself(table: &str) -> NfListObject<'_> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: table.into(),
        handle: None,
    })
}

fn is_missing(stderr: &str) -> bool {
    stderr.contains("No such file or directory")
}

fn failed(operation: String, error: NftablesError) -> KernelError {
    match error {
        NftablesError::NftExecution { inner, .. } if inner.kind() == io::ErrorKind::NotFound => {
            KernelError::new(operation, "there is no program nft in PATH")
                .with_cure("install nftables")
        }
        NftablesError::NftExecution { inner, .. } => KernelError::io(operation, &inner),
        NftablesError::NftFailed { stdout, stderr, .. } => {
            // With JSON as input, nft complains on either; what follows repeats the input.
            let mut lines = stderr.lines().chain(stdout.lines());
            let cause = lines.find(|line| !line.trim().is_empty());
            KernelError::new(operation, cause.unwrap_or("nft failed without a reason"))
        }
        error => KernelError::new(operation, error.to_string()),
    }
}
