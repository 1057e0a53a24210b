//! Many rows of a map in one call.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::MapData;
use nix::{errno::Errno, libc};

use super::links::bpf;
use crate::{KernelError, Result};

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Rows that one call reads at most,
pub(super) const ROWS: usize = 8192;
/// the first call, as most maps have few,
const FIRST: usize = 256;
/// and bytes of values: those of counters are as many as there are CPUs.
const BYTES: usize = 2 << 20;
/// A cursor's length, whatever the keys are: hash maps count buckets, arrays slots.
const CURSOR: usize = size_of::<u32>();

/// Room for what a call reads, which several maps can share.
#[derive(Default)]
pub(super) struct Room {
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// How far a map has been read. Sizes are those of a row as the kernel hands it over.
pub(super) struct Reader {
    name: &'static str,
    key: usize,
    value: usize,
    rows: usize,
    cursor: Option<Vec<u8>>,
}

impl Reader {
    /// At the start of a map whose keys and values have these sizes in bytes.
    pub(super) fn new(name: &'static str, key: usize, value: usize) -> Self {
        Self {
            name,
            key,
            value,
            rows: (BYTES / value).clamp(1, ROWS),
            cursor: None,
        }
    }

    /// The same in parts of so many rows, unless a call reads less.
    pub(super) fn in_parts_of(self, rows: usize) -> Self {
        Self {
            rows: self.rows.min(rows),
            ..self
        }
    }

    /// Goes back to the start.
    pub(super) fn start(&mut self) {
        self.cursor = None;
    }

    /// Tells the next rows; whether the end is reached.
    pub(super) fn read_on(
        &mut self,
        map: &MapData,
        room: &mut Room,
        mut tell: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool> {
        let first = self.cursor.is_none();
        let rows = self.rows.min(if first { FIRST } else { ROWS });
        let grow = |bytes: &mut Vec<u8>, size| bytes.resize(bytes.len().max(rows * size), 0);
        grow(&mut room.keys, self.key);
        grow(&mut room.values, self.value);
        let mut next = vec![0; self.key.max(CURSOR)];
        let mut attributes = BatchLookup {
            in_batch: self
                .cursor
                .as_ref()
                .map_or(0, |cursor| cursor.as_ptr() as u64),
            out_batch: next.as_mut_ptr() as u64,
            keys: room.keys.as_mut_ptr() as u64,
            values: room.values.as_mut_ptr() as u64,
            count: u32::try_from(rows).unwrap_or(u32::MAX),
            map: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            flags: 0,
            batch_flags: 0,
        };
        // SAFETY: a cursor, given or taken, has a key's length and at least 4 bytes, which is
        // what the kernel reads and writes there. `keys` and `values` have room for `count` keys
        // and values of this map, whose sizes were checked against `specs` when it was loaded.
        // All of it outlives the call.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let ended = match result {
            Ok(_) => false,
            Err(Errno::ENOENT) => true,
            Err(errno) => return Err(KernelError::os(format!("read map {}", self.name), errno)),
        };
        let keys = room.keys.chunks_exact(self.key);
        let values = room.values.chunks_exact(self.value);
        for (key, value) in keys.zip(values).take(attributes.count as usize) {
            tell(key, value);
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
