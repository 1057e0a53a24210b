//! Units that must not be mixed up: each is a type that only valid values inhabit.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use overlay_common::wire::{MAX_VNI, vtep_mac, vtep6_mac};
use serde::{Deserialize, Serialize};

/// A text that is not a value of the type it was meant for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// VNIs are 24 bits; 0 is left out because flannel and the kernel treat it as "none".
    #[error("VNI {0} is out of range; use 1 to {MAX_VNI}")]
    Vni(u32),
    /// Interface names: 1 to 15 bytes, no slash, no white space (`dev_valid_name`).
    #[error(
        "{0:?} is not an interface name; use 1 to 15 printable characters without '/', ':' and spaces, and not \"all\" or \"default\""
    )]
    IfName(String),
    /// Names of interfaces, alternative ones included: 1 to 127 bytes.
    #[error(
        "{0:?} is not an interface name; use 1 to 127 printable characters without '/', ':' and spaces"
    )]
    DeviceName(String),
    /// A domain that containers have their names in.
    #[error("{0:?} is not a domain; take one that nobody else has, such as \"overlay.internal\"")]
    Zone(String),
    /// A name server.
    #[error("{0:?} is not a name server; give an address, or an address with a port")]
    NameServer(String),
    /// 32 bytes in base64.
    #[error(
        "{0:?} is not a public key of WireGuard; write what \"overlay-agent key\" prints on that node, 44 characters with a = at the end"
    )]
    PublicKey(String),
    /// Six bytes in hexadecimal, unicast.
    #[error("{0:?} is not a unicast MAC address; write it as 02:4f:0a:00:00:01")]
    Mac(String),
    /// Names become parts of paths, aliases and counters.
    #[error(
        "{0:?} is not a name; use 1 to 63 letters, digits, '.', '-' and '_', starting with a letter or digit"
    )]
    Name(String),
    /// An address and a port, or none at all.
    #[error("{0:?} is not an address to listen at; write it as \"127.0.0.1:9466\", or \"off\"")]
    Metrics(String),
    /// A word, or how long to wait between two probes.
    #[error(
        "invalid probe interval {0:?}; use \"off\", \"answer\", or 100ms to 60m, such as \"5s\""
    )]
    Probe(String),
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// VXLAN network identifier, 1 to 2^24 − 1 (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = InvalidValue;

    fn try_from(value: u32) -> Result<Self, InvalidValue> {
        if (1..=MAX_VNI).contains(&value) {
            Ok(Self(value))
        } else {
            Err(InvalidValue::Vni(value))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Longest interface name in bytes: the kernel's `IFNAMSIZ` less its final 0.
const MAX_IFNAME: usize = 15;

/// Name of a network interface; small enough to be copied, because every route,
/// neighbour and map entry carries one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName {
    bytes: [u8; MAX_IFNAME],
    len: u8,
}

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Only `from_str` makes a value, and it copies a whole `str`.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for IfName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        // The kernel has folders of settings of these names.
        if !can_name_device(text, MAX_IFNAME) || matches!(text, "all" | "default") {
            return Err(InvalidValue::IfName(text.to_owned()));
        }
        let mut bytes = [0; MAX_IFNAME];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        let len = u8::try_from(text.len()).map_err(|_| InvalidValue::IfName(text.to_owned()))?;
        Ok(Self { bytes, len })
    }
}

/// Longest alternative name of an interface in bytes: the kernel's `ALTIFNAMSIZ` less its final 0.
const MAX_ALTERNATIVE: usize = 127;

/// A name by which somebody calls a network interface: its own, or an alternative one, which may
/// be longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if can_name_device(text, MAX_ALTERNATIVE) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::DeviceName(text.to_owned()))
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn can_name_device(text: &str, longest: usize) -> bool {
    let strange = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    !text.is_empty()
        && text.len() <= longest
        && text != "."
        && text != ".."
        && !text.contains(strange)
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes as they stand in a frame.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// From six bytes; `None` for the zero address and for group addresses.
    pub fn unicast(octets: [u8; 6]) -> Option<Self> {
        (octets != [0; 6] && octets[0] & 1 == 0).then_some(Self(octets))
    }

    /// That of the VXLAN device of an overlay node, by its outer address.
    pub fn of_vtep(vtep: IpAddr) -> Self {
        // Locally administered and unicast by construction.
        Self(match vtep {
            IpAddr::V4(vtep) => vtep_mac(vtep.octets()),
            IpAddr::V6(vtep) => vtep6_mac(vtep.octets()),
        })
    }
}

impl FromStr for Mac {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Self::unicast(octets).ok_or_else(invalid)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.pad(&octets.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a node, network, peer, endpoint or instance. All that an endpoint has carries its
/// name: copies share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let valid = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidValue::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{IfName, Mac, Name, Vni};

    #[test]
    fn vnis_have_24_bits_and_are_not_zero() {
        assert!(Vni::try_from(0).is_err());
        assert!(Vni::try_from(0x0100_0000).is_err());
        assert_eq!(Vni::try_from(0x00ff_ffff).unwrap().get(), 0x00ff_ffff);
    }

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        assert_eq!(
            "ovlbr16777215".parse::<IfName>().unwrap().as_str(),
            "ovlbr16777215"
        );
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-bytes-xx"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn macs_are_unicast_and_print_as_they_are_written() {
        assert_eq!(
            "02:4F:c0:a8:38:0c".parse::<Mac>().unwrap().to_string(),
            "02:4f:c0:a8:38:0c"
        );
        for bad in [
            "",
            "02:4f:c0:a8:38",
            "02:4f:c0:a8:38:0c:00",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:4f:c0:a8:38:0c",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_can_be_parts_of_paths() {
        assert!("lab-n1".parse::<Name>().is_ok());
        for bad in ["", "..", "a/b", "-a", "a b"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
