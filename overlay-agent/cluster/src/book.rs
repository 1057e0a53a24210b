//! The known nodes, and which of them are in doubt.
//!
//! Who is new, or has changed, counts at once. Who is not in the store any more is in doubt, and
//! goes only when a list or a look-up [`DOUBT`] later still lacks him: a store that fails, is restored
//! or lies for a moment takes nothing from the data plane. What comes from a store that is not
//! the one before, or has gone back in time, is doubted for [`RESTORED`].

mod plain;
mod usable;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    time::Duration,
};

use crate::{
    lease::{Lease, shown},
    network::Network,
    problem::Problem,
    subnet::Subnet,
};

use usable::{Identity, identity, is_ours, one_length_more, overlapping, unusable};

pub use plain::{Plain, Whom};

/// How long an entry that is missing is kept, at least.
pub const DOUBT: Duration = Duration::from_secs(30);

/// The same where the whole store has changed under us: nodes need time to register again.
pub const RESTORED: Duration = Duration::from_mins(10);

/// The agent looks up peers by so many prefix lengths of a family.
pub const MAX_LENGTHS: usize = 8;

/// The cure for an entry that cannot be used.
const CORRECT: &str = "correct it in etcd, or remove it there";

/// The cure for an entry of a node without a key.
const KEYLESS: &str = "set encryption in [cluster] there, too; a node of flannel's cannot encrypt";

/// One key below `PREFIX/subnets/`, as it is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The part behind `PREFIX/subnets/`.
    pub key: String,
    /// The lease's attributes.
    pub value: Vec<u8>,
    /// The store's revision at which the key came.
    pub create_revision: i64,
    /// The one at which it last changed.
    pub mod_revision: i64,
    /// The lease in the sense of etcd; 0 without one.
    pub lease: i64,
}

/// Whether a list continues what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The same store, and no earlier revision.
    Kept,
    /// Another store, or one that has gone back in time.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    lease: Lease,
    create_revision: i64,
    /// Since when it is missing, and how long it is kept.
    missing: Option<(Duration, Duration)>,
}

impl Known {
    fn node(&self, subnet: Subnet) -> Node<'_> {
        Node {
            subnet,
            lease: &self.lease,
            doubted: self.missing.map(|(_, kept)| kept),
        }
    }
}

/// A node's lease that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its subnet.
    pub subnet: Subnet,
    /// Where it is.
    pub lease: &'a Lease,
    /// How long it is kept, if the store does not have it any more.
    pub doubted: Option<Duration>,
}

/// All entries below `PREFIX/subnets/`.
#[derive(Clone, Debug, Default)]
pub struct Book {
    known: BTreeMap<Subnet, Known>,
    /// Entries that cannot be read, and why.
    wrong: BTreeMap<String, String>,
    /// Of whom something else is known than when that was last asked for.
    changed: BTreeSet<Subnet>,
}

impl Book {
    /// With what was known when the program last ran, and how long those are kept that were in
    /// doubt: as long again from `now` on, because nobody knows how long it did not run.
    pub fn remembering(
        leases: impl IntoIterator<Item = (Subnet, Lease, Option<Duration>)>,
        now: Duration,
    ) -> Self {
        let known = leases.into_iter().map(|(subnet, lease, doubted)| {
            let known = Known {
                lease,
                create_revision: 0,
                missing: doubted.map(|kept| (now, kept)),
            };
            (subnet, known)
        });
        Self {
            known: known.collect(),
            ..Self::default()
        }
    }

    /// The whole list, as it was `now`.
    pub fn listed<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
        continuity: Continuity,
        now: Duration,
    ) {
        self.wrong.clear();
        let mut there = BTreeSet::new();
        for entry in entries {
            there.extend(self.put(entry, now));
        }
        let patience = match continuity {
            Continuity::Kept => DOUBT,
            Continuity::Broken => RESTORED,
        };
        let changed = &mut self.changed;
        self.known.retain(|subnet, known| {
            if there.contains(subnet) {
                return true;
            }
            changed.insert(*subnet);
            let missing = known.missing.get_or_insert((now, patience));
            if continuity == Continuity::Broken {
                // A doubt of before was about another store.
                *missing = (now, patience);
            }
            let (since, kept) = *missing;
            now.saturating_sub(since) < kept
        });
    }

    /// An entry that has come or changed; its subnet, if it counts.
    pub fn put(&mut self, entry: &Entry, now: Duration) -> Option<Subnet> {
        let read = || {
            let subnet: Subnet = entry
                .key
                .parse()
                .map_err(|_| "it is not a subnet".to_owned())?;
            let lease = Lease::read(&entry.value).map_err(|error| error.to_string())?;
            Ok((subnet, lease))
        };
        match read() {
            Ok((subnet, lease)) => {
                self.wrong.remove(&entry.key);
                let known = Known {
                    lease,
                    create_revision: entry.create_revision,
                    missing: None,
                };
                // A renewal is no change.
                if self.known.get(&subnet) != Some(&known) {
                    self.known.insert(subnet, known);
                    self.changed.insert(subnet);
                }
                Some(subnet)
            }
            Err(why) => {
                self.wrong.insert(entry.key.clone(), why);
                // The one before is in doubt, as if it had gone.
                self.doubt(&entry.key, now);
                None
            }
        }
    }

    /// An entry that has gone.
    pub fn deleted(&mut self, key: &str, now: Duration) {
        self.wrong.remove(key);
        self.doubt(key, now);
    }

    fn doubt(&mut self, key: &str, now: Duration) {
        let Ok(subnet) = key.parse() else { return };
        if let Some(known) = self.known.get_mut(&subnet) {
            known.missing.get_or_insert((now, DOUBT));
            self.changed.insert(subnet);
        }
    }

    /// When the store should be listed again, because somebody is missing.
    pub fn doubt_ends(&self) -> Option<Duration> {
        let missing = self.known.values().filter_map(|known| known.missing);
        missing.map(|(since, kept)| since + kept).min()
    }

    /// Whose doubt is over: who goes if the store still has no entry.
    pub fn due(&self, now: Duration) -> Vec<Subnet> {
        let due = self.known.iter().filter(|(_, known)| {
            let ends = known.missing.map(|(since, kept)| since + kept);
            ends.is_some_and(|ends| ends <= now)
        });
        due.map(|(subnet, _)| *subnet).collect()
    }

    /// Takes in what the store has of somebody whose doubt was over.
    pub fn looked_up(&mut self, subnet: Subnet, entry: Option<&Entry>, now: Duration) {
        if entry.and_then(|entry| self.put(entry, now)).is_none() {
            self.known.remove(&subnet);
            self.changed.insert(subnet);
        }
    }

    /// Of whom something else is known than when this was last called.
    pub fn take_changed(&mut self) -> BTreeSet<Subnet> {
        mem::take(&mut self.changed)
    }

    /// Entries that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = Problem> {
        self.wrong.iter().map(|(key, why)| {
            let what = format!("entry {:?} is left out: {why}", shown(key));
            Problem::new(shown(key), what, CORRECT)
        })
    }

    /// How many are missing from the store and still count.
    pub fn doubtful(&self) -> usize {
        self.known
            .values()
            .filter(|known| known.missing.is_some())
            .count()
    }

    /// Who is a peer of the node that has subnet `me` and writes lease `own`, without those that
    /// cannot be one; and why they cannot. The agent takes all of what is left: one bad entry
    /// leaves out itself and nobody else.
    pub fn peers(
        &self,
        network: &Network,
        me: Option<Subnet>,
        own: &Lease,
    ) -> (Vec<Node<'_>>, Vec<Problem>) {
        let mut problems: Vec<Problem> = self.unreadable().collect();
        // Of two that overlap the older one counts.
        let mut all: Vec<_> = self.known.iter().collect();
        all.sort_by_key(|(subnet, known)| (known.create_revision, **subnet));
        let mut nodes: BTreeMap<Subnet, Node<'_>> = BTreeMap::new();
        let mut unique = HashMap::new();
        let mut lengths = BTreeSet::new();
        for (&subnet, known) in all {
            if me == Some(subnet) {
                continue;
            }
            let why = unusable(subnet, &known.lease, network, me)
                .or_else(|| is_ours(&known.lease, own, network))
                .or_else(|| {
                    let other = overlapping(&nodes, subnet)?;
                    Some(format!("it overlaps {other}, which was there before"))
                })
                .or_else(|| one_length_more(&mut lengths, subnet));
            if let Some(why) = why {
                // One that is not in the store any more is nothing to be put right there.
                if !self.is_missing(subnet) {
                    let what = format!("entry {subnet} is left out: {why}");
                    let cure = match known.lease.public_key() {
                        None if network.encrypted => KEYLESS,
                        _ => CORRECT,
                    };
                    problems.push(Problem::new(subnet, what, cure));
                }
                continue;
            }
            for what in identity(&known.lease, network) {
                let other = unique.insert(what.clone(), subnet);
                // The later one counts: a node that has moved to another subnet.
                if let Some(other) = other.filter(|other| nodes.remove(other).is_some())
                    && !self.is_missing(other)
                {
                    problems.push(Problem::new(
                        other,
                        format_args!(
                            "entry {other} is left out: {subnet} is newer and has the same {what}"
                        ),
                        "remove the older one from etcd if its node has moved, else give each node its own",
                    ));
                }
            }
            nodes.insert(subnet, known.node(subnet));
        }
        (nodes.into_values().collect(), problems)
    }

    /// How many nodes have a key, and what those are called that have none, at most so many.
    pub fn keys(&self, me: Option<Subnet>, most: usize) -> (usize, Vec<String>) {
        let others = self.known.iter().filter(|(subnet, _)| me != Some(**subnet));
        let without = others.clone().map(|(_, known)| &known.lease);
        let without = without.filter(|lease| lease.public_key().is_none());
        let count = others.count() - without.clone().count();
        (
            count,
            without
                .take(most)
                .map(|lease| shown(&usable::name(lease)))
                .collect(),
        )
    }

    fn is_missing(&self, subnet: Subnet) -> bool {
        let known = self.known.get(&subnet);
        known.is_some_and(|known| known.missing.is_some())
    }

    /// The lease of a subnet.
    pub fn lease(&self, subnet: Subnet) -> Option<&Lease> {
        self.known.get(&subnet).map(|known| &known.lease)
    }
}

#[cfg(test)]
mod tests;
