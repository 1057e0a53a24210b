//! Netlink without a runtime, in the calling thread's namespace: for threads that
//! live for one request, and for TC filters beside aya's blocking calls.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::refusal::Refusal;

/// Asks for a change and waits for the kernel's consent.
pub(crate) fn change(message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
    request(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(|_| ())
}

/// Lists what the kernel has.
pub(crate) fn dump(message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
    request(message, NLM_F_REQUEST | NLM_F_DUMP)
}

fn request(message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut request = NetlinkMessage::from(message);
    request.header.flags = flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some(refusal) = Refusal::of(&message) {
                return Err(refusal);
            }
            // Messages are aligned to 4 bytes (`NLMSG_ALIGN`).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                _ => {}
            }
        }
    }
}
