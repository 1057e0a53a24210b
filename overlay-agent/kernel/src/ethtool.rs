//! Properties of devices: features as `ethtool -k` lists them, and how they spread what they
//! receive, as `ethtool -n … rx-flow-hash` does.

use std::{ffi::CStr, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use overlay_core::model::{Family, IfName};

use super::{KernelError, Result};

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands and the set of strings of `linux/ethtool.h`.
const GET_STRINGS: u32 = 0x1b;
const GET_STRINGS_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const FEATURES: u32 = 4;
const GET_RECEIVE_HASH: u32 = 0x29;
const GET_RECEIVE_RINGS: u32 = 0x2d;
/// `UDP_V4_FLOW`, `UDP_V6_FLOW`: which packets are meant.
const UDP: [(Family, u32); 2] = [(Family::V4, 0x02), (Family::V6, 0x06)];
/// `RXH_L4_B_0_1`, `RXH_L4_B_2_3`: bytes of the source and the destination port.
const PORTS: u32 = 1 << 6 | 1 << 7;
/// Words of `struct ethtool_rxnfc`.
const CLASSIFICATION: usize = 48;
/// Bytes of a string, with its final 0.
const STRING: usize = 32;
/// Bits of a block of features.
const BLOCK: usize = 32;
/// Numbers of a block: what can be changed, what is requested, active, and never changed.
const BLOCK_WORDS: usize = 4;

/// The features of a device of this thread's namespace that are off because somebody has
/// switched them off.
///
/// What is requested and not active waits for something else, such as a checksum of the device
/// below: to ask for it once more changes nothing.
pub fn unused_features(device: IfName) -> Result<Vec<String>> {
    let operation = || format!("list the features of {device}");
    let os = |errno| KernelError::os(operation(), errno);
    let count = count(device).map_err(os)?;
    let names = names(device, count).map_err(os)?;
    let features = features(device, count.div_ceil(BLOCK)).map_err(os)?;
    let is_unused = |bit: usize| {
        let block = features.chunks_exact(BLOCK_WORDS).nth(bit / BLOCK);
        block.is_some_and(|block| block[0] & !block[1] & !block[2] & (1 << (bit % BLOCK)) != 0)
    };
    let unused = names.into_iter().enumerate();
    Ok(unused
        .filter(|(bit, name)| !name.is_empty() && is_unused(*bit))
        .map(|(_, name)| name)
        .collect())
}

/// Whether a device with several receive queues spreads UDP of a family over them by addresses alone, so
/// that everything of a peer comes to one. `None` when it cannot be asked, or has one queue.
pub fn spreads_by_address_alone(device: IfName, family: Family) -> Result<Option<bool>> {
    let asked = |command, flows| match classification(device, command, flows) {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(None),
        Err(errno) => {
            let operation = format!("ask how {device} spreads what it receives");
            Err(KernelError::os(operation, errno))
        }
    };
    let queues = asked(GET_RECEIVE_RINGS, 0)?;
    let flows = UDP.into_iter().find(|(of, _)| *of == family);
    let (Some(2..), Some((_, flows))) = (queues, flows) else {
        return Ok(None);
    };
    let fields = asked(GET_RECEIVE_HASH, flows)?;
    Ok(fields.map(|fields| fields & PORTS == 0))
}

/// The lower half of what the device answers.
fn classification(device: IfName, command: u32, flows: u32) -> nix::Result<u32> {
    let mut words = [0; CLASSIFICATION];
    words[..2].copy_from_slice(&[command, flows]);
    call(device, &mut words)?;
    // A number of 64 bits, which fits 32 in both answers.
    Ok(words[if cfg!(target_endian = "little") { 2 } else { 3 }])
}

/// How many features this kernel knows.
fn count(device: IfName) -> nix::Result<usize> {
    // Command, reserved, mask of sets (64 bits), one count.
    let mut words = [GET_STRINGS_COUNT, 0, 0, 0, 0];
    let mask = (1_u64 << FEATURES).to_ne_bytes();
    for (word, bytes) in words[2..4].iter_mut().zip(mask.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().map_err(|_| Errno::EINVAL)?);
    }
    call(device, &mut words)?;
    Ok(words[4] as usize)
}

fn names(device: IfName, count: usize) -> nix::Result<Vec<String>> {
    let number = u32::try_from(count).map_err(|_| Errno::EINVAL)?;
    let mut words = vec![0; 3 + count * STRING / 4];
    words[..3].copy_from_slice(&[GET_STRINGS, FEATURES, number]);
    call(device, &mut words)?;
    let text: Vec<u8> = words[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let names = text.chunks_exact(STRING).map(|name| {
        let name = CStr::from_bytes_until_nul(name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    });
    Ok(names.collect())
}

/// The blocks, one after the other.
fn features(device: IfName, blocks: usize) -> nix::Result<Vec<u32>> {
    let number = u32::try_from(blocks).map_err(|_| Errno::EINVAL)?;
    let mut words = vec![0; 2 + blocks * BLOCK_WORDS];
    words[..2].copy_from_slice(&[GET_FEATURES, number]);
    call(device, &mut words)?;
    Ok(words.split_off(2))
}

/// `struct ifreq` with a pointer in its union.
#[repr(C)]
struct Request {
    name: [libc::c_char; libc::IFNAMSIZ],
    data: *mut u32,
    rest: [u8; 16],
}

/// Runs a command; `words` begins with it, and has room for as much as it says.
fn call(device: IfName, words: &mut [u32]) -> nix::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: words.as_mut_ptr(),
        rest: [0; 16],
    };
    for (to, from) in request.name.iter_mut().zip(device.as_str().bytes()) {
        // Signed or not, as the processor's C has it.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: `request` is at least as long as `struct ifreq` and laid out like it, with a name
    // that ends with a 0 because device names are shorter. `data` points at a command whose
    // counts (of strings, of blocks, of rules: none) are those that `words` has room for, and the kernel writes
    // no more than they say. Both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use overlay_core::model::Family;

    use super::{count, names, spreads_by_address_alone, unused_features};

    #[test]
    fn the_loopback_device_has_named_features() {
        let lo = "lo".parse().unwrap();
        let count = count(lo).unwrap();
        assert!(count > 30, "{count}");
        let names = names(lo, count).unwrap();
        assert!(names.iter().any(|name| name == "rx-gro"), "{names:?}");
        assert!(unused_features(lo).is_ok());
        for family in Family::ALL {
            assert_eq!(spreads_by_address_alone(lo, family).unwrap(), None);
        }
        let error = unused_features("none0".parse().unwrap()).unwrap_err();
        assert!(error.not_there(), "{error}");
    }
}
