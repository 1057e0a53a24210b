//! Giving up what the agent does not need, whoever started it with whatever.
//!
//! Capabilities belong to threads: this must come before any thread is started that would
//! keep more, and threads that are started later inherit what is left.

use std::ptr;

use nix::{errno::Errno, libc, sys::prctl::set_no_new_privs};

use super::{KernelError, Result, capability::Capability};

/// The capabilities of a running agent.
pub const RUNNING: [Capability; 5] = [
    // Devices, routes, neighbours, filters, nftables, and settings below /proc/sys/net.
    Capability::NetAdmin,
    // Maps and programs,
    Capability::Bpf,
    // and what the verifier allows of them besides.
    Capability::Perfmon,
    // Entering, making and naming the namespaces of containers.
    Capability::SysAdmin,
    // Finding the namespace of a container that is named by a process.
    Capability::SysPtrace,
];

/// Those of an agent with a helper besides, which it starts as somebody who may do
/// nothing.
pub const WITH_HELPER: [Capability; 2] = [Capability::SetGid, Capability::SetUid];

/// That of an agent besides which answers for names, at a port below 1024.
pub const WITH_NAMES: [Capability; 1] = [Capability::NetBindService];

/// Those of a starting agent, until it listens to the kernel: events of the containers'
/// namespaces reach a socket whose maker might broadcast there.
pub const STARTING: [Capability; 9] = [
    RUNNING[0],
    RUNNING[1],
    RUNNING[2],
    RUNNING[3],
    RUNNING[4],
    Capability::NetBroadcast,
    WITH_HELPER[0],
    WITH_HELPER[1],
    WITH_NAMES[0],
];

/// The capability of programs that the agent starts: `nft`.
const INHERITED: [Capability; 1] = [Capability::NetAdmin];

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Gives up every capability that is not among `kept`, for this thread, those that it
/// starts and all programs that they start, and the means to get one back.
pub fn keep(kept: &[Capability]) -> Result<()> {
    let operation = "give up capabilities";
    let os = |errno| KernelError::os(operation, errno);
    let kept = mask(kept);
    // While it may still be done: what is needed at the start alone is for no other program.
    bound(kept & mask(&RUNNING)).map_err(os)?;
    let mut sets = get().map_err(os)?;
    sets.permitted &= kept;
    sets.effective = sets.permitted;
    sets.inheritable &= kept & mask(&INHERITED);
    // Lowers the ambient set, too: it is never more than what can be inherited.
    set(sets).map_err(os)?;
    set_no_new_privs().map_err(os)
}

fn mask(capabilities: &[Capability]) -> u64 {
    let bits = capabilities.iter();
    bits.fold(0, |mask, capability| mask | 1 << capability.number())
}

/// Takes all others from what programs that are started later can get; who may not do that
/// is not root, and gives up the same by `PR_SET_NO_NEW_PRIVS`.
fn bound(kept: u64) -> nix::Result<()> {
    for number in 0..u64::BITS {
        match bounding(libc::PR_CAPBSET_READ, number) {
            Ok(1) if kept >> number & 1 == 0 => match bounding(libc::PR_CAPBSET_DROP, number) {
                Ok(_) => {}
                Err(Errno::EPERM) => return Ok(()),
                Err(errno) => return Err(errno),
            },
            Ok(_) => {}
            // Beyond the last one that this kernel knows.
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads or drops a capability of the bounding set, by its number.
fn bounding(option: libc::c_int, number: u32) -> nix::Result<libc::c_int> {
    let (number, unused) = (libc::c_ulong::from(number), 0 as libc::c_ulong);
    // SAFETY: both options take a number and touch no memory.
    Errno::result(unsafe { libc::prctl(option, number, unused, unused, unused) })
}

/// A thread's sets of capabilities, one bit each.
#[derive(Clone, Copy)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`: the lower or upper halves.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const OWN: Header = Header {
    version: VERSION,
    pid: 0,
};

fn get() -> nix::Result<Sets> {
    let mut header = OWN;
    let mut halves = [Half::default(); 2];
    // SAFETY: with this version the kernel reads the header, may write its version, and
    // writes two halves; all of it outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_capget,
            ptr::from_mut(&mut header),
            halves.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    let [low, high] = halves;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// 32 bits of a set.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the other half is asked for by itself"
)]
const fn part(set: u64, shift: u32) -> u32 {
    (set >> shift) as u32
}

fn set(sets: Sets) -> nix::Result<()> {
    let mut header = OWN;
    let half = |shift: u32| Half {
        effective: part(sets.effective, shift),
        permitted: part(sets.permitted, shift),
        inheritable: part(sets.inheritable, shift),
    };
    let halves = [half(0), half(32)];
    // SAFETY: with this version the kernel reads the header, may write its version, and
    // reads two halves; all of it outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_capset,
            ptr::from_mut(&mut header),
            halves.as_ptr(),
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Capability, RUNNING, get, keep, mask};

    #[test]
    fn what_is_given_up_does_not_come_back() {
        // On a thread of its own: the others keep what they have.
        let outcome = thread::spawn(|| {
            let before = get().unwrap();
            keep(&RUNNING).unwrap();
            let after = get().unwrap();
            assert_eq!(after.permitted, before.permitted & mask(&RUNNING));
            assert_eq!(after.effective, after.permitted);
            keep(&[Capability::NetAdmin]).unwrap();
            keep(&RUNNING).unwrap();
            assert_eq!(get().unwrap().permitted & !mask(&[Capability::NetAdmin]), 0);
        });
        outcome.join().unwrap();
    }
}
