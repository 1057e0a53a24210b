//! TLS towards a member of etcd, and a user who is known by a token that does not last.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Identity},
};

use crate::{access::Access, failure::ClientError};

/// The settings of TLS: none for a URL of HTTP.
pub(crate) fn tls(url: &str, access: &Access) -> Result<Option<ClientTlsConfig>, ClientError> {
    if !url.starts_with("https://") {
        return Ok(None);
    }
    let wrong = |what: &str, cure| ClientError::Access {
        what: what.to_owned(),
        cure,
    };
    let ca = access
        .ca
        .as_ref()
        .filter(|ca| ca.contains("-----BEGIN CERTIFICATE-----"));
    let ca = ca.ok_or_else(|| {
        wrong(
            "there is no certificate in cluster.ca",
            "put those there that have signed the members' certificates, in PEM",
        )
    })?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let Some((certificate, key)) = &access.identity else {
        return Ok(Some(tls));
    };
    if !certificate.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong(
            "there is no certificate in cluster.cert",
            "put this node's there, in PEM",
        ));
    }
    // PKCS #8, or what the older formats of RSA and elliptic curves are called.
    if !key.contains("PRIVATE KEY-----") {
        return Err(wrong(
            "there is no key in cluster.key",
            "put that of cluster.cert there, in PEM and without a passphrase",
        ));
    }
    Ok(Some(tls.identity(Identity::from_pem(certificate, key))))
}

/// A user, and the token that the member has given for the password.
#[derive(Debug)]
pub(crate) struct Login {
    /// Its name.
    pub(crate) name: String,
    password: String,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl Login {
    /// Of the user that is given, if one is.
    pub(crate) fn of(access: &Access) -> Option<Arc<Self>> {
        let (name, password) = access.user.clone()?;
        Some(Arc::new(Self {
            name,
            password,
            token: Mutex::new(None),
        }))
    }

    /// The password that is shown for a token.
    pub(crate) fn password(&self) -> String {
        self.password.clone()
    }

    /// Takes a new token in; `None` where etcd has no users.
    pub(crate) fn renew(&self, token: Option<&str>) -> Result<(), ClientError> {
        let token = token.map(MetadataValue::try_from).transpose();
        let token = token.map_err(|_| ClientError::Refused {
            call: "log in",
            cause: "the token is not text for a header".to_owned(),
        })?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Shows the token with a request.
    pub(crate) fn sign<T>(&self, request: &mut Request<T>) {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.clone() {
            request.metadata_mut().insert("token", token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tls;
    use crate::access::Access;

    #[test]
    fn what_is_no_certificate_is_told_before_anybody_is_asked() {
        let pem = "-----BEGIN CERTIFICATE-----\n";
        let told = |ca: &str, cert: &str, key: &str| {
            let access = Access {
                ca: Some(ca.to_owned()),
                identity: Some((cert.to_owned(), key.to_owned())),
                user: None,
            };
            tls("https://192.0.2.1:2379", &access)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(told("", pem, "").contains("cluster.ca"));
        assert!(told(pem, "no", "").contains("cluster.cert"));
        assert!(told(pem, pem, "no").contains("cluster.key"));
        assert_eq!(told(pem, pem, "-----BEGIN PRIVATE KEY-----"), "");
    }
}
