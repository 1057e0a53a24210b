//! Frames to and from a device, byte by byte, past the kernel's own stack.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    libc,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    frames::Mac,
    netns, run,
    script::words,
};

/// Everything, sent and received (`linux/if_ether.h`).
const ETH_P_ALL: u16 = 0x0003;

/// A packet socket on a device of a namespace.
#[derive(Debug)]
pub struct Socket {
    file: File,
    name: String,
}

impl Socket {
    /// Opens a device; from now on it holds what passes there.
    pub fn open(namespace: &str, device: &str) -> Result<Self> {
        let name = format!("{device} of {namespace}");
        let file = netns::inside(namespace, || bound(device))?
            .map_err(Error::file("open a packet socket on", &name))?;
        Ok(Self { file, name })
    }

    /// Makes a device without Ethernet headers in a namespace, which is gone with this: what is
    /// sent here, bare IP packets, arrives there.
    pub fn tun(namespace: &str, device: &str) -> Result<Self> {
        let name = format!("{device} of {namespace}");
        let file = netns::inside(namespace, || tun(device))?
            .map_err(Error::file("make a TUN device", &name))?;
        Ok(Self { file, name })
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        (&self.file)
            .write_all(frame)
            .map_err(Error::file("send a frame to", &self.name))
    }

    /// The next frame that passes the device and is asked for, within a time.
    pub fn receive(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.is_readable(left)? {
                return Ok(None);
            }
            let length = (&self.file)
                .read(&mut buffer)
                .map_err(Error::file("receive a frame from", &self.name))?;
            if wanted(&buffer[..length]) {
                return Ok(Some(buffer[..length].to_vec()));
            }
        }
    }

    fn is_readable(&self, within: Duration) -> Result<bool> {
        use std::os::fd::AsFd as _;
        let milliseconds = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
        let mut waiting = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut waiting, PollTimeout::from(milliseconds))
            .map_err(|errno| Error::file("wait for a frame from", &self.name)(errno.into()))?;
        Ok(ready > 0)
    }
}

/// The MAC of a namespace's device.
pub fn mac_of(namespace: &str, device: &str) -> Result<Mac> {
    let argv = words(format!("ip -n {namespace} -json link show dev {device}"));
    mac_in(&argv, "address")
}

/// The MAC of a neighbour, as a namespace's stack knows it.
pub fn neighbour_of(namespace: &str, address: IpAddr) -> Result<Mac> {
    let argv = words(format!("ip -n {namespace} -json neigh show to {address}"));
    mac_in(&argv, "lladdr")
}

/// A MAC in the first object that a command prints.
fn mac_in(argv: &[String], field: &str) -> Result<Mac> {
    let text = run::checked(argv)?;
    let not_understood =
        || Error::output(argv.join(" "), format!("no MAC called {field} in {text:?}"));
    let objects: Value = serde_json::from_str(&text).map_err(|_| not_understood())?;
    let mac = objects[0][field].as_str().unwrap_or_default();
    let bytes: Vec<u8> = mac
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes.try_into().map_err(|_| not_understood())
}

/// A TUN device of this thread's namespace.
fn tun(device: &str) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?,
        },
    };
    // The last byte stays zero.
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (place, byte) in places.zip(device.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: the descriptor is open, and the request is an initialised `ifreq`, which the kernel
    // reads and writes back, and which lives for the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A packet socket on a device of this thread's namespace.
fn bound(device: &str) -> io::Result<File> {
    let index = if_nametoindex(device)?;
    let protocol = ETH_P_ALL.to_be();
    // SAFETY: takes numbers alone.
    let descriptor = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(protocol),
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the address is an initialised `sockaddr_ll` of the length that is told, and
    // lives for the call, which copies it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}
