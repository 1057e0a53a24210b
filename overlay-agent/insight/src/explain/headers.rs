//! A frame in words, down to what is inside a tunnel.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpPacket, Ethernet2Header, Icmpv4Header, Icmpv6Header, Ipv4Header, Ipv6Header,
    LaxPacketHeaders, LinkHeader, NetHeaders, TcpHeader, TransportHeader, UdpHeader,
};
use overlay_control::explain::Header;

/// Bytes of a VXLAN header (RFC 7348 §5).
const VXLAN: usize = 8;
/// Port 4789 and the kernel's own are VXLAN's; others may be a network's.
const PORTS: [u16; 2] = [4789, 8472];

/// The headers of a frame, outermost first; what cannot be read is left out.
pub(super) fn of(frame: &[u8]) -> Vec<Header> {
    with_ports(frame, &[])
}

/// The same where VXLAN has other ports, too.
pub(super) fn with_ports(frame: &[u8], ports: &[u16]) -> Vec<Header> {
    let Ok(packet) = LaxPacketHeaders::from_ethernet(frame) else {
        return Vec::new();
    };
    let mut headers = of_read(&packet);
    if let Some((tunnel, inner)) = tunnel(&packet, ports) {
        headers.push(of_vxlan(*tunnel));
        headers.extend(of(inner));
    }
    headers
}

/// The headers of an IP packet.
pub(super) fn of_packet(packet: &[u8]) -> Vec<Header> {
    LaxPacketHeaders::from_ip(packet).map_or_else(|_| Vec::new(), |packet| of_read(&packet))
}

/// The IP packet that an ICMP error quotes: of a frame, or of the one in its tunnel.
pub(super) fn quoted<'f>(frame: &'f [u8], ports: &[u16]) -> Option<&'f [u8]> {
    let packet = LaxPacketHeaders::from_ethernet(frame).ok()?;
    if let Some((_, inner)) = tunnel(&packet, ports) {
        return quoted(inner, &[]);
    }
    let is_error = match &packet.transport {
        Some(TransportHeader::Icmpv4(icmp)) => {
            let kind = icmp.to_bytes().first().copied();
            // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
            matches!(kind, Some(3..=5 | 11 | 12))
        }
        // Errors are those below 128 (RFC 4443 §2.1).
        Some(TransportHeader::Icmpv6(icmp)) => {
            icmp.to_bytes().first().is_some_and(|kind| *kind < 128)
        }
        _ => false,
    };
    is_error.then(|| packet.payload.slice())
}

/// The VXLAN header of a packet to one of its ports, and what is behind it.
fn tunnel<'f>(packet: &LaxPacketHeaders<'f>, ports: &[u16]) -> Option<(&'f [u8; VXLAN], &'f [u8])> {
    let Some(TransportHeader::Udp(header)) = &packet.transport else {
        return None;
    };
    let port = header.destination_port;
    let is_tunnel = PORTS.contains(&port) || ports.contains(&port);
    is_tunnel.then(|| packet.payload.slice().split_first_chunk())?
}

/// The headers that were read, outermost first, to the end of the outer packet's.
fn of_read(packet: &LaxPacketHeaders<'_>) -> Vec<Header> {
    let mut headers = Vec::new();
    if let Some(LinkHeader::Ethernet2(ethernet)) = &packet.link {
        headers.push(of_ethernet(ethernet));
    }
    match &packet.net {
        Some(NetHeaders::Ipv4(header, _)) => headers.push(of_ipv4(header)),
        Some(NetHeaders::Ipv6(header, _)) => headers.push(of_ipv6(header)),
        Some(NetHeaders::Arp(packet)) => headers.push(of_arp(packet)),
        None => {}
    }
    match &packet.transport {
        Some(TransportHeader::Udp(header)) => headers.push(of_udp(header)),
        Some(TransportHeader::Tcp(header)) => headers.push(of_tcp(header)),
        Some(TransportHeader::Icmpv4(header)) => headers.push(of_icmp(header)),
        Some(TransportHeader::Icmpv6(header)) => headers.push(of_icmpv6(header)),
        Some(_) | None => {}
    }
    headers
}

fn header(name: &str, fields: &[(&str, String)]) -> Header {
    let fields = fields.iter();
    Header {
        name: name.to_owned(),
        fields: fields
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }
}

fn mac(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn of_ethernet(ethernet: &Ethernet2Header) -> Header {
    header(
        "Ethernet",
        &[
            ("source", mac(&ethernet.source)),
            ("destination", mac(&ethernet.destination)),
            ("type", format!("{:#06x}", ethernet.ether_type.0)),
        ],
    )
}

fn of_ipv4(ip: &Ipv4Header) -> Header {
    let mut fields = vec![
        ("source", Ipv4Addr::from(ip.source).to_string()),
        ("destination", Ipv4Addr::from(ip.destination).to_string()),
        ("ttl", ip.time_to_live.to_string()),
        ("protocol", ip.protocol.0.to_string()),
        ("length", ip.total_len.to_string()),
        ("tos", tos(ip.dscp.value() << 2 | ip.ecn.value())),
    ];
    if ip.dont_fragment {
        fields.push(("flags", "DF".to_owned()));
    }
    if ip.more_fragments || ip.fragment_offset.value() != 0 {
        fields.push(("fragment", ip.fragment_offset.value().to_string()));
    }
    header("IPv4", &fields)
}

fn of_ipv6(ip: &Ipv6Header) -> Header {
    header(
        "IPv6",
        &[
            ("source", Ipv6Addr::from(ip.source).to_string()),
            ("destination", Ipv6Addr::from(ip.destination).to_string()),
            ("hop limit", ip.hop_limit.to_string()),
            ("next header", ip.next_header.0.to_string()),
            ("payload", ip.payload_length.to_string()),
            ("class", tos(ip.traffic_class)),
        ],
    )
}

fn tos(value: u8) -> String {
    format!("{value:#04x}")
}

fn of_arp(arp: &ArpPacket) -> Header {
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => Ipv4Addr::from(bytes).to_string(),
        Err(_) => mac(bytes),
    };
    let operation = match arp.operation.0 {
        1 => "request".to_owned(),
        2 => "reply".to_owned(),
        other => other.to_string(),
    };
    header(
        "ARP",
        &[
            ("operation", operation),
            ("sender", address(arp.sender_protocol_addr())),
            ("sender's MAC", mac(arp.sender_hw_addr())),
            ("target", address(arp.target_protocol_addr())),
        ],
    )
}

fn of_udp(udp: &UdpHeader) -> Header {
    header(
        "UDP",
        &[
            ("source port", udp.source_port.to_string()),
            ("destination port", udp.destination_port.to_string()),
            ("length", udp.length.to_string()),
            ("checksum", checksum(udp.checksum)),
        ],
    )
}

fn checksum(checksum: u16) -> String {
    match checksum {
        0 => "none".to_owned(),
        some => format!("{some:#06x}"),
    }
}

fn of_tcp(tcp: &TcpHeader) -> Header {
    let flags = [
        (tcp.syn, "SYN"),
        (tcp.ack, "ACK"),
        (tcp.fin, "FIN"),
        (tcp.rst, "RST"),
        (tcp.psh, "PSH"),
    ];
    let set = flags.iter().filter(|(set, _)| *set);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    header(
        "TCP",
        &[
            ("source port", tcp.source_port.to_string()),
            ("destination port", tcp.destination_port.to_string()),
            ("flags", set.join("+")),
        ],
    )
}

fn of_icmp(icmp: &Icmpv4Header) -> Header {
    let [kind, code, ..] = icmp.to_bytes()[..] else {
        return header("ICMP", &[]);
    };
    header(
        "ICMP",
        &[("type", kind.to_string()), ("code", code.to_string())],
    )
}

fn of_icmpv6(icmp: &Icmpv6Header) -> Header {
    let [kind, code, ..] = icmp.to_bytes()[..] else {
        return header("ICMPv6", &[]);
    };
    header(
        "ICMPv6",
        &[("type", kind.to_string()), ("code", code.to_string())],
    )
}

fn of_vxlan(tunnel: [u8; VXLAN]) -> Header {
    let [flags, a, b, c, vni @ .., d] = tunnel;
    let reserved = [a, b, c, d];
    let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]);
    let mut fields = vec![("vni", vni.to_string()), ("flags", format!("{flags:#04x}"))];
    if reserved != [0; 4] {
        fields.push(("reserved", mac(&reserved)));
    }
    header("VXLAN", &fields)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_tunnel_is_read_to_its_end() {
        let inner = [
            &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00][..],
            &[
                0x45, 0, 0, 28, 0, 0, 0, 0, 63, 1, 0, 0, 10, 0, 1, 1, 10, 0, 2, 1,
            ],
            &[8, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let length = u8::try_from(inner.len() + 16).unwrap();
        let frame = [
            &[2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 3, 0x08, 0x00][..],
            &[0x45, 0, 0, length + 20, 0, 0, 0, 0, 64, 17, 0, 0],
            &[192, 0, 2, 1, 192, 0, 2, 2],
            &[0xc0, 0, 0x12, 0xb5, 0, length, 0, 0],
            &[8, 0, 0, 0, 0, 0x12, 0x34, 0],
            &inner,
        ]
        .concat();
        let headers = of(&frame);
        let names: Vec<&str> = headers.iter().map(|header| &*header.name).collect();
        assert_eq!(
            names,
            [
                "Ethernet", "IPv4", "UDP", "VXLAN", "Ethernet", "IPv4", "ICMP"
            ]
        );
        assert_eq!(headers[1].field("destination"), Some("192.0.2.2"));
        assert_eq!(headers[2].field("checksum"), Some("none"));
        assert_eq!(headers[3].field("vni"), Some("4660"));
        assert_eq!(headers[5].field("ttl"), Some("63"));
        assert_eq!(headers[6].field("type"), Some("8"));
    }

    #[test]
    fn what_is_cut_off_is_read_as_far_as_it_goes() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[0; 14]).len(), 1);
        let mut cut = vec![0; 12];
        cut.extend([0x08, 0x00, 0x45, 0]);
        assert_eq!(of(&cut).len(), 1);
    }
}
