//! Certificates of a test: a CA, and what it has signed.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Writes `ca.pem`, and `NAME.pem` with `NAME.key` of the members, whose addresses are given, of
/// nodes, and of who looks after etcd. All are new each time.
pub(crate) fn write(folder: &Path, members: &[String]) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.pem"), ca.pem())?;
    let certificates = [
        ("member", members.to_vec()),
        ("node", Vec::new()),
        ("admin", Vec::new()),
    ];
    for (name, addresses) in certificates {
        let mut params = CertificateParams::new(addresses)?;
        // etcd takes the name of a certificate for a user's, unless it is told of one.
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
