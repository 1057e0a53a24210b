//! Keys of peers: what one is and the one that follows, and that none is two peers'.

use std::collections::BTreeMap;

use toml::Spanned;

use super::{Checked, Fault, Report, Written};
use crate::model::{Peer, PublicKey};

type Key = Option<Box<PublicKey>>;

/// A peer's key and its next one; `None` where one of them is none.
pub(super) fn read(
    raw: &Written<'_>,
    field: impl Fn(&str) -> String,
    report: &mut Report<'_>,
) -> Option<[Key; 2]> {
    let mut read = |raw: Option<&Spanned<&str>>, key: &str| match raw {
        Some(raw) => Some(Some(Box::new(report.value(raw, field(key))?))),
        None => Some(None),
    };
    let key = read(raw.public_key.as_ref(), "public_key")?;
    Some([key, read(raw.next_public_key.as_ref(), "next_public_key")?])
}

impl Checked<'_> {
    /// Reports what keeps tunnels to a peer from being encrypted.
    pub(super) fn check_encryption(
        &self,
        number: usize,
        written: &Written<'_>,
        peer: &Peer,
        report: &mut Report<'_>,
    ) {
        if peer.vtep.is_ipv6() {
            let fault = Fault::EncryptedOverIpv6(peer.vtep);
            report.add(written.vtep.span(), self.field(number, "vtep"), fault);
        }
        if written.public_key.is_none() {
            let field = self.field(number, "public_key");
            report.add(written.name.span(), field, Fault::NoPublicKey);
        }
    }

    /// Reports keys that are there twice, of which `WireGuard` would make one peer.
    pub(super) fn unique_keys<'w>(
        &self,
        written: impl Fn(usize) -> Option<Written<'w>>,
        report: &mut Report<'_>,
    ) {
        if !self.encrypted {
            return;
        }
        let mut seen = BTreeMap::new();
        for (peer, &number) in self.peers.iter().zip(&self.numbers) {
            let keys = [
                ("public_key", &peer.public_key),
                ("next_public_key", &peer.next_public_key),
            ];
            for (name, key) in keys {
                let Some(key) = key.as_deref() else { continue };
                let field = self.field(number, name);
                let Some(first) = seen.insert(*key, field.clone()) else {
                    continue;
                };
                let place = written(number).and_then(|written| {
                    let place = match name {
                        "public_key" => written.public_key,
                        _ => written.next_public_key,
                    };
                    Some(place?.span())
                });
                let fault = Fault::Duplicate {
                    what: "public key",
                    value: key.to_string(),
                    first,
                };
                report.add(place.unwrap_or_default(), field, fault);
            }
        }
    }
}
