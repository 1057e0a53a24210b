//! What `nft` is to do with the guard's tables, each time in one transaction.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    process::{Command, Stdio},
    sync::Arc,
};

use overlay_core::{
    model::Name,
    objects::{GuardRules, Leaving, guard_table},
};

use super::{Dropped, elements, leaving, look::Look, script, speakers};
use crate::{
    KernelError, Result,
    nft::{NO_NFT, ownership::mark_of},
};

/// Commands that delete the tables that are there. The mark goes first: where that is gone, as
/// with a table that somebody has made meanwhile, the kernel refuses all of it.
pub(super) fn removal(instance: &Name, there: Option<&Look>) -> String {
    let (table, mark) = (guard_table(instance), mark_of(instance));
    let families = there.into_iter().flat_map(|there| {
        let inet = there.inet.as_ref().map(|_| "inet");
        inet.into_iter()
            .chain(there.bridge.as_ref().map(|_| "bridge"))
    });
    let lines = families.map(|family| {
        format!("delete chain {family} {table} {mark}\ndelete table {family} {table}\n")
    });
    lines.collect()
}

/// Commands that make the tables.
pub(super) struct Making {
    /// The tables, which nothing passes yet; they fail where there are any.
    pub(super) frame: String,
    /// Who may send.
    pub(super) senders: String,
    /// Who containers are, and that packets pass.
    pub(super) entrances: String,
}

impl Making {
    pub(super) fn of(instance: &Name, rules: &GuardRules, dropped: &Dropped) -> Self {
        let (table, mark) = (&guard_table(instance), mark_of(instance));
        let counts = |reason: &str| dropped.get(reason).copied().unwrap_or_default();
        let senders = &rules.senders;
        let (inside, hooked) = script::skeleton(table, rules, counts);
        let (of_bridge, hooked_of_bridge) = speakers::skeleton(table, counts);
        Self {
            frame: format!("create table inet {table}\n")
                + &add_chain(table, &mark)
                + &inside
                + &format!("create table bridge {table}\nadd chain bridge {table} {mark}\n")
                + &of_bridge,
            senders: elements::change(table, "add", senders.vteps.iter(), senders.sources.iter())
                + &elements::change_ends(table, "add", elements::ends(rules, senders).into_iter()),
            entrances: speakers::change(table, "add", rules.endpoints.iter())
                + &hooked
                + &hooked_of_bridge,
        }
    }

    /// All of it, in one transaction.
    pub(super) fn whole(&self) -> String {
        [&*self.frame, &self.senders, &self.entrances].concat()
    }
}

pub(super) fn has_same_rules(one: &GuardRules, other: &GuardRules) -> bool {
    if one.senders.lengths != other.senders.lengths {
        return false;
    }
    let without = |rules: &GuardRules| GuardRules {
        senders: Arc::default(),
        endpoints: BTreeSet::new(),
        leaving: Leaving {
            ranges: rules.leaving.ranges.clone(),
            ..Leaving::default()
        },
        ..rules.clone()
    };
    without(one) == without(other)
}

/// From the senders of one set of rules to those of another, and from what leaves.
pub(super) fn changed(table: &str, before: &GuardRules, after: &GuardRules) -> String {
    use elements::{change, change_ends, ends};
    let (old, new) = (&before.senders, &after.senders);
    let (old_ends, new_ends) = (ends(before, old), ends(after, new));
    let leaving = if before.leaving == after.leaving {
        String::new()
    } else {
        leaving::empty(table) + &leaving::fill(table, after)
    };
    let (gone, come) = (&before.endpoints, &after.endpoints);
    let speakers = speakers::change(table, "delete", gone.difference(come))
        + &speakers::change(table, "add", come.difference(gone));
    leaving
        + &speakers
        + &change(
            table,
            "delete",
            old.vteps.difference(&new.vteps),
            old.sources.difference(&new.sources),
        )
        + &change(
            table,
            "add",
            new.vteps.difference(&old.vteps),
            new.sources.difference(&old.sources),
        )
        + &change_ends(table, "delete", old_ends.difference(&new_ends).copied())
        + &change_ends(table, "add", new_ends.difference(&old_ends).copied())
}

pub(super) fn add_chain(table: &str, name: &str) -> String {
    format!("add chain inet {table} {name}\n")
}

/// Commands that take the notes away that were true of the table before.
pub(super) fn forgotten(table: &str, there: &Look) -> String {
    let notes = there.notes.iter();
    let lines = notes.map(|chain| format!("delete chain inet {table} {chain}\n"));
    lines.collect()
}

/// Has nft carry out a script, in one transaction.
pub(super) fn run(script: &str, operation: impl Fn() -> String) -> Result<()> {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            KernelError::new(operation(), NO_NFT).with_cure("install nftables")
        }
        _ => KernelError::io(operation(), error),
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let cause = said.lines().find(|line| !line.trim().is_empty());
        let cause = cause.unwrap_or("nft failed without a reason").to_owned();
        return Err(KernelError::new(operation(), cause));
    }
    written.map_err(|error| failed(&error))
}
