//! Hash maps and tries with their names, which their errors tell.

use std::{fmt, path::Path};

use aya::{
    Pod,
    maps::{HashMap, IterableMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use bytemuck::{AnyBitPattern, NoUninit, bytes_of, try_pod_read_unaligned};
use nix::errno::Errno;

use super::{
    batch::{Reader, Room},
    failure::failed,
    pins::Pins,
    specs,
};
use crate::{KernelError, Result};

/// A hash map with its name.
pub(super) struct Table<K, V> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + AnyBitPattern, V: Pod + NoUninit + AnyBitPattern> Table<K, V> {
    pub(super) fn open(pins: &Pins, name: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            map: open(pins, name)?,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Removes a row, given in bytes, if it still has this value.
    pub(super) fn delete_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Ok(key) = try_pod_read_unaligned(key) else {
            return Ok(());
        };
        match self.map.get(&key, 0) {
            Ok(found) if bytes_of(&found) == value => self.delete(key, "a foreign row"),
            _ => Ok(()),
        }
    }

    pub(super) fn rows(&self) -> Result<impl Iterator<Item = (K, V)>> {
        let (mut reader, mut room) = (
            Reader::new(self.name, size_of::<K>(), size_of::<V>()),
            Room::default(),
        );
        let mut rows = Vec::new();
        let mut ended = false;
        while !ended {
            ended = reader.read_on(IterableMap::map(&self.map), &mut room, |key, value| {
                // Rows are as long as the types that the reader was made of.
                let row = try_pod_read_unaligned(key)
                    .ok()
                    .zip(try_pod_read_unaligned(value).ok());
                rows.extend(row);
            })?;
        }
        Ok(rows.into_iter())
    }

    /// The value of a key; `None` when there is none.
    pub(super) fn get(&self, key: &K, shown: impl fmt::Display) -> Result<Option<V>> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(
                format!("look up {shown} in map {}", self.name),
                &error,
            )),
        }
    }

    pub(super) fn set(&mut self, key: K, value: &V, shown: impl fmt::Display) -> Result<()> {
        let name = self.name;
        self.map
            .insert(key, value, 0)
            .map_err(|error| refused(name, shown, Errno::E2BIG, &error))
    }

    pub(super) fn delete(&mut self, key: K, shown: impl fmt::Display) -> Result<()> {
        let name = self.name;
        self.map
            .remove(&key)
            .map_err(|error| failed(format!("delete {shown} from map {name}"), &error))
    }
}

/// A trie with its name.
pub(super) struct Trie<K, V> {
    name: &'static str,
    map: LpmTrie<MapData, K, V>,
}

impl<K: Pod + AnyBitPattern + NoUninit, V: Pod + NoUninit> Trie<K, V> {
    pub(super) fn open(pins: &Pins, name: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            map: open(pins, name)?,
        })
    }

    /// As [`Table::delete_row`].
    pub(super) fn delete_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some((length, data)) = key.split_first_chunk() else {
            return Ok(());
        };
        let Ok(data) = try_pod_read_unaligned(data) else {
            return Ok(());
        };
        let key = Key::new(u32::from_ne_bytes(*length), data);
        let found = self.rows()?.find(|(other, _)| {
            other.prefix_len() == key.prefix_len() && bytes_of(&other.data()) == bytes_of(&data)
        });
        match found {
            Some((_, found)) if bytes_of(&found) == value => self.delete(&key, "a foreign row"),
            _ => Ok(()),
        }
    }

    pub(super) fn rows(&self) -> Result<impl Iterator<Item = (Key<K>, V)>> {
        let rows: Result<Vec<_>, _> = self.map.iter().collect();
        let rows = rows.map_err(|error| failed(format!("read map {}", self.name), &error))?;
        Ok(rows.into_iter())
    }

    pub(super) fn set(&mut self, key: &Key<K>, value: V, shown: impl fmt::Display) -> Result<()> {
        let name = self.name;
        self.map
            .insert(key, value, 0)
            .map_err(|error| refused(name, shown, Errno::ENOSPC, &error))
    }

    pub(super) fn delete(&mut self, key: &Key<K>, shown: impl fmt::Display) -> Result<()> {
        let name = self.name;
        self.map
            .remove(key)
            .map_err(|error| failed(format!("delete {shown} from map {name}"), &error))
    }
}

/// Why an entry was not set; a map that is full says so by `full`.
fn refused(name: &str, shown: impl fmt::Display, full: Errno, error: &MapError) -> KernelError {
    let operation = format!("set {shown} in map {name}");
    let error = failed(&*operation, error);
    if error.errno() == Some(full as i32) {
        return KernelError::os(operation, full)
            .because(format!("it is full with {} entries", specs::capacity(name)));
    }
    error
}

/// The map of a name, as it is pinned.
pub(super) fn open<M>(pins: &Pins, name: &str) -> Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    open_path(&pins.map(name), name)
}

/// The map that is pinned at a path.
pub(super) fn open_path<M>(path: &Path, name: &str) -> Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(|error| failed(format!("open map {name}"), &error))
}
