//! Pinned links, with what aya does not do: telling their device, detaching at once, and
//! XDP by a link or not at all.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
};

use nix::{errno::Errno, libc};
use overlay_core::model::IfName;

use super::{
    Found, Target,
    pins::{Pins, children, parse_link},
    whose::Ours,
};
use crate::{KernelError, Result};

/// Commands of `bpf(2)` (`enum bpf_cmd`).
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_LINK_DETACH: libc::c_long = 34;
/// `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;

/// The target of a link's descriptor in `/proc` (`bpf_link_new_fd`), which depends on the kernel.
const LINK: [&str; 2] = ["anon_inode:bpf-link", "anon_inode:bpf_link"];

/// The ends of a TCX or XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Id of its program.
    pub(super) program: u32,
    /// Index of its device; 0 when that is gone, or somebody detached the link.
    pub(super) ifindex: u32,
}

/// The object at the place of a link's pin.
enum There {
    Nothing,
    /// A link, anybody's.
    Link(OwnedFd, Link),
    /// An object that only somebody else puts there: a map, a program, a folder.
    NoLink,
}

impl There {
    fn at(pin: &Path) -> Result<Self> {
        let failed = |errno| KernelError::os(format!("look at link {}", pin.display()), errno);
        match fs::symlink_metadata(pin) {
            Ok(there) if there.is_file() => {}
            Ok(_) => return Ok(Self::NoLink),
            // The kernel says so, too, and why.
            Err(_) => {}
        }
        let link = match open(pin) {
            Ok(link) => link,
            Err(Errno::ENOENT) => return Ok(Self::Nothing),
            Err(errno) => return Err(failed(errno)),
        };
        // Of a map or a program the kernel would tell something else in the place of a program's id.
        let what = fs::read_link(format!("/proc/self/fd/{}", link.as_raw_fd()))
            .map_err(|error| KernelError::io(format!("look at link {}", pin.display()), &error))?;
        if !LINK.iter().any(|link| what == Path::new(link)) {
            return Ok(Self::NoLink);
        }
        let told = info(&link).map_err(failed)?;
        Ok(Self::Link(link, told))
    }
}

/// The link that is pinned at `pin`; `None` when there is none.
pub(super) fn read(pin: &Path) -> Result<Option<Link>> {
    Ok(match There::at(pin)? {
        There::Link(_, link) => Some(link),
        There::Nothing | There::NoLink => None,
    })
}

/// Our link that is pinned at `pin`; `None` when there is none, or somebody else's.
pub(super) fn read_ours(pin: &Path, ours: &mut Ours) -> Result<Option<Link>> {
    match read(pin)? {
        Some(link) if ours.made(link.program)? => Ok(Some(link)),
        _ => Ok(None),
    }
}

/// [`read_ours`], where ours is to be put: somebody else's is an error.
pub(super) fn read_place(pin: &Path, ours: &mut Ours, operation: &str) -> Result<Option<Link>> {
    const ELSEWHERE: &str = "pin it elsewhere, outside of the folder of the instance";
    let there = There::at(pin)?;
    let pin = pin.display();
    let (what, lacking) = match there {
        There::Nothing => return Ok(None),
        There::Link(_, link) if ours.made(link.program)? => return Ok(Some(link)),
        There::Link(..) => ("a link", ours.lacking()?),
        There::NoLink => ("something", None),
    };
    Err(match lacking {
        None => {
            let cause = format!("{pin} is {what} of somebody else, and is left as it is");
            KernelError::new(operation, cause).with_cure(ELSEWHERE)
        }
        Some(lacking) => {
            let cause = format!("{pin} is {what}, and {lacking}");
            let cure = format!("if nobody else has pinned it, remove it with \"rm {pin}\"");
            KernelError::new(operation, cause).with_cure(cure)
        }
    })
}

/// Detaches and removes our link that is pinned at `pin`, if there is one.
///
/// Removing the pin alone would detach the link, too, but only some time later.
pub(super) fn remove(pin: &Path, ours: &mut Ours) -> Result<()> {
    let link = match There::at(pin)? {
        There::Link(link, told) if ours.made(told.program)? => link,
        _ => return Ok(()),
    };
    let operation = || format!("remove link {}", pin.display());
    let_go(&link).map_err(|errno| KernelError::os(operation(), errno))?;
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io(operation(), &error))
        }
        _ => Ok(()),
    }
}

/// Detaches and unpins what a target has of ours; nothing there is fine.
pub(super) fn detach(pins: &Pins, target: Target, ours: &mut Ours) -> Result<()> {
    remove(&pins.link(target), ours)
}

/// Detaches everything of ours.
pub(super) fn detach_all(pins: &Pins, ours: &mut Ours) -> Result<()> {
    let folder = pins.links();
    children(&folder)?
        .iter()
        .try_for_each(|name| remove(&folder.join(name), ours))
}

/// Our pinned links, and whether each runs on the device that it is named after.
pub(super) fn found(
    pins: &Pins,
    devices: &BTreeMap<IfName, u32>,
    ours: &mut Ours,
) -> Result<Vec<Found>> {
    let targets = children(&pins.links())?
        .into_iter()
        .filter_map(|name| parse_link(&name));
    let mut found = Vec::new();
    for target in targets {
        if let Some(link) = read_ours(&pins.link(target), ours)? {
            let here = devices.get(&target.device) == Some(&link.ifindex);
            let program = here.then_some(link.program);
            found.push(Found { target, program });
        }
    }
    Ok(found)
}

/// Links a program to a device's XDP and pins the link.
pub(super) fn attach_xdp(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
    pin: &Path,
) -> nix::Result<()> {
    let mut attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_XDP,
        flags,
    };
    // SAFETY: the attributes hold no pointer, and the command writes to no memory.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?) };
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut attributes = Pin {
        pathname: path.as_ptr() as u64,
        fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: `pathname` points at a string with a final 0 that lives until the end of
    // this function; the command writes to no memory.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }?;
    Ok(())
}

/// The id of the link, anybody's, by which a program is attached to a device.
pub(super) fn id_of(program: u32, ifindex: u32) -> nix::Result<Option<u32>> {
    let mut id = 0;
    loop {
        let mut next = ById {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: the attributes hold no pointer, and the command writes to them alone.
        match unsafe { bpf(BPF_LINK_GET_NEXT_ID, &mut next) } {
            Ok(_) => id = next.next,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        let mut by_id = ById {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: the attributes hold no pointer, and the command writes to no memory.
        let fd = match unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id) } {
            Ok(fd) => fd,
            // It has gone meanwhile.
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
        let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?) };
        if info(&link)? == (Link { program, ifindex }) {
            return Ok(Some(id));
        }
    }
}

/// Puts a program in the place of the one that a pinned link has.
pub(super) fn replace(pin: &Path, program: BorrowedFd<'_>) -> nix::Result<()> {
    let link = open(pin)?;
    let mut attributes = LinkUpdate {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the attributes hold no pointer, and the command writes to no memory.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }?;
    Ok(())
}

/// The members of `union bpf_attr` that `BPF_OBJ_PIN` and `BPF_OBJ_GET` read.
#[repr(C)]
struct Pin {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// The members of `union bpf_attr` that `BPF_LINK_CREATE` reads for XDP.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The members of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The members of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
pub(super) struct InfoByFd {
    pub(super) fd: u32,
    pub(super) length: u32,
    pub(super) info: u64,
}

/// The head of `struct bpf_link_info`, for a TCX link; an XDP link has no attach type.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// The members of `union bpf_attr` that the commands about ids use.
#[repr(C)]
pub(super) struct ById {
    pub(super) id: u32,
    pub(super) next: u32,
    pub(super) flags: u32,
}

/// The members of `union bpf_attr` that `BPF_LINK_DETACH` reads.
#[repr(C)]
struct LinkDetach {
    fd: u32,
}

fn open(pin: &Path) -> nix::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut attributes = Pin {
        pathname: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: `pathname` points at a string with a final 0 that lives until the end of
    // this function; the command writes to no memory.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| Errno::EBADF)?) })
}

fn info(link: &OwnedFd) -> nix::Result<Link> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoByFd {
        fd: link.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<LinkInfo>()).map_err(|_| Errno::EINVAL)?,
        info: ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` points at `length` bytes, the only ones that the kernel writes apart
    // from `attributes`; both outlive the call, and any bit pattern is a valid `LinkInfo`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(Link {
        program: info.program,
        ifindex: info.ifindex,
    })
}

fn let_go(link: &OwnedFd) -> nix::Result<()> {
    let mut attributes = LinkDetach {
        fd: link.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: the attributes hold no pointer, and the command writes to no memory.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }?;
    Ok(())
}

/// `bpf(2)`.
///
/// # Safety
///
/// `T` is laid out like the head of `union bpf_attr` that `command` uses, and the
/// pointers in it are valid for what the command does with them.
pub(super) unsafe fn bpf<T>(
    command: libc::c_long,
    attributes: &mut T,
) -> nix::Result<libc::c_long> {
    let attributes = ptr::from_mut(attributes);
    // SAFETY: `attributes` points at `size_of::<T>()` bytes, which is what the kernel reads
    // or writes there; for pointers among them, the caller answers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    Errno::result(result)
}
