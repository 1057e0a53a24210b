//! Subnets: how they are written, and whose they are.

use std::ops;

use ipnet::IpNet;
use toml::Spanned;

use super::{Report, error::Fault, raw};
use crate::model::{Family, Range};

/// A subnet has at least four addresses: its first is nobody's, one is the gateway's, one an
/// endpoint's, and in IPv4 the last is the broadcast address.
const ADDRESS_BITS: u8 = 2;

/// The network's ranges from its `cidr` and `subnet`: one of each family at most, and of the
/// same families.
pub(super) fn ranges(raw: &raw::Network, field: &str, report: &mut Report<'_>) -> Vec<Range> {
    let cidrs = one_of_each(&raw.cidr, &format!("{field}.cidr"), report);
    let field = format!("{field}.subnet");
    let subnets = one_of_each(&raw.subnet, &field, report);
    let mut ranges = Vec::new();
    for family in Family::ALL {
        let of_family = |nets: &[IpNet]| nets.iter().copied().find(|net| is(*net, family));
        if let Some(cidr) = of_family(&cidrs)
            && let Some((others, what)) = nobodys(cidr)
        {
            let fault = Fault::Nobodys { cidr, others, what };
            report.add(
                raw.cidr.span(),
                format!("{}.cidr", field.trim_end_matches(".subnet")),
                fault,
            );
        }
        match (of_family(&cidrs), of_family(&subnets)) {
            (Some(cidr), Some(subnet)) => {
                if !cidr.contains(&subnet) {
                    report.add(raw.subnet.span(), &field, Fault::Outside { subnet, cidr });
                }
                let longest = subnet.max_prefix_len() - ADDRESS_BITS;
                if subnet.prefix_len() > longest {
                    let fault = Fault::TooSmall { subnet, longest };
                    report.add(raw.subnet.span(), &field, fault);
                }
                ranges.push(Range { cidr, subnet });
            }
            (Some(cidr), None) if !subnets.is_empty() => {
                report.add(raw.subnet.span(), &field, Fault::NoShare { cidr });
            }
            (None, Some(subnet)) if !cidrs.is_empty() => {
                let fault = no_such_family(&subnet, family);
                report.add(raw.subnet.span(), &field, fault);
            }
            _ => {}
        }
    }
    ranges
}

/// Prefixes with addresses that no container can have, whatever the network: kernels drop what
/// comes from them, or do not route it.
const NOBODYS: [(&str, &str); 8] = [
    ("0.0.0.0/8", "addresses of nobody in particular"),
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "addresses of one link"),
    ("224.0.0.0/4", "multicast addresses"),
    ("240.0.0.0/4", "reserved addresses"),
    ("::/96", "addresses of nobody in particular, and loopback"),
    ("fe80::/10", "addresses of one link"),
    ("ff00::/8", "multicast addresses"),
];

/// Those that a range is part of, and what they are.
fn nobodys(cidr: IpNet) -> Option<(IpNet, &'static str)> {
    let mut all = NOBODYS
        .iter()
        .filter_map(|(net, what)| Some((net.parse().ok()?, *what)));
    all.find(|(net, _): &(IpNet, _)| net.contains(&cidr))
}

pub(super) fn no_such_family(value: &impl ToString, family: Family) -> Fault {
    Fault::NoSuchFamily {
        value: value.to_string(),
        family,
    }
}

fn is(net: IpNet, family: Family) -> bool {
    Family::of(net.addr()) == family
}

fn one_of_each(raw: &Spanned<raw::OneOrMany>, field: &str, report: &mut Report<'_>) -> Vec<IpNet> {
    let texts = raw.get_ref().as_slice();
    let subnets = subnets(texts, &raw.span(), || field.to_owned(), report);
    for family in Family::ALL {
        let mut of_family = subnets.iter().filter(|net| is(**net, family));
        if let (Some(first), Some(second)) = (of_family.next(), of_family.next()) {
            let fault = Fault::TwoOfFamily {
                what: "this field",
                family,
                first: first.to_string(),
                second: second.to_string(),
            };
            report.add(raw.span(), field, fault);
        }
    }
    subnets
}

/// The subnets of a field, at least one.
pub(super) fn subnets(
    texts: &[impl AsRef<str>],
    span: &ops::Range<usize>,
    field: impl Fn() -> String,
    report: &mut Report<'_>,
) -> Vec<IpNet> {
    if texts.is_empty() {
        let fault = Fault::Number {
            what: "this field",
            takes: "at least one subnet",
            given: 0,
            cure: "write it as \"10.244.1.0/24\"",
        };
        report.add(span.clone(), field(), fault);
    }
    texts
        .iter()
        .filter_map(|text| {
            subnet(text.as_ref())
                .map_err(|fault| report.add(span.clone(), field(), fault))
                .ok()
        })
        .collect()
}

pub(super) fn subnet(text: &str) -> Result<IpNet, Fault> {
    match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() > 0 && net.trunc() != net => Err(Fault::HostBits {
            given: net,
            network: net.trunc(),
        }),
        Ok(net) if net.prefix_len() > 0 => Ok(net),
        _ => Err(Fault::Subnet(text.to_owned())),
    }
}

/// A subnet that somebody takes for himself.
pub(super) struct Claim<T> {
    pub(super) subnet: IpNet,
    /// Where it is written.
    pub(super) place: usize,
    /// Whose it is.
    pub(super) owner: T,
}

/// Reports every claim on addresses that an earlier one in address order has already;
/// `describe` tells an owner's name and field.
pub(super) fn overlaps<T>(
    mut claims: Vec<Claim<T>>,
    describe: impl Fn(&T) -> (String, String),
    report: &mut Report<'_>,
) {
    claims.sort_by_key(|claim| (claim.subnet.network(), claim.subnet.prefix_len()));
    let mut widest: Option<&Claim<T>> = None;
    for claim in &claims {
        match widest {
            Some(earlier) if earlier.subnet.contains(&claim.subnet) => {
                // The later line is the mistake; in address order it may be the earlier claim.
                let (wrong, right) = if claim.place >= earlier.place {
                    (claim, earlier)
                } else {
                    (earlier, claim)
                };
                let fault = Fault::Overlap {
                    subnet: wrong.subnet,
                    other: right.subnet,
                    owner: describe(&right.owner).0,
                };
                let field = describe(&wrong.owner).1;
                report.add(wrong.place..wrong.place, field, fault);
            }
            _ => widest = Some(claim),
        }
    }
}
