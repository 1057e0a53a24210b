//! Maps, a key at a time.

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

use super::{Command, address, address_mut, bpf, failed, open, size};
use crate::error::{Error, Result};

/// Opens a pinned map of any kind.
pub fn pinned_map(path: &Path) -> Result<OwnedFd> {
    let operation = || failed(format!("open map {}", path.display()));
    let name = CString::new(path.as_os_str().as_bytes());
    let name = name.map_err(|error| operation()(error.into()))?;
    let mut get = ObjGet {
        path: address(name.as_c_str()),
        fd: 0,
        flags: 0,
    };
    // SAFETY: `path` is that of a string that ends with a 0 and outlives the call.
    unsafe { open(Command::ObjGet, &mut get) }.map_err(operation())
}

/// A hash map with keys `K` and values `V`.
pub struct Map<K, V> {
    fd: OwnedFd,
    _types: PhantomData<(K, V)>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ObjInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Opens a pinned map, if its keys and values are of this size.
    pub fn open(path: &Path) -> Result<Self> {
        /// `BPF_MAP_TYPE_HASH`: one value a key, not one for each CPU.
        const HASH: u32 = 1;
        let fd = pinned_map(path)?;

        let mut info = MapInfo::default();
        let mut ask = ObjInfo {
            fd: fd.as_raw_fd().cast_unsigned(),
            length: size(size_of::<MapInfo>())?,
            info: address_mut(&mut info),
        };
        // SAFETY: the kernel writes at most `length` bytes at `info`, which has that many.
        unsafe { bpf(Command::ObjInfoByFd, &mut ask) }
            .map_err(failed(format!("examine map {}", path.display())))?;
        let sizes = (info.key_size as usize, info.value_size as usize);
        if info.kind != HASH || sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(Error::output(
                format!("examine map {}", path.display()),
                format!("it has keys and values of {sizes:?} bytes: it is of another version"),
            ));
        }
        Ok(Self {
            fd,
            _types: PhantomData,
        })
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let mut element = self.element(address(key), address_mut(&mut value));
        // SAFETY: key and value have the map's sizes (`Self::open`) and outlive the call.
        match unsafe { bpf(Command::MapLookup, &mut element) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if is(&error, Errno::ENOENT) => Ok(None),
            Err(error) => Err(failed("look up in a map")(error)),
        }
    }

    /// Sets the value of a key, which may be new.
    pub fn set(&self, key: &K, value: &V) -> Result<()> {
        let mut element = self.element(address(key), address(value));
        // SAFETY: key and value have the map's sizes (`Self::open`) and outlive the call.
        unsafe { bpf(Command::MapUpdate, &mut element) }.map_err(failed("update a map"))?;
        Ok(())
    }

    /// Takes an entry away, which must be there.
    pub fn remove(&self, key: &K) -> Result<()> {
        let mut element = self.element(address(key), 0);
        // SAFETY: the key has the map's size (`Self::open`) and outlives the call, which reads
        // no value.
        unsafe { bpf(Command::MapDelete, &mut element) }.map_err(failed("delete from a map"))?;
        Ok(())
    }

    /// All keys.
    pub fn keys(&self) -> Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = K::zeroed();
            // No key: the first one is next.
            let key = keys.last().map_or(0, address);
            let mut element = self.element(key, address_mut(&mut next));
            // SAFETY: both keys have the map's size (`Self::open`) and outlive the call.
            match unsafe { bpf(Command::MapNextKey, &mut element) } {
                Ok(_) => keys.push(next),
                Err(error) if is(&error, Errno::ENOENT) => return Ok(keys),
                Err(error) => return Err(failed("list a map")(error)),
            }
        }
    }

    fn element(&self, key: u64, value: u64) -> Element {
        Element {
            map: self.fd.as_raw_fd().cast_unsigned(),
            _pad: 0,
            key,
            value,
            flags: 0,
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::Element;

    #[test]
    fn an_element_is_as_the_kernel_lays_it_out() {
        assert_eq!(size_of::<Element>(), 32);
    }
}
