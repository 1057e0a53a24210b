//! The guard of the tunnels' ports: a table of its own, which everything passes that the kernel
//! receives for a tunnel, whatever device it came by.
//!
//! It is made whole in one transaction, and then changed by what comes and goes of the peers.
//! Chains without rules note what it was made from, and what it looked like then: so a change
//! by anybody shows, whichever version of nft lists it.

mod listing;
mod script;

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::generation::generation;
use crate::{
    kernel::{KernelError, Result},
    objects::{Guard, GuardRules},
};

/// Packets and bytes that were dropped, by reason.
pub type Dropped = BTreeMap<String, (u64, u64)>;

/// What is known of the guard's table in this thread's namespace.
#[derive(Debug, Default)]
pub struct GuardTable(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Of all tables, when this one was looked at.
    generation: Option<u32>,
    found: Option<Guard>,
    /// What this process has set last.
    set: Option<GuardRules>,
}

impl GuardTable {
    /// What the table does; `None` when there is none. It is listed only when some table has
    /// changed since the last look.
    pub fn read(&self, table: &str) -> Result<Option<Guard>> {
        let now = generation()?;
        let mut memory = self.memory();
        if memory.generation != Some(now) {
            memory.found = listed(table)?.map(|text| listing::understand(&text));
            memory.generation = Some(now);
        }
        Ok(memory.found.clone())
    }

    /// Makes the table do just this. Where it does what this process has set before, only what
    /// differs of the senders is changed.
    pub fn set(&self, table: &str, rules: &GuardRules) -> Result<()> {
        let mut memory = self.memory();
        let there = listed(table)?;
        let does = there.as_deref().map(listing::understand);
        let before = memory.set.take();
        let kept = before
            .filter(|before| does.as_ref().is_some_and(|there| there.does(before)))
            .filter(|before| has_same_rules(before, rules));
        let mut commands = match (&kept, &there) {
            (Some(before), Some(there)) => forgotten(table, there) + &changed(table, before, rules),
            _ => whole(table, rules, &dropped(table, there.is_some())?),
        };
        let note = listing::made_of(rules.digest());
        commands.push_str(&add_chain(table, &note));
        run(&["-f", "-"], &commands, || {
            format!("set nftables table inet {table}")
        })?;
        let text = listed(table)?.unwrap_or_default();
        let seal = listing::seen(listing::look(&text));
        let script = add_chain(table, &seal);
        run(&["-f", "-"], &script, || {
            format!("seal nftables table inet {table}")
        })?;
        memory.set = Some(rules.clone());
        memory.generation = None;
        Ok(())
    }

    /// Removes the table, if there is one.
    pub fn delete(&self, table: &str) -> Result<()> {
        let mut memory = self.memory();
        (memory.set, memory.generation) = (None, None);
        let script = format!("add table inet {table}\ndelete table inet {table}\n");
        run(&["-f", "-"], &script, || {
            format!("delete nftables table inet {table}")
        })
        .map(drop)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What is in it is looked at again before anything is built on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the guard has dropped since it was made; nothing when there is none.
pub fn dropped_by_guard(table: &str) -> Result<Dropped> {
    dropped(table, true)
}

/// Whether this kernel and this machine have what the guard takes.
pub fn is_usable() -> bool {
    generation().is_ok() && run(&["--version"], "", String::new).is_ok()
}

fn whole(table: &str, rules: &GuardRules, dropped: &Dropped) -> String {
    let counts = |reason: &str| dropped.get(reason).copied().unwrap_or_default();
    let senders = &rules.senders;
    format!("add table inet {table}\ndelete table inet {table}\n")
        + &script::skeleton(table, rules, counts)
        + &script::change(table, "add", senders.vteps.iter(), senders.sources.iter())
        + &script::change_ends(table, "add", script::ends(rules, senders).into_iter())
}

fn has_same_rules(one: &GuardRules, other: &GuardRules) -> bool {
    let without = |rules: &GuardRules| GuardRules {
        senders: Arc::default(),
        ..rules.clone()
    };
    without(one) == without(other)
}

/// From the senders of one set of rules to those of another. What goes goes first: ranges must
/// not overlap.
fn changed(table: &str, before: &GuardRules, after: &GuardRules) -> String {
    use script::{change, change_ends, ends};
    let (old, new) = (&before.senders, &after.senders);
    let (old_ends, new_ends) = (ends(before, old), ends(after, new));
    change(
        table,
        "delete",
        old.vteps.difference(&new.vteps),
        old.sources.difference(&new.sources),
    ) + &change(
        table,
        "add",
        new.vteps.difference(&old.vteps),
        new.sources.difference(&old.sources),
    ) + &change_ends(table, "delete", old_ends.difference(&new_ends).copied())
        + &change_ends(table, "add", new_ends.difference(&old_ends).copied())
}

fn add_chain(table: &str, name: &str) -> String {
    format!("add chain inet {table} {name}\n")
}

/// Commands that take the notes away that were true of the table before.
fn forgotten(table: &str, listing: &str) -> String {
    let notes = listing::notes(listing);
    let lines = notes.map(|chain| format!("delete chain inet {table} {chain}\n"));
    lines.collect()
}

fn listed(table: &str) -> Result<Option<String>> {
    let operation = || format!("list nftables table inet {table}");
    missing_is_fine(run(&["-s", "list", "table", "inet", table], "", operation))
}

fn dropped(table: &str, is_there: bool) -> Result<Dropped> {
    if !is_there {
        return Ok(Dropped::new());
    }
    let operation = || format!("list the counters of nftables table inet {table}");
    let text = run(&["list", "counters", "table", "inet", table], "", operation);
    Ok(missing_is_fine(text)?.map_or_else(Dropped::new, |text| listing::counts(&text)))
}

fn missing_is_fine(found: Result<String>) -> Result<Option<String>> {
    match found {
        Ok(text) => Ok(Some(text)),
        Err(error) if super::is_missing(&error.to_string()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn run(arguments: &[&str], script: &str, operation: impl Fn() -> String) -> Result<String> {
    let failed = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            KernelError::new(operation(), "there is no program nft in PATH")
                .with_cure("install nftables")
        }
        _ => KernelError::io(operation(), error),
    };
    let mut child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
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
    written.map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
