//! Keys of the tunnels to a node.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;

/// The public keys of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Keys {
    /// Its key, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// The one that it is about to have instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_public_key: Option<PublicKey>,
}

/// The public half of a key of `WireGuard`: 32 bytes in base64, as `wg` writes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PublicKey(String);

impl PublicKey {
    /// Bytes of a key.
    const LENGTH: usize = 32;

    /// A key, if the text is one.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text).ok()?;
        // With zeros alone the kernel takes no peer.
        let good = bytes.len() == Self::LENGTH && bytes.iter().any(|byte| *byte != 0);
        good.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Keys {
    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = &PublicKey> {
        self.public_key.iter().chain(&self.next_public_key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Keys, PublicKey};
    use crate::lease::{Lease, Overlay};

    const V4: &str = r#"{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"}}"#;

    #[test]
    fn keys_ride_there_and_what_is_none_counts_as_none() {
        const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let node = "node01".to_owned();
        let keys = Keys {
            public_key: PublicKey::read(KEY),
            next_public_key: None,
        };
        let mut lease = Lease::read(V4.as_bytes()).unwrap();
        lease.overlay = Some(Overlay { node, keys });
        let text = lease.write();
        let end = format!(r#""Overlay":{{"Node":"node01","PublicKey":"{KEY}"}}}}"#);
        assert!(text.ends_with(&end), "{text}");
        assert_eq!(Lease::read(text.as_bytes()).unwrap(), lease);
        let zeros = format!("{}=", "A".repeat(43));
        for wrong in [
            "",
            "short",
            &KEY[1..],
            zeros.as_str(),
            "\\u0022",
            KEY.replace("w=", "x=").as_str(),
        ] {
            let lease = Lease::read(text.replace(KEY, wrong).as_bytes()).unwrap();
            assert_eq!(
                (lease.public_key(), lease.node()),
                (None, Some("node01")),
                "{wrong}"
            );
        }
    }
}
