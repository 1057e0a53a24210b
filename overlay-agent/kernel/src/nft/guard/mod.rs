//! The guard of the tunnels' ports: a table of its own, which everything passes that the kernel
//! receives for a tunnel, whatever device it came by; and one of the family `bridge`, which
//! everything passes that the kernel takes from a container.
//!
//! Both are made whole in one transaction by `nft`, and then changed by what comes and goes of peers
//! and containers. It is ours by the chain that marks it; a table of this name without that is somebody else's,
//! and stays as it is. Chains without rules note what it was made from, and what the kernel said of it then:
//! so a change by anybody shows.

mod commands;
mod delta;
mod elements;
mod leaving;
mod look;
mod script;
mod scripts;
mod speakers;

use std::{
    collections::BTreeMap,
    env, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use overlay_core::{
    model::Name,
    objects::{Guard, GuardRules, guard_table},
};

use self::{
    delta::Delta,
    look::Look,
    scripts::{Making, add_chain, changed, forgotten, has_same_rules, removal, run},
};
use super::{NO_NFT, batch::Committed, generation::generation, ownership::taken};
use crate::{KernelError, Result};

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
    /// What this process has set last, and what stands for it.
    set: Option<(GuardRules, u64)>,
    /// Whether it is known how this kernel lists elements.
    is_exact: bool,
    /// The generations before and after what was set last, where nobody else has changed any table
    /// in between.
    alone: Option<(u32, u32)>,
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

    fn remember(
        &mut self,
        table: &str,
        look: Look,
        (rules, digest): (GuardRules, u64),
    ) -> Result<()> {
        let exact = delta::is_listed_alike(&rules, &look);
        self.is_exact = exact.map_err(|error| failed_to_change(table, &error))?;
        (self.look, self.set) = (Some(look), Some((rules, digest)));
        Ok(())
    }

    /// Changes elements, so that the table does what stands for `digest`; whether that was done. It is
    /// not where somebody has changed a table meanwhile.
    fn carry_out(
        &mut self,
        delta: &Delta,
        table: &str,
        there: &Look,
        now: u32,
        digest: u64,
    ) -> Result<bool> {
        let mut look = there.clone();
        let committed = delta
            .commit(table, &mut look, now, digest)
            .map_err(|error| failed_to_change(table, &error))?;
        if committed == Committed::Raced {
            return Ok(false);
        }
        let after = now.wrapping_add(1);
        self.look = Some(look);
        self.generation = Some(after);
        self.alone = Some((now, after));
        Ok(true)
    }

    /// Makes the table do just this.
    fn set(&mut self, instance: &Name, rules: GuardRules) -> Result<u64> {
        let table = &guard_table(instance);
        let operation = || format!("set nftables table inet {table}");
        let now = generation()?;
        let there = self.look_at(instance, now)?.cloned();
        if there
            .as_ref()
            .is_some_and(|there| !is_ours(there, instance))
        {
            return Err(taken(operation()));
        }
        let does = there.as_ref().map(Look::understand);
        let before = self.set.take();
        self.alone = None;
        let kept = before
            .filter(|(_, digest)| does == Some(Guard::Does(*digest)))
            .filter(|(before, _)| has_same_rules(before, &rules));
        let digest = rules.digest();
        let mut transactions = 1;
        if let (Some((before, _)), Some(there)) = (&kept, &there) {
            if self.is_exact
                && let Some(delta) = Delta::between(before, &rules)
                && self.carry_out(&delta, table, there, now, digest)?
            {
                self.set = Some((rules, digest));
                return Ok(digest);
            }
            let note = add_chain(table, &look::made_of(digest));
            let commands = forgotten(table, there) + &changed(table, before, &rules) + &note;
            run(&commands, operation)?;
        } else {
            transactions = make(instance, (&rules, digest), there.as_ref(), now)?;
        }
        let set = generation()?;
        if set != now.wrapping_add(transactions) {
            // Somebody else has changed something, too: what is there now need not be ours, and
            // without a seal the next look finds it altered.
            *self = Self::default();
            return Ok(digest);
        }
        let mut made = look_at(table)?.unwrap_or_default();
        let seal = look::seen(made.digest());
        let script = add_chain(table, &seal);
        run(&script, || format!("seal nftables table inet {table}"))?;
        made.notes.push(seal);
        // Each transaction is one generation: where this was the only one, all is known.
        let sealed = set.wrapping_add(1);
        self.generation = (generation()? == sealed).then_some(sealed);
        self.alone = self.generation.map(|sealed| (now, sealed));
        self.remember(table, made, (rules, digest))?;
        Ok(digest)
    }
}

fn failed_to_change(table: &str, error: &io::Error) -> KernelError {
    KernelError::io(format!("change nftables table inet {table}"), error)
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
    /// differs is changed. A table of somebody else is an error.
    pub fn set(&self, instance: &Name, rules: &GuardRules) -> Result<()> {
        self.memory().set(instance, rules.clone()).map(drop)
    }

    /// Notes that the table does just this, as far as it was seen to: from then on, only what differs
    /// is changed.
    pub fn confirm(&self, instance: &Name, rules: &GuardRules) -> Result<()> {
        let mut memory = self.memory();
        if memory.set.is_some() {
            return Ok(());
        }
        let digest = rules.digest();
        let ours = memory.look.as_ref().filter(|look| is_ours(look, instance));
        match ours.filter(|look| look.understand() == Guard::Does(digest)) {
            Some(look) => {
                let (table, look) = (guard_table(instance), look.clone());
                memory.remember(&table, look, (rules.clone(), digest))
            }
            None => Ok(()),
        }
    }

    /// Alters what this process has set, and tells what stands for it now; nothing where it has set
    /// nothing yet.
    pub fn alter(
        &self,
        instance: &Name,
        alter: impl FnOnce(&mut GuardRules),
    ) -> Result<Option<u64>> {
        let mut memory = self.memory();
        let Some((mut rules, _)) = memory.set.clone() else {
            return Ok(None);
        };
        alter(&mut rules);
        memory.set(instance, rules).map(Some)
    }

    /// The generation of all tables since which nobody but this process has changed any, if that
    /// began with this one.
    pub fn alone_since(&self, generation: u32) -> Option<u32> {
        let (before, after) = self.memory().alone?;
        (before == generation).then_some(after)
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

/// Makes the tables instead of those that are there, if any; in how many transactions.
fn make(
    instance: &Name,
    (rules, digest): (&GuardRules, u64),
    there: Option<&Look>,
    now: u32,
) -> Result<u32> {
    let table = &guard_table(instance);
    let operation = || format!("set nftables table inet {table}");
    let making = Making::of(instance, rules, &dropped_by_guard(instance)?);
    // Where there is a table, packets pass one or the other at every moment.
    let Some(senders) = Delta::from_nothing(rules).filter(|_| there.is_none()) else {
        let note = add_chain(table, &look::made_of(digest));
        let commands = removal(instance, there) + &making.whole() + &note;
        run(&commands, operation)?;
        return Ok(1);
    };
    run(&making.frame, operation)?;
    let filled = senders
        .fill(table, now.wrapping_add(1), digest)
        .map_err(|error| failed_to_change(table, &error))?;
    // What is there has no seal: it is made anew with the next look.
    let filled =
        filled.ok_or_else(|| KernelError::new(operation(), "somebody changes tables meanwhile"))?;
    run(&making.entrances, operation)?;
    Ok(filled.wrapping_add(2))
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
