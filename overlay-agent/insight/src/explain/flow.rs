//! The flow of a frame, read from its first bytes.

use std::{fmt, net::IpAddr, str::FromStr};

use overlay_control::{
    capture::Seen,
    explain::{Action, Header},
};
use overlay_core::model::Name;
use overlay_node::probe::PORT;
use serde::Serialize;

use super::headers;

/// The flow that a packet belongs to, as far as its first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
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
pub struct Flows {
    /// The innermost one.
    pub inner: Option<Flow>,
    /// The tunnel's, for what came by one,
    pub outer: Option<Flow>,
    /// with its VNI.
    pub vni: Option<u32>,
    /// Of an ICMP error: what it is about.
    pub(crate) quoted: Option<Flow>,
}

impl Flows {
    /// Reads a frame from its Ethernet header on; of what is cut off, as much as is there. `ports`
    /// are the networks' UDP ports.
    pub fn of(frame: &[u8], ports: &[u16]) -> Self {
        let headers = headers::with_ports(frame, ports);
        let Some(tunnel) = headers.iter().position(|header| header.name == "VXLAN") else {
            return Self {
                inner: flow(&headers),
                outer: None,
                vni: None,
                quoted: quoted(frame, ports),
            };
        };
        Self {
            inner: flow(&headers[tunnel + 1..]),
            outer: flow(&headers[..tunnel]),
            vni: parsed(&headers[tunnel], "vni"),
            quoted: quoted(frame, ports),
        }
    }

    /// Whether it is a probe of an agent's, the answer to one, or the refusal of who has no agent.
    pub fn are_probes(&self) -> bool {
        self.quoted
            .as_ref()
            .or(self.inner.as_ref())
            .is_some_and(|flow| {
                flow.protocol == "udp"
                    && flow.source_port == Some(PORT)
                    && flow.destination_port == Some(PORT)
            })
    }
}

/// The flow that the innermost packet is about, if it is an ICMP error.
fn quoted(frame: &[u8], ports: &[u16]) -> Option<Flow> {
    flow(&headers::of_packet(headers::quoted(frame, ports)?))
}

fn flow(headers: &[Header]) -> Option<Flow> {
    let any = |names: &[&str]| headers.iter().find(|header| names.contains(&&*header.name));
    let nothing = Flow {
        source: None,
        destination: None,
        protocol: String::new(),
        source_port: None,
        destination_port: None,
    };
    if let Some(ip) = any(&["IPv4", "IPv6"]) {
        let transport = any(&["UDP", "TCP", "ICMP", "ICMPv6"]);
        let number = ip.field("protocol").or_else(|| ip.field("next header"));
        let port = |name| parsed(transport?, name);
        return Some(Flow {
            source: parsed(ip, "source"),
            destination: parsed(ip, "destination"),
            protocol: match transport {
                Some(transport) => transport.name.to_lowercase(),
                None => named(number.unwrap_or_default()).to_owned(),
            },
            source_port: port("source port"),
            destination_port: port("destination port"),
        });
    }
    if let Some(arp) = any(&["ARP"]) {
        return Some(Flow {
            source: parsed(arp, "sender"),
            destination: parsed(arp, "target"),
            protocol: "arp".to_owned(),
            ..nothing
        });
    }
    Some(Flow {
        protocol: any(&["Ethernet"])?.field("type")?.to_owned(),
        ..nothing
    })
}

fn parsed<T: FromStr>(header: &Header, field: &str) -> Option<T> {
    header.field(field)?.parse().ok()
}

/// The name of a protocol whose header is not all there.
fn named(number: &str) -> &str {
    match number {
        "1" => "icmp",
        "6" => "tcp",
        "17" => "udp",
        "58" => "icmpv6",
        other => other,
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

/// The word for what became of a packet.
pub const fn verdict(action: Action) -> &'static str {
    match action {
        Action::Forwarded => "forwarded",
        Action::Passed => "passed",
        Action::Dropped => "dropped",
    }
}

/// A packet's outcome in a line: of `monitor`, and of the agent's log.
pub fn line(seen: &Seen, flows: &Flows) -> String {
    let mut line = verdict(seen.action).to_owned();
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            line.push_str(name);
            line.push_str(value);
        }
    };
    add(" ", seen.reason.as_deref());
    add("  endpoint ", seen.endpoint.as_ref().map(Name::as_str));
    add("  peer ", seen.peer.as_ref().map(Name::as_str));
    add("  ", Some(&flows.to_string()));
    add("  bytes ", Some(&seen.before.length.to_string()));
    add("  at ", Some(&format!("{} {}", seen.program, seen.device)));
    line
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
        let flows = Flows::of(&inner, &[]);
        assert_eq!(flows.to_string(), "udp 10.0.1.1:1000 → 10.0.2.1:9");
        assert_eq!((&flows.outer, flows.vni), (&None, None));
        let tunnelled = [&[8, 0, 0, 0, 0, 0x12, 0x34, 0][..], &inner].concat();
        let outer = udp([192, 0, 2, 1], [192, 0, 2, 2], [49152, 4789], &tunnelled);
        assert_eq!(
            Flows::of(&outer, &[]).to_string(),
            "udp 10.0.1.1:1000 → 10.0.2.1:9 (VNI 4660, udp 192.0.2.1:49152 → 192.0.2.2:4789)"
        );
        let outer = udp([192, 0, 2, 1], [192, 0, 2, 2], [49152, 5000], &tunnelled);
        assert_eq!(Flows::of(&outer, &[]).vni, None);
        assert_eq!(Flows::of(&outer, &[5000]).vni, Some(4660));
    }

    #[test]
    fn a_refused_probe_is_one() {
        let refused = |port: u16, kind: u8| {
            let probe = udp([10, 0, 1, 1], [10, 0, 2, 1], [port; 2], b"");
            let mut icmp = udp([10, 0, 2, 1], [10, 0, 1, 1], [0; 2], &probe[14..]);
            (icmp[23], icmp[34], icmp[35]) = (1, kind, 3);
            icmp
        };
        for (frame, is) in [
            (refused(super::PORT, 3), true),
            (refused(super::PORT - 1, 3), false),
            // What an echo carries is about nothing.
            (refused(super::PORT, 8), false),
        ] {
            let outer = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &frame].concat();
            let outer = udp([192, 0, 2, 1], [192, 0, 2, 2], [49152, 4789], &outer);
            assert_eq!(Flows::of(&frame, &[]).are_probes(), is);
            assert_eq!(Flows::of(&outer, &[]).are_probes(), is);
            assert!(!Flows::of(&frame[..50], &[]).are_probes());
        }
    }

    #[test]
    fn of_what_is_cut_off_as_much_is_told_as_is_there() {
        assert_eq!(Flows::of(&[], &[]).to_string(), "unreadable");
        let whole = udp([10, 0, 1, 1], [10, 0, 2, 1], [1000, 9], b"");
        let cut = Flows::of(&whole[..36], &[]);
        assert_eq!(cut.to_string(), "udp 10.0.1.1 → 10.0.2.1");
        let lldp = [&MACS[..], &[0x88, 0xcc, 0, 0]].concat();
        assert_eq!(Flows::of(&lldp, &[]).to_string(), "ethertype 0x88cc");
    }
}
