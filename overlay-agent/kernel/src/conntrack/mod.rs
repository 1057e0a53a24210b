//! Connections that the kernel tracks, by ctnetlink: those whose addresses it translates, and TCP
//! that has passed by.

mod window;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    KernelError, Result,
    dump::{attribute, each, encode},
    ipvs, sysctl,
};

pub use window::loosen;

/// How many connections there are; no file without connection tracking.
const COUNT: &str = "net/netfilter/nf_conntrack_count";

/// `NFNL_SUBSYS_CTNETLINK << 8`, with `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET`.
const SET: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
/// `sizeof(struct nfgenmsg)`, which is 0 for all families.
const FAMILY: usize = 4;

// Attributes of `linux/netfilter/nfnetlink_conntrack.h`: `CTA_…`,
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const STATUS_MASK: u16 = 26;
/// `CTA_TUPLE_…` in those of a direction,
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
/// and `CTA_IP_…` and `CTA_PROTO_…` in these.
const SOURCE_V4: u16 = 1;
const DESTINATION_V4: u16 = 2;
const SOURCE_V6: u16 = 3;
const DESTINATION_V6: u16 = 4;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const IDENTIFIERS: [u16; 2] = [4, 7];

/// `IPS_SRC_NAT` and `IPS_DST_NAT`.
const SOURCE_NAT: u32 = 1 << 4;
const DESTINATION_NAT: u32 = 1 << 5;

/// What packets of one direction have when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// From where,
    pub source: IpAddr,
    /// and for whom.
    pub destination: IpAddr,
    /// The port of each, in network order; of an ICMP echo, its identifier twice.
    pub ports_be: [[u8; 2]; 2],
    /// IP protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// What packets of the other direction have when they leave, and the other way round.
    fn turned(self) -> Self {
        let [source, destination] = self.ports_be;
        Self {
            source: self.destination,
            destination: self.source,
            ports_be: [destination, source],
            ..self
        }
    }
}

/// Tells how packets of each translated connection of the calling thread's namespace leave the
/// kernel, where they leave as what they had not come as, be it by rules or by IPVS. What comes or goes
/// meanwhile may be missing.
///
/// It takes a second for some hundred thousand of them.
pub fn translated(mut tell: impl FnMut(Tuple)) -> Result<()> {
    // Older kernels list all that there is for each.
    let kinds = [
        (SOURCE_NAT, SOURCE_NAT),
        (DESTINATION_NAT, SOURCE_NAT | DESTINATION_NAT),
    ];
    for kind in kinds {
        list(kind, |_, body| {
            for tuple in leaving(body).into_iter().flatten() {
                tell(tuple);
            }
        })?;
    }
    ipvs::connections(tell)
}

/// Tells the connections whose status is this under a mask, each with its address family and its
/// attributes.
fn list((status, mask): (u32, u32), mut tell: impl FnMut(u8, &[u8])) -> Result<()> {
    if sysctl::read(COUNT)?.is_none_or(|count| count == "0") {
        // To ask would load modules that nobody needs.
        return Ok(());
    }
    let mut ask = || -> io::Result<()> {
        let mut request = vec![0; FAMILY];
        encode(&mut request, (STATUS, &status.to_be_bytes()))?;
        encode(&mut request, (STATUS_MASK, &mask.to_be_bytes()))?;
        each(NETLINK_NETFILTER, GET, &request, |body| {
            let Some((family, body)) = body.split_first_chunk::<FAMILY>() else {
                return;
            };
            let known = number(attribute(body, STATUS)).unwrap_or_default();
            if known & mask == status {
                tell(family[0], body);
            }
        })
        .map(drop)
    };
    ask().map_err(|error| {
        let error = KernelError::io("list the connections that the kernel tracks", &error);
        error.with_cure("use a kernel with CONFIG_NF_CT_NETLINK")
    })
}

/// How packets of both directions leave; `None` where that is as they came.
fn leaving(body: &[u8]) -> Option<[Tuple; 2]> {
    let [original, reply] = [ORIGINAL, REPLY].map(|kind| tuple(attribute(body, kind)?));
    let (original, reply) = (original?, reply?);
    (original != reply.turned()).then(|| [reply.turned(), original.turned()])
}

fn tuple(body: &[u8]) -> Option<Tuple> {
    let (addresses, protocol) = (attribute(body, ADDRESSES)?, attribute(body, PROTOCOL)?);
    let either = |[v4, v6]: [u16; 2]| -> Option<IpAddr> {
        if let Some(bytes) = attribute(addresses, v4) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        let bytes = attribute(addresses, v6)?;
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
    };
    let port = |kind| attribute(protocol, kind)?.try_into().ok();
    let identifier = IDENTIFIERS.into_iter().find_map(port);
    let [source, destination] = [SOURCE_PORT, DESTINATION_PORT].map(port);
    Some(Tuple {
        source: either([SOURCE_V4, SOURCE_V6])?,
        destination: either([DESTINATION_V4, DESTINATION_V6])?,
        ports_be: [source, destination].map(|port| port.or(identifier).unwrap_or_default()),
        protocol: *attribute(protocol, NUMBER)?.first()?,
    })
}

fn number(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(bytes?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Attribute;

    fn nested(kind: u16, attributes: &[Attribute<'_>]) -> Vec<u8> {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        for attribute in attributes {
            encode(&mut inner, *attribute).unwrap();
        }
        encode(&mut outer, (kind | 0x8000, &inner)).unwrap();
        outer
    }

    /// A direction as Linux 6.18 lists it.
    fn direction(kind: u16, source: [u8; 4], destination: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
        let addresses = [(SOURCE_V4, &source[..]), (DESTINATION_V4, &destination[..])];
        let ports = ports.map(u16::to_be_bytes);
        let protocol = [
            (NUMBER, &[17][..]),
            (SOURCE_PORT, &ports[0][..]),
            (DESTINATION_PORT, &ports[1][..]),
        ];
        let inner = [nested(ADDRESSES, &addresses), nested(PROTOCOL, &protocol)].concat();
        let mut outer = Vec::new();
        encode(&mut outer, (kind | 0x8000, &inner)).unwrap();
        outer
    }

    const CLIENT: [u8; 4] = [10, 244, 1, 2];
    const SERVICE: [u8; 4] = [10, 96, 0, 1];
    const BACKEND: [u8; 4] = [10, 244, 2, 2];

    #[test]
    fn what_is_translated_leaves_as_something_else() {
        let body = [
            direction(ORIGINAL, CLIENT, SERVICE, [4000, 80]),
            direction(REPLY, BACKEND, CLIENT, [8080, 4000]),
        ]
        .concat();
        let [forth, back] = leaving(&body).unwrap();
        assert_eq!(forth.source, IpAddr::from(CLIENT));
        assert_eq!(forth.destination, IpAddr::from(BACKEND));
        assert_eq!(forth.ports_be, [4000, 8080].map(u16::to_be_bytes));
        assert_eq!(back.source, IpAddr::from(SERVICE));
        assert_eq!(back.destination, IpAddr::from(CLIENT));
        assert_eq!(back.ports_be, [80, 4000].map(u16::to_be_bytes));
    }

    #[test]
    fn what_stays_as_it_is_and_what_is_cut_off_is_left_out() {
        let original = direction(ORIGINAL, CLIENT, BACKEND, [4000, 80]);
        let plain = [
            original.clone(),
            direction(REPLY, BACKEND, CLIENT, [80, 4000]),
        ]
        .concat();
        assert_eq!(leaving(&plain), None);
        for length in 0..plain.len() {
            assert_eq!(leaving(&plain[..length]), None, "{length}");
        }
    }

    #[test]
    fn an_echo_has_its_identifier_twice() {
        let addresses = [(SOURCE_V4, &CLIENT[..]), (DESTINATION_V4, &SERVICE[..])];
        let protocol = [(NUMBER, &[1][..]), (IDENTIFIERS[0], &[7, 9][..])];
        let body = [nested(ADDRESSES, &addresses), nested(PROTOCOL, &protocol)].concat();
        assert_eq!(tuple(&body).unwrap().ports_be, [[7, 9]; 2]);
    }
}
