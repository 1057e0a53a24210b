//! The few calls of `bpf(2)` that fill maps, and that load, attach and run small programs.
//!
//! `bpftool` does most of it, a process or a parsed line at a time; between two runs of a
//! program it would do so much else that the caches are not those of a data plane.

mod map;
mod program;

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use bytemuck::Pod;
use nix::libc;

use crate::error::{Error, Result};

pub use map::{Map, pinned_map};
pub use program::{Hook, Link, Program, Run, run_summed};

/// `enum bpf_cmd` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgFdById = 13,
    ObjInfoByFd = 15,
    LinkCreate = 28,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `attributes` are those of `command`, and every address among them points to memory that
/// is valid for the length that the command reads or writes there.
unsafe fn bpf<A: Pod>(command: Command, attributes: &mut A) -> io::Result<i32> {
    let attributes: *mut A = attributes;
    // SAFETY: the kernel reads and writes `size_of::<A>()` bytes at `attributes`, which an
    // exclusive reference to plain data allows; for the rest the caller answers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as i32, attributes, size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// Calls `bpf(2)` for a command that returns a descriptor.
///
/// # Safety
/// As for [`bpf`]; and the command returns a new descriptor.
unsafe fn open<A: Pod>(command: Command, attributes: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address of what the kernel reads.
fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<()>().expose_provenance() as u64
}

/// The address of what the kernel writes.
fn address_mut<T>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).expose_provenance() as u64
}

/// The error of a failed call.
fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let operation = operation.into();
    |source| Error::Kernel { operation, source }
}

/// A size as the kernel takes it.
fn size(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|error| failed("pass a size")(io::Error::other(error)))
}
