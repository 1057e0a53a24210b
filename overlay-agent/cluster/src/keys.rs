//! Where things are in the store.

use crate::subnet::Subnet;

/// Where the network's keys are.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Such as `/coreos.com/network`.
    pub prefix: String,
}

impl Keys {
    /// The network's configuration.
    pub fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// Before all leases.
    pub fn subnets(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// Before all subnets that were ever used; flannel does not look there.
    pub fn used(&self) -> String {
        format!("{}/overlay/used/", self.prefix)
    }

    /// A node's lease of a subnet.
    pub fn lease(&self, subnet: Subnet) -> String {
        format!("{}{subnet}", self.subnets())
    }
}

/// What follows a prefix of a key; a key that is no text is shown with replacements, so that
/// it can be told of.
pub fn below(prefix: &str, key: &[u8]) -> Option<String> {
    let key = key.strip_prefix(prefix.as_bytes())?;
    Some(String::from_utf8_lossy(key).into_owned())
}
