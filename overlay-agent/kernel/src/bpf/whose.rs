//! Whose a program is.
//!
//! The name of a filter proves nothing, and neither does the place of a pin: somebody else can
//! have taken both. Our programs use the instance's maps, which nobody else's do: those that are
//! noted by id ([`made`](super::made)), and those of the programs that this process has loaded. Where
//! none of them is known, because somebody has removed the notes while there was no agent, nothing
//! is ours: what cannot be proven is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{errno::Errno, libc};

use super::{
    links::{BPF_OBJ_GET_INFO_BY_FD, ById, InfoByFd, bpf},
    made::Notes,
    pins::Pins,
};
use crate::{KernelError, Result};

/// A command of `bpf(2)` (`enum bpf_cmd`).
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
/// Maps of a program that are looked at; ours have fewer.
const MOST: usize = 64;

/// Tells the programs of an instance from those of others.
#[derive(Debug)]
pub(super) struct Ours {
    pins: Pins,
    /// Of programs that this process has loaded.
    loaded: BTreeSet<u32>,
    /// These and the noted ones, from the first question on: mostly there is none.
    maps: Option<BTreeSet<u32>>,
    /// Earlier answers, by the program's id.
    known: BTreeMap<u32, bool>,
}

impl Ours {
    /// By the maps that are noted, and by those of programs that this process has `loaded`.
    pub(super) fn of(pins: &Pins, loaded: impl IntoIterator<Item = u32>) -> Self {
        Self {
            pins: pins.clone(),
            loaded: loaded.into_iter().collect(),
            maps: None,
            known: BTreeMap::new(),
        }
    }

    /// [`Notes::lacking`].
    pub(super) fn lacking(&self) -> Result<Option<String>> {
        Notes(&self.pins).lacking()
    }

    /// Whether a program, by its id, is the instance's; one that has gone is nobody's.
    pub(super) fn made(&mut self, program: u32) -> Result<bool> {
        if let Some(&known) = self.known.get(&program) {
            return Ok(known);
        }
        let maps = if let Some(maps) = self.maps.take() {
            maps
        } else {
            let mut maps = Notes(&self.pins).maps()?;
            maps.extend(&self.loaded);
            maps
        };
        let operation = || format!("look at program {program}");
        let uses = maps_of(program).map_err(|errno| KernelError::os(operation(), errno))?;
        let ours = uses.iter().any(|map| maps.contains(map));
        self.maps = Some(maps);
        self.known.insert(program, ours);
        Ok(ours)
    }
}

/// Ids of the maps that a program uses.
fn maps_of(program: u32) -> nix::Result<Vec<u32>> {
    let mut by_id = ById {
        id: program,
        next: 0,
        flags: 0,
    };
    // SAFETY: the attributes hold no pointer, and the command writes to no memory.
    let fd = match unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id) } {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?) };
    let mut maps = [0_u32; MOST];
    let mut info = ProgramInfo {
        map_count: u32::try_from(MOST).map_err(|_| Errno::EINVAL)?,
        maps: maps.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let mut attributes = InfoByFd {
        fd: program.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<ProgramInfo>()).map_err(|_| Errno::EINVAL)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` points at `length` bytes, any bit pattern of which is a valid `ProgramInfo`,
    // and the only pointer in it that is not null at an array with room for `map_count` numbers;
    // the kernel writes to nothing else but `attributes`, and all of it outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(maps.into_iter().take(info.map_count as usize).collect())
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    xlated_length: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    user: u32,
    map_count: u32,
    maps: u64,
}
