//! Keys of `WireGuard`, as far as everybody may know them.

use std::{fmt, str::FromStr};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use super::InvalidValue;

/// The public half of a node's key (Curve25519), in base64 as `wg` writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; Self::LENGTH]);

impl PublicKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    /// As the kernel has it.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// As the kernel takes it.
    pub const fn bytes(&self) -> [u8; Self::LENGTH] {
        self.0
    }
}

impl FromStr for PublicKey {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let decoded = BASE64_STANDARD.decode(text).ok();
        let bytes = decoded.and_then(|bytes| bytes.try_into().ok());
        // With zeros alone the kernel takes no peer.
        let bytes = bytes.filter(|bytes| *bytes != [0; Self::LENGTH]);
        bytes
            .map(Self)
            .ok_or_else(|| InvalidValue::PublicKey(text.to_owned()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::PublicKey;

    #[test]
    fn a_key_is_32_bytes_in_base64() {
        let text = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        for wrong in [
            "",
            "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw",
            "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8yk==",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "1c8828f7137324c58b2804928624ea2326f1674537c062e251e2753ca7fcca4c",
        ] {
            let error = wrong.parse::<PublicKey>().unwrap_err().to_string();
            assert!(error.contains("overlay-agent key"), "{wrong}: {error}");
        }
    }
}
