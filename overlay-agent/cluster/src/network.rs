//! The network's configuration, `PREFIX/config`, by flannel's rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use serde_json::Value;

use crate::{
    lease::{Fields, shown},
    subnet::Subnet,
};

/// UDP port of the kernel's VXLAN devices, and so of flannel's; not the one of RFC 7348.
pub const PORT: u16 = 8472;

/// The network that all nodes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Largest inner packet in bytes, if all nodes are to have the same.
    pub mtu: Option<u16>,
    /// The IPv4 addresses.
    pub v4: Share<Ipv4Net>,
    /// The IPv6 addresses.
    pub v6: Option<Share<Ipv6Net>>,
    /// Whether this node encrypts it: the store does not say, and who has no key is no peer.
    pub encrypted: bool,
}

/// The addresses of one family, and how nodes share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<N> {
    /// All of them.
    pub network: N,
    /// The first subnet that is given to a node.
    pub first: N,
    /// The last one.
    pub last: N,
}

/// A configuration that this node cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not an object in JSON.
    #[error("it is not a JSON object")]
    Json,
    /// A field that is missing or wrong.
    #[error("its {field} is {value}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// The invalid value.
        value: String,
        /// The cure.
        cure: &'static str,
    },
}

impl InvalidNetwork {
    /// The cure.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Json => "write one as \"overlay-agent cluster init\" does",
            Self::Field { cure, .. } => cure,
        }
    }
}

impl Network {
    /// Reads `PREFIX/config` (flannel, `pkg/subnet/config.go`, `ParseConfig`; and the vxlan
    /// backend's own fields).
    pub fn read(value: &[u8]) -> Result<Self, InvalidNetwork> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(value) else {
            return Err(InvalidNetwork::Json);
        };
        let fields = Config(Fields(&fields));
        if !fields.flag("EnableIPv4").unwrap_or(true) {
            return Err(fields.wrong("EnableIPv4", "there is no lease without IPv4 in etcd"));
        }
        let v4 = fields.share_v4()?;
        let v6 = match fields.flag("EnableIPv6") {
            Some(true) => Some(fields.share_v6()?),
            _ => None,
        };
        let backend = fields.0.get("Backend").and_then(Value::as_object);
        let Some(backend) = backend else {
            let cure = "without one flannel takes udp; set {\"Type\":\"vxlan\"}";
            return Err(fields.wrong("Backend", cure));
        };
        let backend = Config(Fields(backend));
        if backend.0.get("Type").and_then(Value::as_str) != Some("vxlan") {
            return Err(backend.wrong("Type", "overlay nodes speak vxlan alone"));
        }
        if backend.flag("GBP") == Some(true) {
            let cure = "packets with group policy bits are dropped as malformed; set it to false";
            return Err(backend.wrong("GBP", cure));
        }
        if backend.flag("DirectRouting") == Some(true) {
            let cure = "it sends plain IP past the tunnel and its checks; set it to false";
            return Err(backend.wrong("DirectRouting", cure));
        }
        let vni = backend.number("VNI", 1)?;
        if !(1..1 << 24).contains(&vni) {
            return Err(backend.wrong("VNI", "use 1 to 16777215"));
        }
        let port = match backend.number("Port", 0)? {
            0 => PORT,
            port => u16::try_from(port).map_err(|_| backend.wrong("Port", "use a UDP port"))?,
        };
        let mtu = match backend.number("MTU", 0)? {
            0 => None,
            mtu => {
                let wrong = |_| backend.wrong("MTU", "use the bytes of the underlay's packets");
                let outer = u16::try_from(mtu).map_err(wrong)?;
                // flannel takes the outer headers off, of IPv4 in both families.
                Some(outer.saturating_sub(50))
            }
        };
        Ok(Self {
            vni,
            port,
            mtu,
            v4,
            v6,
            encrypted: false,
        })
    }

    /// Whether a subnet is one that the network gives to nodes.
    pub fn gives(&self, subnet: &Subnet) -> bool {
        let v4 = self.v4;
        let fits_v4 = subnet.v4.prefix_len() == v4.first.prefix_len()
            && (v4.first.addr()..=v4.last.addr()).contains(&subnet.v4.addr());
        let fits_v6 = match (self.v6, subnet.v6) {
            (None, None) => true,
            (Some(v6), Some(subnet)) => {
                subnet.prefix_len() == v6.first.prefix_len()
                    && (v6.first.addr()..=v6.last.addr()).contains(&subnet.addr())
            }
            _ => false,
        };
        fits_v4 && fits_v6
    }

    /// Whether a peer's subnet can be used: it is inside, and of the same families.
    pub fn has(&self, subnet: &Subnet) -> bool {
        let v6 = match (self.v6, subnet.v6) {
            (None, None) => true,
            (Some(v6), Some(subnet)) => v6.network.contains(&subnet),
            _ => false,
        };
        v6 && self.v4.network.contains(&subnet.v4)
    }

    /// How many subnets there are; both families go by the same number, so that two nodes with
    /// different IPv4 subnets never have the same IPv6 one.
    pub fn subnets(&self) -> u32 {
        let step = 32 - u32::from(self.v4.first.prefix_len());
        let v4 = (self.v4.last.addr().to_bits() - self.v4.first.addr().to_bits()) >> step;
        let v6 = self.v6.map(|v6| {
            let step = 128 - u32::from(v6.first.prefix_len());
            let count = (v6.last.addr().to_bits() - v6.first.addr().to_bits()) >> step;
            u32::try_from(count).unwrap_or(u32::MAX - 1)
        });
        v6.map_or(v4, |v6| v4.min(v6)) + 1
    }

    /// One of them, counted from 0.
    pub fn subnet(&self, number: u32) -> Option<Subnet> {
        if number >= self.subnets() {
            return None;
        }
        let length = self.v4.first.prefix_len();
        let bits = self.v4.first.addr().to_bits() + (number << (32 - length));
        let v4 = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).ok()?;
        let v6 = match self.v6 {
            None => None,
            Some(v6) => {
                let length = v6.first.prefix_len();
                let bits = v6.first.addr().to_bits() + (u128::from(number) << (128 - length));
                Some(Ipv6Net::new(Ipv6Addr::from_bits(bits), length).ok()?)
            }
        };
        Some(Subnet { v4, v6 })
    }
}

struct Config<'a>(Fields<'a>);

impl Config<'_> {
    fn wrong(&self, field: &'static str, cure: &'static str) -> InvalidNetwork {
        let value = self.0.get(field);
        let value = value.map_or("missing".to_owned(), |value| shown(&value.to_string()));
        InvalidNetwork::Field { field, value, cure }
    }

    fn flag(&self, field: &str) -> Option<bool> {
        self.0.get(field)?.as_bool()
    }

    fn number(&self, field: &'static str, default: u32) -> Result<u32, InvalidNetwork> {
        let Some(value) = self.0.get(field) else {
            return Ok(default);
        };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.wrong(field, "write a number"))
    }

    fn text<T: std::str::FromStr>(
        &self,
        field: &'static str,
        cure: &'static str,
    ) -> Result<Option<T>, InvalidNetwork> {
        let Some(value) = self.0.get(field).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| self.wrong(field, cure))
    }

    /// The length of subnets: what is given, else `usual` bits where they make four subnets at
    /// least, else a quarter of the network.
    fn length(
        &self,
        field: &'static str,
        network: u8,
        (usual, longest): (u8, u8),
    ) -> Result<u8, InvalidNetwork> {
        let cure = "use at least two bits more than the network's prefix, and leave room for nodes";
        let default = match network {
            _ if network + 2 <= usual => usual,
            _ => network + 2,
        };
        let length = self.number(field, u32::from(default))?;
        let length = u8::try_from(length).unwrap_or(u8::MAX);
        if (network + 2..=longest).contains(&length) {
            Ok(length)
        } else {
            Err(self.wrong(field, cure))
        }
    }

    fn share_v4(&self) -> Result<Share<Ipv4Net>, InvalidNetwork> {
        let cure = "write a network such as \"10.244.0.0/16\"";
        let network: Option<Ipv4Net> = self.text("Network", cure)?;
        let network = network.ok_or_else(|| self.wrong("Network", cure))?.trunc();
        if network.prefix_len() == 0 || network.prefix_len() > 28 {
            return Err(self.wrong("Network", cure));
        }
        let length = self.length("SubnetLen", network.prefix_len(), (24, 30))?;
        let step = 1 << (32 - length);
        let default = [
            network.addr().to_bits() + step,
            network.broadcast().to_bits() - (step - 1),
        ];
        let [first, last] = self.ends(["SubnetMin", "SubnetMax"], |field, cure| {
            let given: Option<Ipv4Addr> = self.text(field, cure)?;
            let default = default[usize::from(field == "SubnetMax")];
            let subnet = given.unwrap_or(Ipv4Addr::from_bits(default));
            let subnet = Ipv4Net::new(subnet, length).ok();
            Ok(subnet.filter(|subnet| subnet.trunc() == *subnet && network.contains(subnet)))
        })?;
        Ok(Share {
            network,
            first,
            last,
        })
    }

    fn share_v6(&self) -> Result<Share<Ipv6Net>, InvalidNetwork> {
        let cure = "write a network such as \"fd00:244::/48\"";
        let network: Option<Ipv6Net> = self.text("IPv6Network", cure)?;
        let network = network
            .ok_or_else(|| self.wrong("IPv6Network", cure))?
            .trunc();
        if network.prefix_len() == 0 || network.prefix_len() > 124 {
            return Err(self.wrong("IPv6Network", cure));
        }
        let length = self.length("IPv6SubnetLen", network.prefix_len(), (64, 126))?;
        let step = 1 << (128 - length);
        let default = [
            network.addr().to_bits() + step,
            network.broadcast().to_bits() - (step - 1),
        ];
        let [first, last] = self.ends(["IPv6SubnetMin", "IPv6SubnetMax"], |field, cure| {
            let given: Option<Ipv6Addr> = self.text(field, cure)?;
            let default = default[usize::from(field == "IPv6SubnetMax")];
            let subnet = given.unwrap_or(Ipv6Addr::from_bits(default));
            let subnet = Ipv6Net::new(subnet, length).ok();
            Ok(subnet.filter(|subnet| subnet.trunc() == *subnet && network.contains(subnet)))
        })?;
        Ok(Share {
            network,
            first,
            last,
        })
    }

    fn ends<N: Copy + Ord>(
        &self,
        fields: [&'static str; 2],
        end: impl Fn(&'static str, &'static str) -> Result<Option<N>, InvalidNetwork>,
    ) -> Result<[N; 2], InvalidNetwork> {
        let cure = "write the first address of a subnet in the network";
        let [min, max] = fields;
        let first = end(min, cure)?.ok_or_else(|| self.wrong(min, cure))?;
        let last = end(max, cure)?.ok_or_else(|| self.wrong(max, cure))?;
        if first > last {
            return Err(self.wrong(max, "it is before the first subnet"));
        }
        Ok([first, last])
    }
}

/// A configuration as flannel's documentation writes it, for a network that begins.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewNetwork {
    network: Ipv4Net,
    #[serde(rename = "EnableIPv6", skip_serializing_if = "std::ops::Not::not")]
    enable_ipv6: bool,
    #[serde(rename = "IPv6Network", skip_serializing_if = "Option::is_none")]
    ipv6_network: Option<Ipv6Net>,
    backend: NewBackend,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewBackend {
    r#type: &'static str,
    #[serde(rename = "VNI")]
    vni: u32,
}

impl NewNetwork {
    /// With flannel's defaults for all that is not given.
    pub fn new(network: Ipv4Net, ipv6_network: Option<Ipv6Net>, vni: u32) -> Self {
        Self {
            network,
            enable_ipv6: ipv6_network.is_some(),
            ipv6_network,
            backend: NewBackend {
                r#type: "vxlan",
                vni,
            },
        }
    }

    /// The value of `PREFIX/config`.
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
