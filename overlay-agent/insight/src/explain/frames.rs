//! Frames as containers and nodes send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpHeaders, IpNumber, Ipv4Header, Ipv6Header,
    PacketBuilder,
};
use overlay_control::explain::Protocol;

/// Bytes of a frame that the kernel takes for a run: a page has to hold it with what the kernel
/// puts around.
const MOST: usize = 3500;
const PING: u16 = 0x6f76;

/// The parameters of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) macs: Macs,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) ports: (u16, u16),
    /// Bytes of the IP packet; as few as can be when left out.
    pub(super) size: Option<u16>,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
}

/// Ethernet addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Macs {
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
}

impl Frame {
    /// Its bytes; in words, why there can be none.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        let ethernet = PacketBuilder::ethernet2(self.macs.source, self.macs.destination);
        let mut bytes = Vec::new();
        let refused = |error: &dyn std::fmt::Display| format!("make such a packet: {error}");
        if self.protocol == Protocol::Arp {
            let builder = ethernet.arp(self.question()?);
            builder.write(&mut bytes).map_err(|error| refused(&error))?;
            return Ok(bytes);
        }
        let ip = ethernet.ip(self.ip()?);
        let written = match (self.protocol, self.destination) {
            (Protocol::Udp, _) => {
                let builder = ip.udp(self.ports.0, self.ports.1);
                let payload = self.payload(builder.size(0))?;
                builder.write(&mut bytes, &payload)
            }
            (Protocol::Tcp, _) => {
                let builder = ip.tcp(self.ports.0, self.ports.1, 1, u16::MAX).syn();
                let payload = self.payload(builder.size(0))?;
                builder.write(&mut bytes, &payload)
            }
            (_, IpAddr::V4(_)) => {
                let builder = ip.icmpv4_echo_request(PING, 1);
                let payload = self.payload(builder.size(0))?;
                builder.write(&mut bytes, &payload)
            }
            (_, IpAddr::V6(_)) => {
                let builder = ip.icmpv6_echo_request(PING, 1);
                let payload = self.payload(builder.size(0))?;
                builder.write(&mut bytes, &payload)
            }
        };
        written.map_err(|error| refused(&error))?;
        Ok(bytes)
    }

    fn ip(&self) -> Result<IpHeaders, String> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header::new(
                    0,
                    self.ttl,
                    IpNumber::UDP,
                    source.octets(),
                    destination.octets(),
                );
                let header = header.map_err(|error| error.to_string())?;
                let header = Ipv4Header {
                    dont_fragment: self.dont_fragment,
                    ..header
                };
                Ok(IpHeaders::Ipv4(
                    header,
                    etherparse::Ipv4Extensions::default(),
                ))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                Ok(IpHeaders::Ipv6(
                    header,
                    etherparse::Ipv6Extensions::default(),
                ))
            }
            (source, destination) => Err(format!(
                "send from {source} to {destination}: they are of two families; choose addresses of one"
            )),
        }
    }

    /// The payload that fills the packet up to its size, behind so many bytes of headers.
    fn payload(&self, headers: usize) -> Result<Vec<u8>, String> {
        const ETHERNET: usize = 14;
        let size = self
            .size
            .map_or(headers, |size| usize::from(size) + ETHERNET);
        let asked = || size.saturating_sub(ETHERNET);
        if size < headers {
            return Err(format!(
                "make a packet of {} bytes: its headers take {}",
                asked(),
                headers - ETHERNET
            ));
        }
        if size > MOST {
            return Err(format!(
                "run a packet of {} bytes: the kernel takes {} at most for a test; larger ones fare the same, once they exceed the MTU",
                asked(),
                MOST - ETHERNET
            ));
        }
        Ok(vec![0; size - headers])
    }

    fn question(&self) -> Result<ArpPacket, String> {
        let (IpAddr::V4(source), IpAddr::V4(target)) = (self.source, self.destination) else {
            return Err(
                "ask for a MAC by ARP: it is for IPv4 alone; choose IPv4 addresses".to_owned(),
            );
        };
        ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &self.macs.source,
            &source.octets(),
            &[0; 6],
            &target.octets(),
        )
        .map_err(|error| error.to_string())
    }
}

/// The MAC of everybody who listens to a group address; `None` for one receiver's.
pub(super) fn group_mac(address: IpAddr) -> Option<[u8; 6]> {
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some([0xff; 6]),
        IpAddr::V4(address) if address.is_multicast() => {
            let [_, a, b, c] = address.octets();
            Some([0x01, 0x00, 0x5e, a & 0x7f, b, c])
        }
        IpAddr::V6(address) if address.is_multicast() => Some(group_mac6(address)),
        _ => None,
    }
}

fn group_mac6(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use overlay_control::explain::Protocol;

    use super::{Frame, Macs, group_mac};
    use crate::explain::headers;

    fn frame(protocol: Protocol, from: &str, to: &str, size: Option<u16>) -> Frame {
        Frame {
            macs: Macs {
                source: [2, 0, 0, 0, 0, 1],
                destination: [2, 0, 0, 0, 0, 2],
            },
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
            protocol,
            ports: (40000, 53),
            size,
            ttl: 7,
            dont_fragment: true,
        }
    }

    #[test]
    fn a_frame_says_what_was_asked_for() {
        for (from, to, ip, ttl) in [
            ("10.0.0.1", "10.0.0.2", "IPv4", "ttl"),
            ("fd00::1", "fd00::2", "IPv6", "hop limit"),
        ] {
            for (protocol, name) in [(Protocol::Udp, "UDP"), (Protocol::Tcp, "TCP")] {
                let bytes = frame(protocol, from, to, Some(600)).bytes().unwrap();
                assert_eq!(bytes.len(), 614);
                let headers = headers::of(&bytes);
                let names: Vec<&str> = headers.iter().map(|header| &*header.name).collect();
                assert_eq!(names, ["Ethernet", ip, name]);
                assert_eq!(headers[1].field("source"), Some(from));
                assert_eq!(headers[1].field("destination"), Some(to));
                assert_eq!(headers[1].field(ttl), Some("7"));
                assert_eq!(headers[2].field("destination port"), Some("53"));
            }
            let ping = frame(Protocol::Icmp, from, to, None).bytes().unwrap();
            assert!(headers::of(&ping)[2].name.starts_with("ICMP"));
        }
        let arp = frame(Protocol::Arp, "10.0.0.1", "10.0.0.2", None);
        let headers = headers::of(&arp.bytes().unwrap());
        assert_eq!(headers[1].field("target"), Some("10.0.0.2"));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (frame, what) in [
            (
                frame(Protocol::Udp, "10.0.0.1", "fd00::1", None),
                "families",
            ),
            (frame(Protocol::Arp, "fd00::2", "fd00::1", None), "ARP"),
            (frame(Protocol::Udp, "10.0.0.1", "10.0.0.2", Some(20)), "28"),
            (
                frame(Protocol::Udp, "10.0.0.1", "10.0.0.2", Some(9000)),
                "9000",
            ),
        ] {
            let error = frame.bytes().unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn groups_have_macs_of_their_own() {
        let mac = |address: &str| group_mac(address.parse().unwrap());
        assert_eq!(mac("255.255.255.255"), Some([0xff; 6]));
        assert_eq!(mac("239.129.2.3"), Some([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(mac("ff02::1"), Some([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(mac("10.0.0.1"), None);
    }
}
