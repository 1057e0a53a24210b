//! UDP: whether a port can be had, sockets of the agent's own, and datagrams that others refuse.

mod port;
pub mod refusals;
mod socket;

use std::os::fd::{AsFd, AsRawFd as _};

use nix::{errno::Errno, libc};
use overlay_core::model::Family;

pub use port::is_busy;
pub use socket::{refused, through};

/// Has nobody cut a socket's packets up, whatever the kernel has learned of their path: only the
/// device's MTU limits what is sent.
fn keep_whole(socket: &impl AsFd, family: Family) -> nix::Result<()> {
    let (level, option, value) = match family {
        Family::V4 => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        Family::V6 => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes at the pointer, which are those of `value`, and
    // keeps none of it; the descriptor is the socket's, which is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}
