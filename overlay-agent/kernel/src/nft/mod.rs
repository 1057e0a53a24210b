//! The packet filter: one nftables table of the family `inet`, in this thread's namespace.
//!
//! It is set as a whole, in one transaction: no packet passes between the old rules and the new.

mod batch;
mod devices;
mod does;
mod dump;
mod generation;
mod guard;
mod iptables;
mod limits;
mod listing;
mod others;
mod ownership;
mod rules;
mod unlisted;
mod watch;

use std::io;

use super::{KernelError, Result, statistics};
use nftables::{
    helper::{self, DEFAULT_NFT, NftablesError},
    schema::{NfListObject, Nftables, Table},
    types::NfFamily,
};
use overlay_core::{
    model::Name,
    objects::{Filter, FilterRules, FilterTable, TableOwner},
};

pub use does::Does;
pub use generation::generation;
pub use guard::{Dropped, Found, GuardTable, dropped_by_guard};
pub use limits::Limits;
pub use others::{Others, part_of_others, rules_of_others};
pub use ownership::tables_of;
pub use watch::{Commit, Part, Told, Touched, Watch};

const NO_NFT: &str = "there is no program nft in PATH";

/// Whose the table of this name is, for an instance, and what it does; `None` when there is none.
pub fn read(table: &str, instance: &Name) -> Result<Option<FilterTable>> {
    let Some(listing) = listed_if_there(&["list", "table", "inet", table])? else {
        return Ok(None);
    };
    let marked_by = ownership::marked_by(&listing, instance);
    // Nothing that we make is unknown to the library.
    let objects = serde_json::from_value::<Nftables<'_>>(listing).ok();
    let filter = objects.as_ref().map_or(Filter::Altered, |objects| {
        listing::understand(table, instance, objects)
    });
    let by_earlier = |objects: &Nftables<'_>| listing::is_of_earlier(table, objects);
    let owner = marked_by.unwrap_or_else(|| {
        if objects.as_ref().is_some_and(by_earlier) {
            TableOwner::Earlier
        } else {
            TableOwner::Unknown
        }
    });
    Ok(Some(FilterTable { owner, filter }))
}

/// All tables of everybody, as `nft --json list ruleset` prints them, with the devices of chains,
/// what matches of iptables ask for, and rules that it does not know: others use much that the library does not know.
pub fn ruleset() -> Result<serde_json::Value> {
    let mut listing = listed(&["list", "ruleset"])?;
    if let Some(objects) = listing["nftables"].as_array_mut() {
        complete(objects)?;
    }
    Ok(listing)
}

/// Adds what `nft` leaves out of its JSON.
fn complete(objects: &mut Vec<serde_json::Value>) -> Result<()> {
    let added = unlisted::add(objects);
    added.map_err(|error| KernelError::io("list the rules that nft does not list", &error))?;
    let named = devices::name_devices(objects);
    named.map_err(|error| KernelError::io("list the devices of nftables' chains", &error))?;
    let explained = iptables::explain(objects);
    explained.map_err(|error| KernelError::io("list the matches of iptables' rules", &error))
}

/// Whether `iptables-legacy`, which nftables does not show, has a table that translates addresses, or
/// may have one that cannot be read.
pub fn legacy_translates() -> bool {
    let lists = ["ip_tables_names", "ip6_tables_names"];
    let mut names = lists.iter().map(|list| statistics::lines_of(list));
    names.any(|names| names.map_or(true, |names| names.iter().any(|name| name == "nat")))
}

fn listed(arguments: &[&str]) -> Result<serde_json::Value> {
    let nothing = || KernelError::new(format!("nft {}", arguments.join(" ")), "it is not there");
    listed_if_there(arguments)?.ok_or_else(nothing)
}

fn listed_if_there(arguments: &[&str]) -> Result<Option<serde_json::Value>> {
    let operation = || format!("nft {}", arguments.join(" "));
    let text = match helper::get_current_ruleset_raw(DEFAULT_NFT, arguments) {
        Ok(text) => text,
        Err(NftablesError::NftFailed { stderr, .. }) if is_missing(&stderr) => return Ok(None),
        Err(error) => return Err(failed(operation(), error)),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| KernelError::new(operation(), error.to_string()))
}

/// Makes the instance's table do just this, whatever it did before.
///
/// An error, with nothing changed, where somebody else has a table of this name.
pub fn set(table: &str, instance: &Name, rules: &FilterRules) -> Result<()> {
    let operation = || format!("set nftables table inet {table}");
    let there = read(table, instance)?.map(|there| there.owner);
    let Some(mut batch) = ownership::renewal(table, instance, there.as_ref()) else {
        return Err(ownership::taken(operation()));
    };
    for object in rules::render(table, rules) {
        batch.add(object);
    }
    helper::apply_ruleset(&batch.to_nftables()).map_err(|error| failed(operation(), error))
}

/// Removes the instance's table, if there is one; somebody else's stays.
pub fn delete(table: &str, instance: &Name) -> Result<()> {
    let there = read(table, instance)?.map(|there| there.owner);
    let Some(batch) = there.and_then(|owner| ownership::removal(table, instance, &owner)) else {
        return Ok(());
    };
    helper::apply_ruleset(&batch.to_nftables())
        .map_err(|error| failed(format!("delete nftables table inet {table}"), error))
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
            KernelError::new(operation, NO_NFT).with_cure("install nftables")
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
