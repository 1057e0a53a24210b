//! The few calls of `bpf(2)` that fill maps, and that load, attach and run small programs.
//!
//! `bpftool` does most of it, a process or a parsed line at a time; between two runs of a
//! program it would do so much else that the caches are not those of a data plane.

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};
use nix::{errno::Errno, libc};

use crate::{
    assembly::{EXIT, Instruction, call, helper, set},
    error::{Error, Result},
};

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
            return Err(Error::Output {
                command: format!("examine map {}", path.display()),
                why: format!("it has keys and values of {sizes:?} bytes: it is of another version"),
            });
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

/// What a call failed at.
fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let operation = operation.into();
    |source| Error::Kernel { operation, source }
}

/// A size as the kernel takes it.
fn size(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|error| failed("pass a size")(io::Error::other(error)))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// A TC program.
pub struct Program {
    fd: OwnedFd,
}

/// What a program did with a packet.
pub struct Run {
    /// What it returned.
    pub action: u32,
    /// How long it took.
    pub nanoseconds: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Load {
    kind: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TestRun {
    program: u32,
    action: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinkCreate {
    program: u32,
    device: u32,
    place: u32,
    flags: u32,
}

/// Where packets meet a program: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// `BPF_TCX_INGRESS`
    Ingress = 46,
    /// `BPF_TCX_EGRESS`
    Egress = 47,
    /// `BPF_XDP`, in the stack.
    Xdp = 37,
}

/// A program on a device, until it is dropped.
pub struct Link(#[expect(dead_code, reason = "the kernel's link lives as long")] OwnedFd);

impl Program {
    /// A loaded program.
    pub fn by_id(id: u32) -> Result<Self> {
        let mut by_id = ById {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: there is no address among the attributes.
        let fd = unsafe { open(Command::ProgFdById, &mut by_id) }
            .map_err(failed(format!("open program {id}")))?;
        Ok(Self { fd })
    }

    /// Loads a TC program.
    pub fn load(instructions: &[Instruction]) -> Result<Self> {
        /// `BPF_PROG_TYPE_SCHED_CLS`
        const CLASSIFIER: u32 = 3;
        Self::load_as(CLASSIFIER, instructions)
    }

    /// Loads an XDP program.
    pub fn load_xdp(instructions: &[Instruction]) -> Result<Self> {
        /// `BPF_PROG_TYPE_XDP`
        const XDP: u32 = 6;
        Self::load_as(XDP, instructions)
    }

    fn load_as(kind: u32, instructions: &[Instruction]) -> Result<Self> {
        let mut load = Load {
            kind,
            instructions_count: size(instructions.len())?,
            instructions: address(instructions),
            license: address(c"GPL"),
            log_level: 0,
            log_size: 0,
            log: 0,
        };
        // SAFETY: the addresses are those of as many instructions as are counted, and of a
        // string that ends with a 0; both outlive the call.
        let fd = unsafe { open(Command::ProgLoad, &mut load) }.map_err(failed("load a program"))?;
        Ok(Self { fd })
    }

    /// A program that returns 0: what measuring takes.
    pub fn nothing() -> Result<Self> {
        Self::load(&[set(0, 0), EXIT])
    }

    /// A program that asks for the flow's hash: a test packet has none, and the kernel looks
    /// through its headers, while a packet from a socket brings the socket's hash.
    pub fn hash() -> Result<Self> {
        Self::load(&[call(helper::FLOW_HASH), set(0, 0), EXIT])
    }

    /// Attaches it to a device of the calling thread's network namespace.
    pub fn attach(&self, device: u32, hook: Hook) -> Result<Link> {
        /// `XDP_FLAGS_SKB_MODE`
        const IN_THE_STACK: u32 = 1 << 1;
        self.attach_with(
            device,
            hook,
            if hook == Hook::Xdp { IN_THE_STACK } else { 0 },
        )
    }

    /// [`Self::attach`], before the programs of TC that are there.
    pub fn attach_first(&self, device: u32, hook: Hook) -> Result<Link> {
        /// `BPF_F_BEFORE`
        const BEFORE: u32 = 1 << 3;
        self.attach_with(device, hook, BEFORE)
    }

    fn attach_with(&self, device: u32, hook: Hook, flags: u32) -> Result<Link> {
        let mut create = LinkCreate {
            program: self.fd.as_raw_fd().cast_unsigned(),
            device,
            place: hook as u32,
            flags,
        };
        // SAFETY: there is no address among the attributes, and the kernel returns a new
        // descriptor.
        let fd = unsafe { open(Command::LinkCreate, &mut create) }
            .map_err(failed(format!("attach a program to device {device}")))?;
        Ok(Link(fd))
    }

    /// Runs it once on a frame, as if that had come in at a device of the calling thread's
    /// network namespace.
    ///
    /// Once, because a second run would meet what the first one made of the frame.
    pub fn run(&self, frame: &[u8], device: u32) -> Result<Run> {
        /// Where `struct __sk_buff` has `ifindex`; what follows it may be left out.
        const IFINDEX: usize = 40;
        let mut context = [0; IFINDEX + 4];
        context[IFINDEX..].copy_from_slice(&device.to_ne_bytes());
        let mut run = TestRun {
            program: self.fd.as_raw_fd().cast_unsigned(),
            data_size_in: size(frame.len())?,
            data_in: address(frame),
            repeat: 1,
            context_size_in: size(context.len())?,
            context_in: address(&context),
            ..TestRun::zeroed()
        };
        // SAFETY: the kernel reads frame and context, which are as long as is said and
        // outlive the call, and writes neither, as the sizes of both outputs are 0.
        unsafe { bpf(Command::ProgTestRun, &mut run) }
            .map_err(failed("run a program on a packet"))?;
        Ok(Run {
            action: run.action,
            nanoseconds: run.nanoseconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_as_the_kernel_lays_them_out() {
        assert_eq!(size_of::<Element>(), 32);
        assert_eq!(size_of::<Load>(), 40);
        assert_eq!(size_of::<TestRun>(), 64);
        assert_eq!(std::mem::offset_of!(TestRun, context_in), 48);
    }
}
