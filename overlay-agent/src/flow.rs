//! Who sends what to whom, out of the first bytes of a frame.

use std::{fmt, net::IpAddr};

use etherparse::{LaxPacketHeaders, LinkHeader, NetHeaders, TransportHeader};
use serde::Serialize;

/// Bytes of a VXLAN header (RFC 7348 §5).
const VXLAN: usize = 8;
/// The ports of VXLAN: 4789 (RFC 7348 §5), and the Linux kernel's own.
const PORTS: [u16; 2] = [4789, 8472];

/// The flow that a packet belongs to, as far as its first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Flow {
    /// The sender's address; `None` for what is neither IP nor ARP.
    pub(crate) source: Option<IpAddr>,
    /// The receiver's; of ARP the one that is asked for.
    pub(crate) destination: Option<IpAddr>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or the number of the IP protocol or of what Ethernet carries.
    pub(crate) protocol: String,
    /// Of TCP and UDP, unless it is a later fragment.
    pub(crate) source_port: Option<u16>,
    /// Of TCP and UDP, unless it is a later fragment.
    pub(crate) destination_port: Option<u16>,
}

/// A frame's flow, and what it was in the tunnel with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flows {
    /// The innermost one.
    pub(crate) inner: Option<Flow>,
    /// The tunnel's, for what came by one,
    pub(crate) outer: Option<Flow>,
    /// with its VNI.
    pub(crate) vni: Option<u32>,
}

impl Flows {
    /// Reads a frame from its Ethernet header on; of what is cut off, as much as is there.
    pub(crate) fn of(frame: &[u8]) -> Self {
        let nothing = Self {
            inner: None,
            outer: None,
            vni: None,
        };
        let Ok(packet) = LaxPacketHeaders::from_ethernet(frame) else {
            return nothing;
        };
        let flow = flow(&packet);
        let to_tunnel = |flow: &&Flow| {
            flow.protocol == "udp"
                && flow
                    .destination_port
                    .is_some_and(|port| PORTS.contains(&port))
        };
        let tunnel = flow.as_ref().filter(to_tunnel).and_then(|_| {
            let payload = packet.payload.slice();
            payload.split_first_chunk::<VXLAN>()
        });
        let Some(([.., a, b, c, _], inner)) = tunnel else {
            return Self {
                inner: flow,
                ..nothing
            };
        };
        let inner = LaxPacketHeaders::from_ethernet(inner).ok();
        Self {
            inner: inner.as_ref().and_then(self::flow),
            outer: flow,
            vni: Some(u32::from_be_bytes([0, *a, *b, *c])),
        }
    }
}

fn flow(packet: &LaxPacketHeaders<'_>) -> Option<Flow> {
    let (source, destination, number) = match &packet.net {
        Some(NetHeaders::Ipv4(ip, _)) => (
            Some(IpAddr::from(ip.source)),
            Some(IpAddr::from(ip.destination)),
            ip.protocol.0.to_string(),
        ),
        Some(NetHeaders::Ipv6(ip, _)) => (
            Some(IpAddr::from(ip.source)),
            Some(IpAddr::from(ip.destination)),
            ip.next_header.0.to_string(),
        ),
        Some(NetHeaders::Arp(arp)) => {
            let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
            (
                address(arp.sender_protocol_addr()),
                address(arp.target_protocol_addr()),
                "arp".to_owned(),
            )
        }
        None => match &packet.link {
            Some(LinkHeader::Ethernet2(link)) => {
                (None, None, format!("{:#06x}", link.ether_type.0))
            }
            _ => return None,
        },
    };
    let (protocol, source_port, destination_port) = match &packet.transport {
        Some(TransportHeader::Udp(udp)) => (
            "udp".to_owned(),
            Some(udp.source_port),
            Some(udp.destination_port),
        ),
        Some(TransportHeader::Tcp(tcp)) => (
            "tcp".to_owned(),
            Some(tcp.source_port),
            Some(tcp.destination_port),
        ),
        Some(TransportHeader::Icmpv4(_)) => ("icmp".to_owned(), None, None),
        Some(TransportHeader::Icmpv6(_)) => ("icmpv6".to_owned(), None, None),
        Some(_) | None => (named(number), None, None),
    };
    Some(Flow {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
    })
}

/// The name of a protocol whose header is not all there.
fn named(number: String) -> String {
    match &*number {
        "1" => "icmp".to_owned(),
        "6" => "tcp".to_owned(),
        "17" => "udp".to_owned(),
        "58" => "icmpv6".to_owned(),
        _ => number,
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address.to_string(),
            (None, _) => "?".to_owned(),
        };
        if self.source.is_none() && self.destination.is_none() {
            return write!(f, "ethertype {}", self.protocol);
        }
        write!(
            f,
            "{} {} → {}",
            self.protocol,
            end(self.source, self.source_port),
            end(self.destination, self.destination_port)
        )
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Some(flow) => write!(f, "{flow}")?,
            None => f.write_str("unreadable")?,
        }
        if let (Some(outer), Some(vni)) = (&self.outer, self.vni) {
            write!(f, " (VNI {vni}, {outer})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Flows;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn udp(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len() + 8).unwrap();
        let ports = ports.map(u16::to_be_bytes).concat();
        [
            &MACS[..],
            &[
                0x08,
                0x00,
                0x45,
                0,
                0,
                length + 20,
                0,
                0,
                0,
                0,
                64,
                17,
                0,
                0,
            ],
            &source,
            &destination,
            &ports,
            &[0, length, 0, 0],
            payload,
        ]
        .concat()
    }

    #[test]
    fn a_flow_is_read_inside_and_outside_a_tunnel() {
        let inner = udp([10, 0, 1, 1], [10, 0, 2, 1], [1000, 9], b"x");
        let flows = Flows::of(&inner);
        assert_eq!(flows.to_string(), "udp 10.0.1.1:1000 → 10.0.2.1:9");
        assert_eq!((&flows.outer, flows.vni), (&None, None));
        let tunnelled = [&[8, 0, 0, 0, 0, 0x12, 0x34, 0][..], &inner].concat();
        let outer = udp([192, 0, 2, 1], [192, 0, 2, 2], [49152, 4789], &tunnelled);
        assert_eq!(
            Flows::of(&outer).to_string(),
            "udp 10.0.1.1:1000 → 10.0.2.1:9 (VNI 4660, udp 192.0.2.1:49152 → 192.0.2.2:4789)"
        );
    }

    #[test]
    fn of_what_is_cut_off_as_much_is_told_as_is_there() {
        assert_eq!(Flows::of(&[]).to_string(), "unreadable");
        let whole = udp([10, 0, 1, 1], [10, 0, 2, 1], [1000, 9], b"");
        let cut = Flows::of(&whole[..36]);
        assert_eq!(cut.to_string(), "udp 10.0.1.1 → 10.0.2.1");
        let lldp = [&MACS[..], &[0x88, 0xcc, 0, 0]].concat();
        assert_eq!(Flows::of(&lldp).to_string(), "ethertype 0x88cc");
    }
}
