//! Whether the maps hold what they should, told by sums.
//!
//! Nobody announces a change of a map, and comparing 100,000 rows twice a second is too
//! dear. So each row counts as a number that depends on all its bytes, each map as the sum
//! of its rows' numbers, and a look reads a bounded part of each map: a small one whole, a
//! large one bit by bit. A row that was changed, added or removed makes another sum.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hasher as _},
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::MapData;
use nix::{errno::Errno, libc};

use super::{failure::failed, links::bpf, pins::Pins, rows, specs};
use crate::{
    kernel::{KernelError, Result},
    model::IfName,
    objects::{Entries, PeerEntries},
};

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Rows of a map that one look reads.
const PART: u32 = 8192;
/// A hash map's cursor, whatever its keys are.
const CURSOR: usize = size_of::<u32>();

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
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// A map, and how far it has been read.
struct Counted {
    name: &'static str,
    map: MapData,
    key: usize,
    value: usize,
    cursor: Option<Vec<u8>>,
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
                key: spec.key,
                value: spec.value,
                cursor: None,
                sum: 0,
            })
        };
        let maps: Vec<Counted> = specs::MAPS
            .iter()
            .filter(|spec| !spec.is_counters())
            .map(open)
            .collect::<Result<_>>()?;
        let longest = |length: fn(&Counted) -> usize| maps.iter().map(length).max().unwrap_or(0);
        Ok(Self {
            keys: vec![0; PART as usize * longest(|map| map.key)],
            values: vec![0; PART as usize * longest(|map| map.value)],
            expected: Sums::default(),
            maps,
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
            if map.read_on(&mut self.keys, &mut self.values)? {
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
        self.cursor = None;
        self.sum = 0;
    }

    /// Adds the next rows to the sum; whether the end is reached.
    fn read_on(&mut self, keys: &mut [u8], values: &mut [u8]) -> Result<bool> {
        let mut next = vec![0; self.key.max(CURSOR)];
        let mut attributes = BatchLookup {
            in_batch: self
                .cursor
                .as_ref()
                .map_or(0, |cursor| cursor.as_ptr() as u64),
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: PART,
            map: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            flags: 0,
            batch_flags: 0,
        };
        // SAFETY: a cursor, given or taken, has a key's length and at least 4 bytes, which is
        // what the kernel reads and writes there. `keys` and `values` have room for `PART`
        // keys and values of this map, whose sizes were checked against `specs` when it was
        // loaded. All of it outlives the call.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let ended = match result {
            Ok(_) => false,
            Err(Errno::ENOENT) => true,
            Err(errno) => return Err(KernelError::os(format!("read map {}", self.name), errno)),
        };
        let rows = keys
            .chunks_exact(self.key)
            .zip(values.chunks_exact(self.value));
        for (key, value) in rows.take(attributes.count as usize) {
            self.sum = self.sum.wrapping_add(number(key, value));
        }
        self.cursor = Some(next);
        Ok(ended)
    }
}

/// The members of `union bpf_attr` that `BPF_MAP_LOOKUP_BATCH` reads, and `count`, which it
/// writes.
#[repr(C)]
struct BatchLookup {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    flags: u64,
    batch_flags: u64,
}

fn number(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}
