//! The guard of the tunnels' ports: a table of its own, which everything passes that the kernel
//! receives for a tunnel, whatever device it came by; and one of the family `bridge`, which
//! everything passes that the kernel takes from a container.
//!
//! Both are made whole in one transaction by `nft`, and then changed by what comes and goes of the
//! peers. It is ours by the chain that marks it; a table of this name without that is somebody else's,
//! and stays as it is. Chains without rules note what it was made from, and what the kernel said of it then:
//! so a change by anybody shows.

mod commands;
mod elements;
mod leaving;
mod look;
mod script;
mod speakers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};

use self::look::Look;
use super::{
    NO_NFT,
    generation::generation,
    ownership::{mark_of, taken},
};
use crate::{
    kernel::{KernelError, Result},
    model::Name,
    objects::{Guard, GuardRules, Leaving, guard_table},
};

/// Packets and bytes that were dropped, by reason.
pub type Dropped = BTreeMap<String, (u64, u64)>;

/// What has the name of the guard's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    #[default]
    Nothing,
    /// The table of ours.
    Ours(Guard),
    /// A table without our mark; whose, where it has another instance's.
    Foreign(Option<Name>),
    /// There can be no table: this kernel or this machine lacks what it takes.
    Unavailable(String),
}

/// What is known of the guard's table in this thread's namespace.
#[derive(Debug, Default)]
pub struct GuardTable(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Of all tables, when this one was looked at.
    generation: Option<u32>,
    /// What was seen then.
    look: Option<Look>,
    /// What this process has set last.
    set: Option<GuardRules>,
}

impl Memory {
    /// The table as it is at a generation of all tables, looked at where that is a new one.
    fn look_at(&mut self, instance: &Name, now: u32) -> Result<Option<&Look>> {
        if self.generation != Some(now) {
            self.look = look_at(&guard_table(instance))?;
            self.generation = Some(now);
        }
        Ok(self.look.as_ref())
    }
}

impl GuardTable {
    /// What the table of an instance does. It is looked at only when some table of anybody has
    /// changed since the last look.
    pub fn read(&self, instance: &Name) -> Result<Found> {
        let now = match generation() {
            Ok(now) => now,
            Err(error) if is_unknown(&error) => {
                let error = error.with_cure("use a kernel with nf_tables, or load that module");
                return Ok(Found::Unavailable(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        Ok(match self.memory().look_at(instance, now)? {
            Some(look) if is_ours(look, instance) => match look.understand() {
                // As good as none: nobody here can set it right.
                Guard::Altered if !is_installed() => Found::Unavailable(NO_NFT.to_owned()),
                guard => Found::Ours(guard),
            },
            Some(look) => {
                let mut owners = look.inet.iter().chain(&look.bridge).flatten();
                Found::Foreign(owners.find(|owner| *owner != instance).cloned())
            }
            None if is_installed() => Found::Nothing,
            None => Found::Unavailable(NO_NFT.to_owned()),
        })
    }

    /// Makes the table do just this. Where it does what this process has set before, only what
    /// differs of the senders is changed. A table of somebody else is an error.
    pub fn set(&self, instance: &Name, rules: &GuardRules) -> Result<()> {
        let table = &guard_table(instance);
        let mut memory = self.memory();
        let operation = || format!("set nftables table inet {table}");
        let now = generation()?;
        let there = memory.look_at(instance, now)?.cloned();
        if there
            .as_ref()
            .is_some_and(|there| !is_ours(there, instance))
        {
            return Err(taken(operation()));
        }
        let does = there.as_ref().map(Look::understand);
        let before = memory.set.take();
        let kept = before
            .filter(|before| does.as_ref().is_some_and(|there| there.does(before)))
            .filter(|before| has_same_rules(before, rules));
        let mut commands = if let (Some(before), Some(there)) = (&kept, &there) {
            forgotten(table, there) + &changed(table, before, rules)
        } else {
            let dropped = dropped_by_guard(instance)?;
            removal(instance, there.as_ref()) + &whole(instance, rules, &dropped)
        };
        let note = look::made_of(rules.digest());
        commands.push_str(&add_chain(table, &note));
        run(&commands, operation)?;
        let set = generation()?;
        if set != now.wrapping_add(1) {
            // Somebody else has changed something, too: what is there now need not be ours, and
            // without a seal the next look finds it altered.
            *memory = Memory::default();
            return Ok(());
        }
        let mut made = look_at(table)?.unwrap_or_default();
        let seal = look::seen(made.digest);
        let script = add_chain(table, &seal);
        run(&script, || format!("seal nftables table inet {table}"))?;
        made.notes.push(seal);
        memory.set = Some(rules.clone());
        // Each transaction is one generation: where this was the only one, all is known.
        let sealed = set.wrapping_add(1);
        memory.generation = (generation()? == sealed).then_some(sealed);
        memory.look = Some(made);
        Ok(())
    }

    /// Removes the table, if there is one of ours.
    pub fn delete(&self, instance: &Name) -> Result<()> {
        let table = &guard_table(instance);
        let mut memory = self.memory();
        *memory = Memory::default();
        let there = look_at(table)?.filter(|there| is_ours(there, instance));
        if there.is_none() {
            return Ok(());
        }
        run(&removal(instance, there.as_ref()), || {
            format!("delete nftables table inet {table}")
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What is in it is looked at again before anything is built on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the guard of an instance has dropped since it was made; nothing when there is none.
pub fn dropped_by_guard(instance: &Name) -> Result<Dropped> {
    let table = guard_table(instance);
    look::counts(&table).map_err(|error| {
        KernelError::io(
            format!("read the counters of nftables table inet {table}"),
            &error,
        )
    })
}

fn look_at(table: &str) -> Result<Option<Look>> {
    Look::at(table)
        .map_err(|error| KernelError::io(format!("look at nftables table inet {table}"), &error))
}

/// Whether the kernel does not know nftables, or netlink of the packet filter at all.
fn is_unknown(error: &KernelError) -> bool {
    let unknown = [
        Errno::EPROTONOSUPPORT,
        Errno::EINVAL,
        Errno::EOPNOTSUPP,
        Errno::ENOENT,
    ];
    unknown
        .iter()
        .any(|errno| error.errno() == Some(*errno as i32))
}

/// Whether there is a program nft, without starting it.
fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| access(&folder.join("nft"), AccessFlags::X_OK).is_ok())
}

/// Whether a table has the mark of the instance.
fn is_ours(there: &Look, instance: &Name) -> bool {
    let mut tables = there.inet.iter().chain(&there.bridge);
    tables.all(|owners| owners.contains(instance))
}

/// Commands that delete the tables that are there. The mark goes first: where that is gone, as
/// with a table that somebody has made meanwhile, the kernel refuses all of it.
fn removal(instance: &Name, there: Option<&Look>) -> String {
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

/// Commands that make the tables; they fail where there is one.
fn whole(instance: &Name, rules: &GuardRules, dropped: &Dropped) -> String {
    let (table, mark) = (&guard_table(instance), mark_of(instance));
    let counts = |reason: &str| dropped.get(reason).copied().unwrap_or_default();
    let senders = &rules.senders;
    format!("create table inet {table}\n")
        + &add_chain(table, &mark)
        + &script::skeleton(table, rules, counts)
        + &elements::change(table, "add", senders.vteps.iter(), senders.sources.iter())
        + &elements::change_ends(table, "add", elements::ends(rules, senders).into_iter())
        + &format!("create table bridge {table}\nadd chain bridge {table} {mark}\n")
        + &speakers::skeleton(table, counts)
        + &speakers::change(table, "add", rules.endpoints.iter())
}

fn has_same_rules(one: &GuardRules, other: &GuardRules) -> bool {
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
fn changed(table: &str, before: &GuardRules, after: &GuardRules) -> String {
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

fn add_chain(table: &str, name: &str) -> String {
    format!("add chain inet {table} {name}\n")
}

/// Commands that take the notes away that were true of the table before.
fn forgotten(table: &str, there: &Look) -> String {
    let notes = there.notes.iter();
    let lines = notes.map(|chain| format!("delete chain inet {table} {chain}\n"));
    lines.collect()
}

/// Has nft carry out a script, in one transaction.
fn run(script: &str, operation: impl Fn() -> String) -> Result<()> {
    let failed = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
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
