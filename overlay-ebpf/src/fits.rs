//! Is it small enough? Each piece of it, as it will be on the wire.

use network_types::{eth::EthHdr, ip::IpProto, udp::UdpHdr};
use overlay_common::{journal::Step, reasons::PassReason};

use crate::{family::Family, frame::Frame, journal::tell, received::Received};

/// Offset in a TCP header of the byte whose upper half counts the header's words.
const TCP_DATA_OFFSET: usize = 12;

/// The IP packet in the frame that starts at `offset` must not exceed `mtu` bytes; of a GSO
/// packet, none of the segments that it will become.
#[inline(always)]
pub(crate) fn must_fit<F: Family>(
    packet: &impl Received,
    offset: usize,
    frame: &Frame<F>,
    mtu: u16,
) -> Result<(), PassReason> {
    let ip = offset + EthHdr::LEN;
    let mtu = usize::from(mtu);
    if packet.length() <= ip + mtu {
        tell(Step::Fits, [(packet.length() - ip) as u64, mtu as u64]);
        return Ok(());
    }
    let segment = packet.segment_size();
    if segment == 0 {
        return Err(PassReason::TooBig);
    }
    let transport = ip + F::HEADER;
    let headers = match frame.protocol {
        TCP => tcp_header(packet, transport)?,
        UDP => UdpHdr::LEN,
        _ => return Err(PassReason::NotResizable),
    };
    if F::HEADER + headers + segment > mtu {
        return Err(PassReason::TooBig);
    }
    tell(
        Step::Fits,
        [(F::HEADER + headers + segment) as u64, mtu as u64],
    );
    Ok(())
}

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;

fn tcp_header(packet: &impl Received, offset: usize) -> Result<usize, PassReason> {
    let [length] = packet
        .bytes(offset + TCP_DATA_OFFSET)
        .ok_or(PassReason::Malformed)?;
    Ok(usize::from(length >> 4) * 4)
}
