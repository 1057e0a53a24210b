//! The value of a lease: where a node is, and how its VXLAN device is addressed.

mod keys;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use keys::{Keys, PublicKey};

/// A MAC address as flannel writes it: `02:4f:c0:00:02:0b`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The VXLAN device of a node in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its network identifier. flannel never looks at a peer's.
    #[serde(rename = "VNI")]
    pub vni: u32,
    /// Its MAC.
    #[serde(rename = "VtepMAC")]
    pub mac: Mac,
}

/// The part that only nodes of ours write, in a field that flannel does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Overlay {
    /// The node's name: a lease of another node is never taken, whatever address it has.
    pub node: String,
    /// Keys of the tunnels to it.
    #[serde(flatten)]
    pub keys: Keys,
}

/// The attributes of a lease of flannel's backend `vxlan`, in the order in which Go writes them
/// (flannel, `pkg/lease/lease.go`, `LeaseAttrs`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lease {
    /// Outer IPv4 address; there is no lease without one.
    #[serde(rename = "PublicIP")]
    pub public_v4: Ipv4Addr,
    /// Outer IPv6 address.
    #[serde(rename = "PublicIPv6")]
    pub public_v6: Option<Ipv6Addr>,
    backend_type: Backend,
    /// The device towards IPv4.
    #[serde(rename = "BackendData")]
    pub v4: Device,
    /// The device towards IPv6.
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    pub v6: Option<Device>,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

/// The backend, of which there is one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Backend {
    Vxlan,
}

/// A value that is no lease of a VXLAN node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLease {
    /// Not an object in JSON.
    #[error("its value is not a JSON object")]
    Json,
    /// Another backend of flannel's.
    #[error("its backend is {0}, not vxlan")]
    Backend(String),
    /// A field that is missing or wrong.
    #[error("its {field} is {value}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The invalid value.
        value: String,
    },
}

impl Lease {
    /// A lease of a VXLAN node.
    pub fn new(v4: (Ipv4Addr, Device), v6: Option<(Ipv6Addr, Device)>, node: String) -> Self {
        let (public_v6, device_v6) = v6.unzip();
        Self {
            public_v4: v4.0,
            public_v6,
            backend_type: Backend::Vxlan,
            v4: v4.1,
            v6: device_v6,
            overlay: Some(Overlay {
                node,
                keys: Keys::default(),
            }),
        }
    }

    /// The same of a node that has keys.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        if let Some(overlay) = &mut self.overlay {
            overlay.keys = keys;
        }
        self
    }

    /// Reads a value as flannel does: fields in any order and case, others ignored.
    pub fn read(value: &[u8]) -> Result<Self, InvalidLease> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(value) else {
            return Err(InvalidLease::Json);
        };
        let fields = Fields(&fields);
        match fields.get("BackendType").and_then(Value::as_str) {
            Some("vxlan") => {}
            other => {
                let other = other.unwrap_or("not given");
                return Err(InvalidLease::Backend(shown(other)));
            }
        }
        let text = |field| fields.get(field).and_then(Value::as_str);
        let public_v4 = text("PublicIP").and_then(|text| text.parse().ok());
        let public_v4: Ipv4Addr = public_v4.ok_or_else(|| fields.wrong("PublicIP"))?;
        if !can_be_vtep(public_v4) {
            return Err(fields.wrong("PublicIP"));
        }
        let public_v6 = match fields.get("PublicIPv6") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                let address = address.filter(|address| can_be_vtep_v6(*address));
                Some(address.ok_or_else(|| fields.wrong("PublicIPv6"))?)
            }
        };
        let v6 = match fields.get("BackendV6Data") {
            None | Some(Value::Null) => None,
            Some(_) => Some(fields.device("BackendV6Data")?),
        };
        let overlay = fields.get("Overlay").and_then(Value::as_object);
        let text = |field| overlay.and_then(|overlay| Fields(overlay).get(field)?.as_str());
        // One that is none is as good as no key.
        let key = |field| text(field).and_then(PublicKey::read);
        let keys = || Keys {
            public_key: key("PublicKey"),
            next_public_key: key("NextPublicKey"),
        };
        Ok(Self {
            public_v4,
            public_v6,
            backend_type: Backend::Vxlan,
            v4: fields.device("BackendData")?,
            v6,
            overlay: text("Node").map(|node| Overlay {
                node: node.to_owned(),
                keys: keys(),
            }),
        })
    }

    /// The value, byte for byte as flannel would write it, with what is ours at the end.
    pub fn write(&self) -> String {
        // Strings, numbers and tables of them: nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Its key, where it has one.
    pub fn public_key(&self) -> Option<&PublicKey> {
        self.overlay.as_ref()?.keys.public_key.as_ref()
    }

    /// The name that a node of ours gives.
    pub fn node(&self) -> Option<&str> {
        self.overlay.as_ref().map(|overlay| overlay.node.as_str())
    }
}

fn can_be_vtep(address: Ipv4Addr) -> bool {
    !(address.is_broadcast()
        || address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback())
}

fn can_be_vtep_v6(address: Ipv6Addr) -> bool {
    !(address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some()
        || address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback())
}

/// A foreign text without characters that could break a line of a log or of a file.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

/// Fields as Go's JSON finds them: without regard to case.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        let mut fields = self.0.iter();
        let exact = self.0.get(name);
        exact.or_else(|| Some(fields.find(|(key, _)| key.eq_ignore_ascii_case(name))?.1))
    }

    fn wrong(&self, field: &'static str) -> InvalidLease {
        let value = self
            .get(field)
            .map_or("missing".to_owned(), |value| shown(&value.to_string()));
        InvalidLease::Field { field, value }
    }

    fn device(&self, field: &'static str) -> Result<Device, InvalidLease> {
        let device = || {
            let fields = Fields(self.get(field)?.as_object()?);
            let vni = fields.get("VNI").map_or(Some(0), Value::as_u64)?;
            Some(Device {
                vni: u32::try_from(vni).ok()?,
                mac: Mac::read(fields.get("VtepMAC")?.as_str()?)?,
            })
        };
        device().ok_or_else(|| self.wrong(field))
    }
}

impl Mac {
    /// Six bytes of a unicast address with `:`, `-` or Cisco's dots between, as Go's
    /// `net.ParseMAC` takes them.
    pub fn read(text: &str) -> Option<Self> {
        let (separator, digits) = match text.as_bytes().get(2)? {
            separator @ (b':' | b'-') => (char::from(*separator), 2),
            _ => ('.', 4),
        };
        let parts: Vec<&str> = text.split(separator).collect();
        let hex = |part: &&str| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        if parts.len() * digits != 12 || !parts.iter().all(hex) {
            return None;
        }
        let number = u64::from_str_radix(&parts.concat(), 16).ok()?;
        let [_, _, octets @ ..] = number.to_be_bytes();
        (number != 0 && octets[0] & 1 == 0).then_some(Self(octets))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Keys, Lease, Mac};

    const V4: &str = r#"{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"d2:cf:28:5c:8b:05"}}"#;
    const BOTH: &str = r#"{"PublicIP":"192.0.2.12","PublicIPv6":"2001:db8::12","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:c6:f0:78:87:2c"},"BackendV6Data":{"VNI":1,"VtepMAC":"92:4e:df:02:f4:af"}}"#;

    #[test]
    fn what_flannel_writes_is_written_byte_for_byte() {
        for text in [V4, BOTH] {
            assert_eq!(Lease::read(text.as_bytes()).unwrap().write(), text);
        }
    }

    #[test]
    fn ours_rides_behind() {
        let mut lease = Lease::read(V4.as_bytes()).unwrap();
        let node = "node01".to_owned();
        let keys = Keys::default();
        lease.overlay = Some(super::Overlay { node, keys });
        let text = lease.write();
        let end = r#"8b:05"},"Overlay":{"Node":"node01"}}"#;
        assert!(
            text.starts_with(V4.trim_end_matches('}')) && text.ends_with(end),
            "{text}"
        );
        assert_eq!(Lease::read(text.as_bytes()).unwrap(), lease);
    }

    #[test]
    fn readers_take_any_order_case_and_form_of_a_mac() {
        let text = r#"{"backenddata":{"X":1,"vtepmac":"D2-CF-28-5C-8B-05","VNI":77},"BACKENDTYPE":"vxlan","publicip":"192.0.2.11","more":[]}"#;
        let lease = Lease::read(text.as_bytes()).unwrap();
        assert_eq!(lease.v4.mac.to_string(), "d2:cf:28:5c:8b:05");
        assert_eq!((lease.v4.vni, lease.public_v6), (77, None));
        assert_eq!(Mac::read("d2cf.285c.8b05"), Some(lease.v4.mac));
    }

    #[test]
    fn what_is_no_lease_says_why() {
        let cases = [
            ("", "its value is not a JSON object"),
            ("[]", "its value is not a JSON object"),
            ("{}", "its backend is not given, not vxlan"),
            (
                r#"{"BackendType":"host-gw"}"#,
                "its backend is host-gw, not vxlan",
            ),
            (r#"{"BackendType":"vxlan"}"#, "its PublicIP is missing"),
            (
                r#"{"BackendType":"vxlan","PublicIP":null}"#,
                "its PublicIP is null",
            ),
            (
                r#"{"BackendType":"vxlan","PublicIP":"224.0.0.1"}"#,
                "its PublicIP is \\\"224.0.0.1\\\"",
            ),
            (
                r#"{"BackendType":"vxlan","PublicIP":"192.0.2.1"}"#,
                "its BackendData is missing",
            ),
            (
                r#"{"BackendType":"vxlan","PublicIP":"192.0.2.1","BackendData":{"VtepMAC":"01:00:5e:00:00:01"}}"#,
                "its BackendData is {\\\"VtepMAC\\\":\\\"01:00:5e:00:00:01\\\"}",
            ),
        ];
        for (text, why) in cases {
            assert_eq!(Lease::read(text.as_bytes()).unwrap_err().to_string(), why);
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_fail(text in ".{0,60}", end in "[a-zA-Z0-9:{}\",]{0,40}") {
            let _ = Lease::read(text.as_bytes());
            let _ = Lease::read(format!("{}{end}", &V4[..60]).as_bytes());
            let _ = Mac::read(&text);
        }
    }
}
