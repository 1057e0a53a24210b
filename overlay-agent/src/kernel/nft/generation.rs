//! The generation of a namespace's tables: a number that each change makes another.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::kernel::{KernelError, Result};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETGEN` of the kernel's headers.
const GET_GENERATION: u16 = 10 << 8 | 16;
const REQUEST: u16 = 1;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;
/// `NFTA_GEN_ID`, a number of 4 bytes in network order.
const ID: u16 = 1;

/// The generation now.
pub(super) fn generation() -> Result<u32> {
    ask().map_err(|error| {
        KernelError::io("ask nftables for its generation", &error)
            .with_cure("use a kernel with nf_tables, or load that module")
    })
}

fn ask() -> io::Result<u32> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADERS);
    request.extend(20_u32.to_ne_bytes());
    request.extend(GET_GENERATION.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.resize(HEADERS, 0);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "an answer without a generation");
    let kind = answer.get(4..6).ok_or_else(unknown)?;
    if kind == 2_u16.to_ne_bytes() {
        // `NLMSG_ERROR`: the number is negative.
        let code: [u8; 4] = answer
            .get(16..20)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(unknown)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    let mut rest = answer.get(HEADERS..).unwrap_or_default();
    while let Some(&[a, b, c, d]) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == ID {
            let value: [u8; 4] = rest
                .get(4..8)
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(unknown)?;
            return Ok(u32::from_be_bytes(value));
        }
        rest = rest
            .get(length.max(4).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Err(unknown())
}
