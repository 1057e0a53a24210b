//! By what a node is let in by members of etcd, and knows them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The contents of the files that the configuration names. Whoever starts the helper reads them: it
/// may not, and is told anew when they have changed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Certificates in PEM, one of which has signed those of the members.
    pub ca: Option<String>,
    /// This node's certificate and its key, both in PEM.
    pub identity: Option<(String, String)>,
    /// A user of etcd and the password.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for Access {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Access;

    #[test]
    fn nothing_secret_is_shown() {
        let access = Access {
            ca: Some("PUBLIC".to_owned()),
            identity: Some(("PUBLIC".to_owned(), "SECRET".to_owned())),
            user: Some(("node".to_owned(), "SECRET".to_owned())),
        };
        assert!(!format!("{access:?}").contains("SECRET"));
    }
}
