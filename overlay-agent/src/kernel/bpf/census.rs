//! Whether the maps hold what they should, told by sums.
//!
//! Nobody announces a change of a map, and comparing 100,000 rows twice a second is too
//! dear. So each row counts as a number that depends on all its bytes, each map as the sum
//! of its rows' numbers, and a look reads a bounded part of each map: a small one whole, a
//! large one bit by bit. A row that was changed, added or removed makes another sum.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
};

use aya::maps::MapData;
use foldhash::quality::FixedState;

use super::{
    batch::{Reader, Room},
    failure::failed,
    pins::Pins,
    rows, specs,
};
use crate::{
    kernel::Result,
    model::IfName,
    objects::{Entries, PeerEntries},
};

/// The sum of each map's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<&'static str, u64>);

impl Sums {
    /// Of the rows that the entries make.
    pub fn of(entries: &Entries, index_of: impl Fn(IfName) -> Option<u32> + Copy) -> Result<Self> {
        let mut sums = Self::default();
        rows::each(entries, index_of, |map, key, value| {
            sums.add(map, number(key, value));
        })?;
        Ok(sums)
    }

    /// Of those that lead to the peers.
    pub fn of_peers(
        entries: &PeerEntries,
        index_of: impl Fn(IfName) -> Option<u32> + Copy,
    ) -> Result<Self> {
        let mut sums = Self::default();
        rows::each_of_peers(entries, index_of, |map, key, value| {
            sums.add(map, number(key, value));
        })?;
        Ok(sums)
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (map, sum) in &other.0 {
            self.add(map, *sum);
        }
        self
    }

    fn add(&mut self, map: &'static str, number: u64) {
        let sum = self.0.entry(map).or_default();
        *sum = sum.wrapping_add(number);
    }

    fn get(&self, map: &str) -> u64 {
        self.0.get(map).copied().unwrap_or_default()
    }
}

/// Looks at the maps over and over.
pub struct Census {
    maps: Vec<Counted>,
    expected: Sums,
    room: Room,
}

/// A map, and what it comes to as far as it has been read.
struct Counted {
    name: &'static str,
    map: MapData,
    reader: Reader,
    sum: u64,
}

impl Census {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let open = |spec: &specs::MapSpec| {
            let map = MapData::from_pin(pins.map(spec.name));
            let map = map.map_err(|error| failed(format!("open map {}", spec.name), &error))?;
            Ok(Counted {
                name: spec.name,
                map,
                reader: Reader::new(spec.name, spec.key, spec.value),
                sum: 0,
            })
        };
        let maps = specs::MAPS
            .iter()
            .filter(|spec| !spec.is_counters())
            .map(open)
            .collect::<Result<_>>()?;
        Ok(Self {
            maps,
            expected: Sums::default(),
            room: Room::default(),
        })
    }

    /// Sets what is expected from now on; maps of which that is new are read from the start.
    pub fn expect(&mut self, expected: Sums) {
        for map in &mut self.maps {
            if expected.get(map.name) != self.expected.get(map.name) {
                map.start();
            }
        }
        self.expected = expected;
    }

    /// Reads on; the name of a map that turns out to have other rows than it should.
    pub fn look(&mut self) -> Result<Option<&'static str>> {
        for map in &mut self.maps {
            if map.read_on(&mut self.room)? {
                let sum = map.sum;
                map.start();
                if sum != self.expected.get(map.name) {
                    return Ok(Some(map.name));
                }
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").finish_non_exhaustive()
    }
}

impl Counted {
    fn start(&mut self) {
        self.reader.start();
        self.sum = 0;
    }

    /// Adds the next rows to the sum; whether the end is reached.
    fn read_on(&mut self, room: &mut Room) -> Result<bool> {
        let sum = &mut self.sum;
        self.reader.read_on(&self.map, room, |key, value| {
            *sum = sum.wrapping_add(number(key, value));
        })
    }
}

fn number(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}
