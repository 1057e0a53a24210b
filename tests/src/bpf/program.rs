//! Small programs, on devices and on packets.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::{Command, address, bpf, failed, open, size};
use crate::{
    assembly::{EXIT, Instruction, call, helper, set},
    error::Result,
};

/// A TC program.
pub struct Program {
    fd: OwnedFd,
}

/// The outcome of a test run.
pub struct Run {
    /// The returned action.
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
    flags: u32,
    cpu: u32,
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

    /// Attaches an XDP program in the driver of a device of the calling thread's network namespace.
    pub fn attach_in_driver(&self, device: u32) -> Result<Link> {
        /// `XDP_FLAGS_DRV_MODE`
        const IN_THE_DRIVER: u32 = 1 << 2;
        self.attach_with(device, Hook::Xdp, IN_THE_DRIVER)
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

/// Runs a TC program once on a frame of which a card has added up all words
/// (`CHECKSUM_COMPLETE`).
///
/// Fails with `EINVAL` before Linux 6.17, and with `EBADMSG` when the sum that the program leaves is
/// not that of the frame that it leaves.
pub fn run_summed(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    /// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` of `linux/bpf.h`.
    const COMPLETE: u32 = 1 << 2;
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_in: address(frame),
        repeat: 1,
        flags: COMPLETE,
        ..TestRun::zeroed()
    };
    // SAFETY: the kernel reads the frame, which is as long as is said and outlives the call, and
    // writes nothing, as the size of the output is 0.
    unsafe { bpf(Command::ProgTestRun, &mut run) }.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{Load, TestRun};

    #[test]
    fn attributes_are_as_the_kernel_lays_them_out() {
        assert_eq!(size_of::<Load>(), 40);
        assert_eq!(size_of::<TestRun>(), 72);
        assert_eq!(offset_of!(TestRun, context_in), 48);
    }
}
