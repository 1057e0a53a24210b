//! Which addresses a rule is about alone, as far as its first comparisons say so.
//!
//! A rule is a row of expressions that a packet has to pass one after the other. One that loads a
//! source or destination address and compares it with a value lets nobody else pass, whatever
//! follows.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::dump::{BRIDGE, INET, NETDEV, attribute, attributes, name};

/// `NFTA_RULE_…` of `linux/netfilter/nf_tables.h`.
pub(super) const CHAIN: u16 = 2;
pub(super) const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_…`
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_META_DREG`, `NFTA_PAYLOAD_DREG`, `NFTA_CT_DREG`
const INTO: u16 = 1;
/// `NFTA_LOOKUP_DREG`
const OF_MAP: u16 = 3;
/// `NFTA_PAYLOAD_…`
const BASE: u16 = 2;
const OFFSET: u16 = 3;
const LENGTH: u16 = 4;
/// `NFTA_META_KEY`, `NFT_META_PROTOCOL`, `NFT_META_NFPROTO`
const KEY: u16 = 2;
const PROTOCOL: u32 = 1;
const NFPROTO: u32 = 15;
/// `NFTA_CMP_…`, of which 0 (`NFT_CMP_EQ`) is equality.
const OPERATION: u16 = 2;
const COMPARED: u16 = 3;
/// `NFTA_BITWISE_…`
const MASK: u16 = 4;
const XOR: u16 = 5;
/// `NFTA_DATA_VALUE`
const VALUE: u16 = 1;
/// `NFT_PAYLOAD_NETWORK_HEADER`
const NETWORK_HEADER: u32 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `ETH_P_IP`, `ETH_P_IPV6`
const ETHERTYPES: [([u8; 2], u8); 2] = [([8, 0], IPV4), ([0x86, 0xdd], IPV6)];

/// Prefixes: each is around the source or the destination of whatever a rule is about.
pub type Limits = Vec<IpNet>;

/// The family of a table, as `nft` calls it.
pub(super) fn family(number: u8) -> Option<&'static str> {
    let known = [
        (IPV4, "ip"),
        (IPV6, "ip6"),
        (INET, "inet"),
        (BRIDGE, "bridge"),
        (NETDEV, "netdev"),
        (3, "arp"),
    ];
    known
        .iter()
        .find_map(|(known, name)| (*known == number).then_some(*name))
}

/// What the expression before has loaded.
#[derive(Clone, Debug)]
enum Loaded {
    Nothing,
    /// Which protocol of the network layer a packet is of.
    Family,
    /// So many bytes of an address's beginning, and those bits of them.
    Address {
        family: u8,
        length: usize,
        mask: Vec<u8>,
    },
}

/// The addresses that a rule with these expressions is about alone, in a table of a family.
pub(super) fn of(family: &str, expressions: &[u8]) -> Limits {
    let mut limits = Limits::new();
    // The family of what passes so far.
    let mut passes = match family {
        "ip" => Some(IPV4),
        "ip6" => Some(IPV6),
        _ => None,
    };
    let mut loaded = Loaded::Nothing;
    for (_, expression) in attributes(expressions) {
        let data = attribute(expression, DATA).unwrap_or_default();
        let kind = name(expression, NAME);
        // Whoever has got so far is concerned.
        if !kind.is_some_and(|kind| only_looks(kind, data)) {
            break;
        }
        loaded = match kind {
            Some("meta") if matches!(number(data, KEY), Some(PROTOCOL | NFPROTO)) => Loaded::Family,
            Some("payload") => address(data, passes),
            Some("bitwise") => masked(loaded, data),
            Some("cmp") => {
                let value = attribute(data, COMPARED).and_then(|data| attribute(data, VALUE));
                if number(data, OPERATION) == Some(0)
                    && let Some(value) = value
                {
                    match loaded {
                        Loaded::Family => passes = family_of(value),
                        Loaded::Address {
                            family,
                            length,
                            mask,
                        } => limits.extend(prefix(family, length, &mask, value)),
                        Loaded::Nothing => {}
                    }
                }
                Loaded::Nothing
            }
            _ => Loaded::Nothing,
        };
    }
    limits
}

/// Whether an expression decides at most whether the next one is asked.
fn only_looks(kind: &str, data: &[u8]) -> bool {
    match kind {
        // Those that load into a register could write from one, too.
        "meta" | "payload" | "ct" => attribute(data, INTO).is_some(),
        "cmp" | "bitwise" | "range" | "match" | "counter" | "byteorder" => true,
        // Of a map: a verdict, or what is to be set.
        "lookup" => attribute(data, OF_MAP).is_none(),
        _ => false,
    }
}

/// A number of 4 bytes in network order.
fn number(data: &[u8], wanted: u16) -> Option<u32> {
    let bytes = attribute(data, wanted)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn family_of(value: &[u8]) -> Option<u8> {
    match value {
        [number] => Some(*number),
        _ => ETHERTYPES
            .iter()
            .find_map(|(ethertype, family)| (ethertype == value).then_some(*family)),
    }
}

/// Of a packet of this family, which part of which address is loaded.
fn address(data: &[u8], family: Option<u8>) -> Loaded {
    let load = || {
        let family = family?;
        if number(data, BASE)? != NETWORK_HEADER {
            return None;
        }
        let (starts, most) = match family {
            IPV4 => ([12, 16], 4),
            IPV6 => ([8, 24], 16),
            _ => return None,
        };
        let length = number(data, LENGTH)?;
        let is_one = starts.contains(&number(data, OFFSET)?) && (1..=most).contains(&length);
        let length = usize::try_from(length).ok().filter(|_| is_one)?;
        Some(Loaded::Address {
            family,
            length,
            mask: vec![0xff; length],
        })
    };
    load().unwrap_or(Loaded::Nothing)
}

fn masked(loaded: Loaded, data: &[u8]) -> Loaded {
    let value = |wanted| attribute(data, wanted).and_then(|data| attribute(data, VALUE));
    match (loaded, value(MASK), value(XOR)) {
        (Loaded::Address { family, length, .. }, Some(mask), Some(xor))
            if mask.len() == length && xor.iter().all(|byte| *byte == 0) =>
        {
            Loaded::Address {
                family,
                length,
                mask: mask.to_vec(),
            }
        }
        _ => Loaded::Nothing,
    }
}

/// `None` where the bits that are compared are not the first ones.
fn prefix(family: u8, length: usize, mask: &[u8], value: &[u8]) -> Option<IpNet> {
    if value.len() != length || mask.len() != length {
        return None;
    }
    let bits = |bytes: &[u8]| -> Option<u128> {
        let mut all = [0; 16];
        all.get_mut(..length)?.copy_from_slice(bytes);
        Some(u128::from_be_bytes(all))
    };
    let mask = bits(mask)?;
    let ones = mask.leading_ones();
    if mask.count_ones() != ones {
        return None;
    }
    let address = bits(value)? & mask;
    let ones = u8::try_from(ones).ok()?;
    match family {
        IPV4 => {
            let address = u32::try_from(address >> 96).ok()?;
            Some(Ipv4Net::new(Ipv4Addr::from(address), ones).ok()?.into())
        }
        _ => Some(Ipv6Net::new(Ipv6Addr::from(address), ones).ok()?.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::dump::tests::all;

    fn expression(kind: &str, data: &[(u16, &[u8])]) -> Vec<u8> {
        let kind = [kind.as_bytes(), &[0]].concat();
        all(&[(NAME, &kind), (DATA, &all(data))])
    }

    fn meta(key: u32) -> Vec<u8> {
        expression("meta", &[(INTO, &[0, 0, 0, 1]), (KEY, &key.to_be_bytes())])
    }

    fn load(offset: u32, length: u32) -> Vec<u8> {
        let numbers = [NETWORK_HEADER, offset, length].map(u32::to_be_bytes);
        let [base, offset, length] = &numbers;
        expression(
            "payload",
            &[
                (INTO, &[0, 0, 0, 1]),
                (BASE, base),
                (OFFSET, offset),
                (LENGTH, length),
            ],
        )
    }

    fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
        let value = all(&[(VALUE, value)]);
        let operation = operation.to_be_bytes();
        expression("cmp", &[(OPERATION, &operation), (COMPARED, &value)])
    }

    fn mask(bytes: &[u8]) -> Vec<u8> {
        let (mask, xor) = (all(&[(VALUE, bytes)]), all(&[(VALUE, &[0; 4])]));
        expression("bitwise", &[(MASK, &mask), (XOR, &xor)])
    }

    fn told(family: &str, expressions: &[Vec<u8>]) -> Vec<String> {
        let listed: Vec<(u16, &[u8])> = expressions.iter().map(|one| (1, &one[..])).collect();
        let limits = of(family, &all(&listed)).into_iter();
        limits.map(|net| net.to_string()).collect()
    }

    #[test]
    fn a_rule_is_about_the_addresses_that_it_compares() {
        let [one, equal] = [[203, 0, 113, 7], [198, 51, 100, 0]];
        assert_eq!(
            told("ip", &[load(12, 4), compare(0, &one)]),
            ["203.0.113.7/32"]
        );
        assert_eq!(
            told("ip", &[load(16, 3), compare(0, &one[..3])]),
            ["203.0.113.0/24"]
        );
        let by_mask = [load(16, 4), mask(&[255, 255, 252, 0]), compare(0, &equal)];
        assert_eq!(told("ip", &by_mask), ["198.51.100.0/22"]);
        let inside = [
            meta(NFPROTO),
            compare(0, &[IPV4]),
            load(12, 4),
            compare(0, &one),
        ];
        assert_eq!(told("inet", &inside), ["203.0.113.7/32"]);
        let at_device = [
            meta(PROTOCOL),
            compare(0, &[8, 0]),
            load(12, 4),
            compare(0, &one),
        ];
        assert_eq!(told("netdev", &at_device), ["203.0.113.7/32"]);
        let address = [0x20, 1, 0xd, 0xb8, 0, 5];
        assert_eq!(
            told("ip6", &[load(24, 6), compare(0, &address)]),
            ["2001:db8:5::/48"]
        );
    }

    #[test]
    fn what_is_not_certain_limits_nobody() {
        let one = [203, 0, 113, 7];
        for (family, expressions) in [
            // All but one; of no known family; ports; bits in the middle.
            ("ip", vec![load(12, 4), compare(1, &one)]),
            ("inet", vec![load(12, 4), compare(0, &one)]),
            ("ip", vec![load(9, 1), compare(0, &[17])]),
            (
                "ip",
                vec![load(12, 4), mask(&[0, 255, 0, 0]), compare(0, &one)],
            ),
            // A mark that everybody gets.
            (
                "ip",
                vec![
                    expression("meta", &[(KEY, &[0, 0, 0, 3])]),
                    load(12, 4),
                    compare(0, &one),
                ],
            ),
            (
                "ip",
                vec![expression("immediate", &[]), load(12, 4), compare(0, &one)],
            ),
        ] {
            assert_eq!(told(family, &expressions), [""; 0], "{expressions:?}");
        }
    }
}
