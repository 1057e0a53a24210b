//! Sources that endpoints may use besides their own addresses.

use ipnet::IpNet;

use super::{
    Report,
    error::Fault,
    raw,
    subnets::{no_such_family, subnet, subnets},
};
use crate::model::{Endpoint, Family, Network, overlap, taken};

/// The prefixes behind an endpoint; the node leads them to it, so they must be nobody else's.
pub(super) fn validate(
    raw: &raw::Endpoint,
    field: &str,
    network: &Network,
    networks: &[Network],
    others: &[Endpoint],
    report: &mut Report<'_>,
) -> Vec<IpNet> {
    let Some(given) = &raw.allowed_sources else {
        return Vec::new();
    };
    let field = format!("{field}.allowed_sources");
    if !raw.forwarding {
        report.add(given.span(), &field, Fault::NotForwarding);
    }
    let sources = subnets(
        given.get_ref().as_slice(),
        &given.span(),
        || field.clone(),
        report,
    );
    for (place, &prefix) in sources.iter().enumerate() {
        let earlier = sources.get(..place).unwrap_or_default();
        if let Some(fault) = fault(prefix, earlier, network, networks, others) {
            report.add(given.span(), &field, fault);
        }
    }
    sources
}

/// The same for an endpoint that is added at run time.
pub fn endpoint_sources(
    texts: &[String],
    forwarding: bool,
    network: &Network,
    networks: &[Network],
    others: &[Endpoint],
) -> Result<Vec<IpNet>, Fault> {
    if !texts.is_empty() && !forwarding {
        return Err(Fault::NotForwarding);
    }
    let mut sources = Vec::with_capacity(texts.len());
    for text in texts {
        let prefix = subnet(text)?;
        match fault(prefix, &sources, network, networks, others) {
            Some(fault) => return Err(fault),
            None => sources.push(prefix),
        }
    }
    Ok(sources)
}

/// The fault of a prefix behind an endpoint that has `earlier` ones.
fn fault(
    prefix: IpNet,
    earlier: &[IpNet],
    network: &Network,
    networks: &[Network],
    others: &[Endpoint],
) -> Option<Fault> {
    let family = Family::of(prefix.addr());
    if network.range(family).is_none() {
        return Some(no_such_family(&prefix, family));
    }
    let own = earlier.iter().find(|own| overlap(**own, prefix));
    let other = taken(prefix, network, networks, others);
    let (other, owner) = match (other, own) {
        (Some(claim), _) => (claim.prefix, claim.owner.to_string()),
        (None, Some(&own)) => (own, "this endpoint".to_owned()),
        (None, None) => return None,
    };
    Some(Fault::SourceTaken {
        prefix,
        other,
        owner,
    })
}
