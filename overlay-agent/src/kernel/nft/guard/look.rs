//! What the kernel holds of the guard's table.

use std::{collections::BTreeMap, hash::Hasher as _, io};

use super::{Dropped, script::REASONS};
use crate::{
    kernel::nft::{
        dump::{Kind, attribute, attributes, dump, name, terminated},
        ownership::owner_by,
    },
    model::Name,
    objects::{Fnv, Guard},
};

const MADE_OF: &str = "made_of_";
const SEEN: &str = "seen_";

// Attributes of `linux/netfilter/nf_tables.h`. Of every object but the table the first is its
// table's name.
const OF_TABLE: u16 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_NAME: u16 = 3;
/// Name, hook with its priority, policy, type, flags.
const OF_CHAIN: [u16; 5] = [CHAIN_NAME, 4, 5, 7, 10];
/// Chain and expressions, without handles.
const OF_RULE: [u16; 2] = [2, 4];
const SET_NAME: u16 = 2;
/// Name, flags, type and length of the key, and of what it leads to.
const OF_SET: [u16; 6] = [SET_NAME, 3, 4, 5, 6, 7];
const ELEMENTS: u16 = 3;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`, in network order.
const COUNTER: [u8; 4] = [0, 0, 0, 1];
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// A table as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The instances whose mark it has.
    pub(super) owners: Vec<Name>,
    /// The chains that are notes.
    pub(super) notes: Vec<String>,
    /// Stands for all of it but the notes, the counters and what the kernel numbers.
    pub(super) digest: u64,
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
    /// At the table of this name; `None` when there is none.
    pub(super) fn at(table: &str) -> io::Result<Option<Self>> {
        let tables = dump(Kind::Tables, &[])?;
        let found = tables
            .iter()
            .find(|found| name(found, TABLE_NAME) == Some(table));
        let Some(found) = found else {
            return Ok(None);
        };
        let mut look = Self::default();
        let mut hasher = Fnv::default();
        hasher.write(attribute(found, TABLE_FLAGS).unwrap_or_default());
        let mut chains = 0_u64;
        for chain in dump(Kind::Chains, &[])? {
            if name(&chain, OF_TABLE) != Some(table) {
                continue;
            }
            let called = name(&chain, CHAIN_NAME);
            look.owners.extend(called.and_then(owner_by));
            match called {
                Some(note) if note.starts_with(MADE_OF) || note.starts_with(SEEN) => {
                    look.notes.push(note.to_owned());
                }
                _ => chains = chains.wrapping_add(digest(&chain, &OF_CHAIN)),
            }
        }
        hasher.write_u64(chains);
        let terminated_table = terminated(table);
        let of_table = (OF_TABLE, terminated_table.as_slice());
        // In their order, which is what they do.
        for rule in dump(Kind::Rules, &[of_table])? {
            hasher.write_u64(digest(&rule, &OF_RULE));
        }
        let mut sets = 0_u64;
        for set in dump(Kind::Sets, &[of_table])? {
            let called = terminated(name(&set, SET_NAME).unwrap_or_default());
            let mut hasher = Fnv::default();
            hasher.write_u64(digest(&set, &OF_SET));
            hasher.write_u64(elements(&dump(
                Kind::Elements,
                &[of_table, (SET_NAME, called.as_slice())],
            )?));
            sets = sets.wrapping_add(hasher.finish());
        }
        hasher.write_u64(sets);
        look.digest = hasher.finish();
        Ok(Some(look))
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
            (Some(digest), Some(seen)) if seen == self.digest => Guard::Does(digest),
            _ => Guard::Altered,
        }
    }
}

/// What the counters of a table have counted, by name.
pub(super) fn counts(table: &str) -> io::Result<Dropped> {
    let terminated_table = terminated(table);
    let asked = [
        (OF_TABLE, terminated_table.as_slice()),
        (OBJECT_TYPE, &COUNTER),
    ];
    let counters = dump(Kind::Objects, &asked)?;
    let count = |counter: &Vec<u8>| {
        if name(counter, OF_TABLE) != Some(table) {
            return None;
        }
        let data = attribute(counter, OBJECT_DATA)?;
        let number = |kind| Some(u64::from_be_bytes(attribute(data, kind)?.try_into().ok()?));
        let counted = (number(COUNTER_PACKETS)?, number(COUNTER_BYTES)?);
        // Another counter in the table is somebody else's.
        let reason = name(counter, OBJECT_NAME).filter(|name| REASONS.contains(name))?;
        Some((reason.to_owned(), counted))
    };
    Ok(counters
        .iter()
        .filter_map(count)
        .collect::<BTreeMap<_, _>>())
}

fn digest(object: &[u8], of: &[u16]) -> u64 {
    let mut hasher = Fnv::default();
    for kind in of {
        hasher.write(attribute(object, *kind).unwrap_or_default());
    }
    hasher.finish()
}

/// Elements have no order of their own.
fn elements(messages: &[Vec<u8>]) -> u64 {
    let lists = messages
        .iter()
        .filter_map(|message| attribute(message, ELEMENTS));
    let of_all = lists.flat_map(attributes).map(|(_, element)| {
        let mut hasher = Fnv::default();
        hasher.write(element);
        hasher.finish()
    });
    of_all.fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::{Look, made_of, seen};
    use crate::objects::Guard;

    fn noted(notes: &[String]) -> Guard {
        let look = Look {
            notes: notes.to_vec(),
            digest: 9,
            ..Look::default()
        };
        look.understand()
    }

    #[test]
    fn a_table_as_it_was_left_tells_what_it_was_made_of() {
        assert_eq!(noted(&[made_of(7), seen(9)]), Guard::Does(7));
        assert_eq!(noted(&[seen(9), made_of(7)]), Guard::Does(7));
        assert_eq!(noted(&[made_of(7), seen(8)]), Guard::Altered);
        assert_eq!(noted(&[made_of(7)]), Guard::Altered);
        assert_eq!(noted(&[seen(9)]), Guard::Altered);
        assert_eq!(noted(&[made_of(7), made_of(8), seen(9)]), Guard::Altered);
        assert_eq!(noted(&[]), Guard::Altered);
    }
}
