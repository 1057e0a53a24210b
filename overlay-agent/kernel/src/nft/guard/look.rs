//! What the kernel holds of the guard's table.

use std::{collections::BTreeMap, hash::Hasher as _, io};

use overlay_core::{
    model::Name,
    objects::{Fnv, Guard},
};

use super::{Dropped, script, speakers};
use crate::nft::{
    dump::{
        BRIDGE, CHAIN_NAME, ELEMENTS, INET, Kind, OF_TABLE, SET_NAME, attribute, attributes,
        dump_of, name, terminated,
    },
    ownership::owner_by,
};

const MADE_OF: &str = "made_of_";
const SEEN: &str = "seen_";

// More attributes of `linux/netfilter/nf_tables.h`.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// Name, hook with its priority, policy, type, flags.
const OF_CHAIN: [u16; 5] = [CHAIN_NAME, 4, 5, 7, 10];
/// Chain and expressions, without handles.
const OF_RULE: [u16; 2] = [2, 4];
/// Name, flags, type and length of the key, and of what it leads to.
const OF_SET: [u16; 6] = [SET_NAME, 3, 4, 5, 6, 7];
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`, in network order.
const COUNTER: [u8; 4] = [0, 0, 0, 1];
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// The guard's tables as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The instances whose mark the table of the family `inet` has, where there is one;
    pub(super) inet: Option<Vec<Name>>,
    /// the same of the family `bridge`.
    pub(super) bridge: Option<Vec<Name>>,
    /// The chains that are notes.
    pub(super) notes: Vec<String>,
    /// What of a table is no set: flags, chains, rules.
    frames: Vec<u64>,
    /// The sets.
    pub(super) sets: Sets<Sum>,
}

/// Something of each set, by its table's family and its name.
pub(super) type Sets<T> = BTreeMap<(u8, String), T>;

/// Stands for a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// What it can hold.
    kind: u64,
    /// What it holds: the sum of [`number_of`] all elements, which have no order of their own.
    pub(super) elements: u64,
}

/// One of them.
#[derive(Default)]
struct Part {
    owners: Vec<Name>,
    notes: Vec<String>,
    frame: u64,
    sets: Sets<Sum>,
}

/// Name of the chain that notes what the table was made of.
pub(super) fn made_of(digest: u64) -> String {
    format!("{MADE_OF}{digest:016x}")
}

/// Name of the chain that notes what the table looked like.
pub(super) fn seen(look: u64) -> String {
    format!("{SEEN}{look:016x}")
}

impl Look {
    /// At the tables of this name; `None` when there is none.
    pub(super) fn at(table: &str) -> io::Result<Option<Self>> {
        let [inet, bridge] = [Part::of(INET, table)?, Part::of(BRIDGE, table)?];
        if inet.is_none() && bridge.is_none() {
            return Ok(None);
        }
        let mut look = Self::default();
        for (part, owners) in [(inet, &mut look.inet), (bridge, &mut look.bridge)] {
            if let Some(part) = part {
                look.frames.push(part.frame);
                look.sets.extend(part.sets);
                look.notes.extend(part.notes);
                *owners = Some(part.owners);
            }
        }
        Ok(Some(look))
    }

    /// Stands for all of it but the notes, the counters and what the kernel numbers.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        for frame in &self.frames {
            hasher.write_u64(*frame);
        }
        for ((family, set), sum) in &self.sets {
            hasher.write_u8(*family);
            hasher.write(set.as_bytes());
            hasher.write_u64(sum.kind);
            hasher.write_u64(sum.elements);
        }
        hasher.finish()
    }

    /// Whether the table is as it was left, and what it was made of.
    pub(super) fn understand(&self) -> Guard {
        let number = |prefix: &str| {
            let mut noted = self
                .notes
                .iter()
                .filter_map(|note| note.strip_prefix(prefix));
            let first = noted
                .next()
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            first.filter(|_| noted.next().is_none())
        };
        match (number(MADE_OF), number(SEEN)) {
            (Some(digest), Some(seen)) if seen == self.digest() => Guard::Does(digest),
            _ => Guard::Altered,
        }
    }
}

impl Part {
    /// The table of this family and name; `None` when there is none.
    fn of(family: u8, table: &str) -> io::Result<Option<Self>> {
        let tables = dump_of(family, Kind::Tables, &[])?;
        let found = tables
            .iter()
            .find(|found| name(found, TABLE_NAME) == Some(table));
        let Some(found) = found else {
            return Ok(None);
        };
        let mut part = Self::default();
        let mut hasher = Fnv::default();
        hasher.write(attribute(found, TABLE_FLAGS).unwrap_or_default());
        let mut chains = 0_u64;
        for chain in dump_of(family, Kind::Chains, &[])? {
            if name(&chain, OF_TABLE) != Some(table) {
                continue;
            }
            let called = name(&chain, CHAIN_NAME);
            part.owners.extend(called.and_then(owner_by));
            match called {
                Some(note) if note.starts_with(MADE_OF) || note.starts_with(SEEN) => {
                    part.notes.push(note.to_owned());
                }
                _ => chains = chains.wrapping_add(digest(&chain, &OF_CHAIN)),
            }
        }
        hasher.write_u64(chains);
        let terminated_table = terminated(table);
        let of_table = (OF_TABLE, terminated_table.as_slice());
        // In their order, which is what they do.
        for rule in dump_of(family, Kind::Rules, &[of_table])? {
            hasher.write_u64(digest(&rule, &OF_RULE));
        }
        part.frame = hasher.finish();
        for set in dump_of(family, Kind::Sets, &[of_table])? {
            let called = name(&set, SET_NAME).unwrap_or_default();
            let of_set = (SET_NAME, &*terminated(called));
            let listed = dump_of(family, Kind::Elements, &[of_table, of_set])?;
            let sum = Sum {
                kind: digest(&set, &OF_SET),
                elements: elements(&listed),
            };
            part.sets.insert((family, called.to_owned()), sum);
        }
        Ok(Some(part))
    }
}

/// What the counters of the tables have counted, by name.
pub(super) fn counts(table: &str) -> io::Result<Dropped> {
    let terminated_table = terminated(table);
    let asked = [
        (OF_TABLE, terminated_table.as_slice()),
        (OBJECT_TYPE, &COUNTER),
    ];
    let mut counts = Dropped::new();
    for (family, reasons) in [
        (INET, &script::REASONS[..]),
        (BRIDGE, &speakers::REASONS[..]),
    ] {
        let counters = dump_of(family, Kind::Objects, &asked)?;
        let counted = counters
            .iter()
            .filter(|counter| name(counter, OF_TABLE) == Some(table))
            .filter_map(|counter| count(counter, reasons));
        counts.extend(counted);
    }
    Ok(counts)
}

/// What one has counted; another counter in the table is somebody else's.
fn count(object: &[u8], reasons: &[&str]) -> Option<(String, (u64, u64))> {
    let data = attribute(object, OBJECT_DATA)?;
    let number = |kind| Some(u64::from_be_bytes(attribute(data, kind)?.try_into().ok()?));
    let counted = (number(COUNTER_PACKETS)?, number(COUNTER_BYTES)?);
    let reason = name(object, OBJECT_NAME).filter(|name| reasons.contains(name))?;
    Some((reason.to_owned(), counted))
}

fn digest(object: &[u8], of: &[u16]) -> u64 {
    let mut hasher = Fnv::default();
    for kind in of {
        hasher.write(attribute(object, *kind).unwrap_or_default());
    }
    hasher.finish()
}

fn elements(messages: &[Vec<u8>]) -> u64 {
    let lists = messages
        .iter()
        .filter_map(|message| attribute(message, ELEMENTS));
    let of_all = lists.flat_map(attributes);
    of_all.fold(0, |sum, (_, element)| sum.wrapping_add(number_of(element)))
}

/// Stands for an element, as the kernel lists it.
pub(super) fn number_of(element: &[u8]) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(element);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use overlay_core::objects::Guard;

    use super::{Look, made_of, seen};

    fn noted(notes: &[String]) -> Guard {
        let look = Look {
            notes: notes.to_vec(),
            ..Look::default()
        };
        look.understand()
    }

    #[test]
    fn a_table_as_it_was_left_tells_what_it_was_made_of() {
        let now = Look::default().digest();
        assert_eq!(noted(&[made_of(7), seen(now)]), Guard::Does(7));
        assert_eq!(noted(&[seen(now), made_of(7)]), Guard::Does(7));
        assert_eq!(noted(&[made_of(7), seen(!now)]), Guard::Altered);
        assert_eq!(noted(&[made_of(7)]), Guard::Altered);
        assert_eq!(noted(&[seen(now)]), Guard::Altered);
        assert_eq!(noted(&[made_of(7), made_of(8), seen(now)]), Guard::Altered);
        assert_eq!(noted(&[]), Guard::Altered);
    }
}
