//! One row of a map, in bytes.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::MapData;
use nix::{errno::Errno, libc};

use super::{links::bpf, specs::MapSpec};
use crate::{KernelError, Result};

/// `BPF_MAP_LOOKUP_ELEM` of `enum bpf_cmd`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;

/// The value of a key in a map, which has to be the one of this spec and not one of counters;
/// `None` where there is no such row.
pub(super) fn read(map: &MapData, spec: &MapSpec, key: &[u8]) -> Result<Option<Vec<u8>>> {
    if key.len() != spec.key {
        return Ok(None);
    }
    let mut value = vec![0; spec.value];
    let mut attributes = Lookup {
        map: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `key` and `value` are as long as the map's, whose sizes were checked against its
    // spec when it was loaded; the kernel reads the one and writes the other, and both outlive
    // the call.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(value)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => {
            let operation = format!("look into map {}", spec.name);
            Err(KernelError::os(operation, errno))
        }
    }
}

/// The members of `union bpf_attr` that `BPF_MAP_LOOKUP_ELEM` reads.
#[repr(C)]
struct Lookup {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}
