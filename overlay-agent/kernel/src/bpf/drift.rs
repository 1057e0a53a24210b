//! Whether the maps hold what they should.
//!
//! Nobody announces a change of a map, and comparing 100,000 rows twice a second is too dear.
//! So each row counts as a number that depends on all its bytes, and each map as the sum of its
//! rows' numbers: a row that was changed, added or removed makes another sum.
//!
//! A small map is read whole at each look. To read a large one the kernel walks all its buckets,
//! also when hardly anything is in them: such maps are read one after the other, a part at each
//! look, and the rows that they should have are looked up at each look where they are few. So
//! what is missing or changed there is found at once, and only what is there besides is not.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
};

use aya::maps::MapData;
use foldhash::quality::FixedState;
use overlay_core::{
    model::IfName,
    objects::{Entries, PeerEntries},
};

use super::{
    batch::{ROWS, Reader, Room},
    failure::failed,
    pins::Pins,
    row, rows,
    specs::{self, MapSpec},
};
use crate::Result;

/// Rows of a large map that a look reads,
const PART: usize = 4096;
/// and rows that are few enough to be looked up one by one.
const FEW: usize = 256;

/// The sum of each map's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<&'static str, Rows>);

/// The sum of a map's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    /// The sum of their numbers.
    sum: u64,
    /// How many they are.
    count: usize,
    /// The keys and numbers of the first few.
    first: Vec<(Vec<u8>, u64)>,
}

impl Sums {
    /// Of the rows that the entries make.
    pub fn of(entries: &Entries, index_of: impl Fn(IfName) -> Option<u32> + Copy) -> Result<Self> {
        let mut sums = Self::default();
        rows::each(entries, index_of, |map, key, value| {
            sums.add(map, key, value);
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
            sums.add(map, key, value);
        })?;
        Ok(sums)
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (&map, more) in &other.0 {
            let rows = self.0.entry(map).or_default();
            rows.sum = rows.sum.wrapping_add(more.sum);
            rows.count += more.count;
            let room = FEW.saturating_sub(rows.first.len());
            rows.first.extend(more.first.iter().take(room).cloned());
        }
        self
    }

    fn add(&mut self, map: &'static str, key: &[u8], value: &[u8]) {
        let rows = self.0.entry(map).or_default();
        let number = number(key, value);
        rows.sum = rows.sum.wrapping_add(number);
        rows.count += 1;
        if rows.first.len() < FEW {
            rows.first.push((key.to_vec(), number));
        }
    }

    fn sum(&self, map: &str) -> u64 {
        self.0.get(map).map_or(0, |rows| rows.sum)
    }

    /// Keys and numbers of a map's rows, where they are few.
    fn few(&self, map: &str) -> &[(Vec<u8>, u64)] {
        let rows = self.0.get(map).filter(|rows| rows.count <= FEW);
        rows.map_or(&[], |rows| rows.first.as_slice())
    }
}

/// Looks at the maps over and over.
pub struct DriftDetector {
    small: Vec<Counted>,
    large: Vec<Counted>,
    /// Whose turn it is among the large ones.
    turn: usize,
    expected: Sums,
    room: Room,
}

/// A map, and what it comes to as far as it has been read.
struct Counted {
    spec: &'static MapSpec,
    map: MapData,
    reader: Reader,
    sum: u64,
}

impl DriftDetector {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let open = |spec: &'static MapSpec| {
            let map = MapData::from_pin(pins.map(spec.name));
            let map = map.map_err(|error| failed(format!("open map {}", spec.name), &error))?;
            let reader = Reader::new(spec.name, spec.key, spec.value);
            Ok(Counted {
                spec,
                map,
                reader: reader.in_parts_of(if is_small(spec) { ROWS } else { PART }),
                sum: 0,
            })
        };
        let maps = specs::MAPS.iter().filter(|spec| !spec.is_theirs());
        let maps: Vec<Counted> = maps.map(open).collect::<Result<_>>()?;
        let (small, large) = maps.into_iter().partition(|map| is_small(map.spec));
        Ok(Self {
            small,
            large,
            turn: 0,
            expected: Sums::default(),
            room: Room::default(),
        })
    }

    /// Sets what is expected from now on; maps of which that is new are read from the start.
    pub fn expect(&mut self, expected: Sums) {
        for map in &mut self.large {
            if expected.sum(map.spec.name) != self.expected.sum(map.spec.name) {
                map.start();
            }
        }
        self.expected = expected;
    }

    /// Looks; the name of a map that turns out to have other rows than it should.
    pub fn look(&mut self) -> Result<Option<&'static str>> {
        for map in &mut self.small {
            while !map.read_on(&mut self.room)? {}
            if map.take_sum() != self.expected.sum(map.spec.name) {
                return Ok(Some(map.spec.name));
            }
        }
        for map in &self.large {
            for (key, number) in self.expected.few(map.spec.name) {
                if map.number(key)? != Some(*number) {
                    return Ok(Some(map.spec.name));
                }
            }
        }
        let turn = self.turn % self.large.len().max(1);
        if let Some(map) = self.large.get_mut(turn)
            && map.read_on(&mut self.room)?
        {
            self.turn = turn + 1;
            if map.take_sum() != self.expected.sum(map.spec.name) {
                return Ok(Some(map.spec.name));
            }
        }
        Ok(None)
    }
}

/// Whether one call reads all of a map.
fn is_small(spec: &MapSpec) -> bool {
    spec.entries() <= ROWS
}

impl fmt::Debug for DriftDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriftDetector").finish_non_exhaustive()
    }
}

impl Counted {
    fn start(&mut self) {
        self.reader.start();
        self.sum = 0;
    }

    /// The sum of the map now that its end is reached.
    fn take_sum(&mut self) -> u64 {
        let sum = self.sum;
        self.start();
        sum
    }

    /// The number of the row with a key.
    fn number(&self, key: &[u8]) -> Result<Option<u64>> {
        let value = row::read(&self.map, self.spec, key)?;
        Ok(value.map(|value| number(key, &value)))
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
