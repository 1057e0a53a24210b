//! The configuration file as it is written, before anything is believed.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::model::{Dscp, FastPath, Guard, Rx, Security};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) node: Node,
    pub(super) cluster: Option<Spanned<Cluster>>,
    pub(super) names: Option<Names>,
    #[serde(default)]
    pub(super) networks: Vec<Spanned<Network>>,
    #[serde(default)]
    pub(super) endpoints: Vec<Spanned<Endpoint>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Spanned<String>,
    pub(super) underlay: Spanned<OneOrMany>,
    pub(super) vtep: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    pub(super) guard: Guard,
    pub(super) rx: Option<Spanned<Rx>>,
    pub(super) metrics: Option<Spanned<String>>,
    pub(super) probe: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    pub(super) zone: Spanned<String>,
    pub(super) forward: Option<Spanned<OneOrMany>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) etcd: Spanned<OneOrMany>,
    pub(super) ca: Option<Spanned<PathBuf>>,
    pub(super) cert: Option<Spanned<PathBuf>>,
    pub(super) key: Option<Spanned<PathBuf>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) network: Spanned<String>,
    pub(super) subnet: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    pub(super) masquerade: bool,
    #[serde(default)]
    pub(super) fastpath: FastPath,
    #[serde(default)]
    pub(super) encryption: Encryption,
    pub(super) wireguard_port: Option<Spanned<u16>>,
    pub(super) wireguard_next_port: Option<Spanned<u16>>,
    pub(super) subnet_env: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) name: Spanned<String>,
    pub(super) vni: Spanned<u32>,
    pub(super) port: Option<Spanned<u16>>,
    pub(super) cidr: Spanned<OneOrMany>,
    pub(super) subnet: Spanned<OneOrMany>,
    pub(super) mtu: Option<Spanned<Mtu>>,
    #[serde(default)]
    pub(super) masquerade: bool,
    #[serde(default)]
    pub(super) fastpath: FastPath,
    #[serde(default)]
    pub(super) dscp: Dscp,
    #[serde(default)]
    pub(super) encryption: Encryption,
    pub(super) wireguard_port: Option<Spanned<u16>>,
    pub(super) wireguard_next_port: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) security: Security,
    #[serde(default)]
    pub(super) peers: Vec<Spanned<Peer>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: Spanned<String>,
    pub(super) vtep: Spanned<String>,
    pub(super) subnet: Spanned<OneOrMany>,
    pub(super) mac: Option<Spanned<String>>,
    pub(super) udp6_checksum: Option<Spanned<bool>>,
    pub(super) public_key: Option<Spanned<String>>,
    pub(super) next_public_key: Option<Spanned<String>>,
}

/// Whether tunnels are encrypted, and at which ports.
#[derive(Clone, Copy)]
pub(super) struct Encrypted<'a> {
    pub(super) encryption: Encryption,
    pub(super) port: Option<&'a Spanned<u16>>,
    pub(super) next_port: Option<&'a Spanned<u16>>,
}

impl Cluster {
    pub(super) fn encrypted(&self) -> Encrypted<'_> {
        Encrypted {
            encryption: self.encryption,
            port: self.wireguard_port.as_ref(),
            next_port: self.wireguard_next_port.as_ref(),
        }
    }
}

impl Network {
    pub(super) fn encrypted(&self) -> Encrypted<'_> {
        Encrypted {
            encryption: self.encryption,
            port: self.wireguard_port.as_ref(),
            next_port: self.wireguard_next_port.as_ref(),
        }
    }
}

/// Encryption of tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encryption {
    #[default]
    Off,
    WireGuard,
}

/// A peer as it is written, whoever has read it. There can be very many: nothing is copied.
pub(super) struct Written<'a> {
    pub(super) name: Spanned<&'a str>,
    pub(super) vtep: Spanned<&'a str>,
    pub(super) subnet: Spanned<Vec<&'a str>>,
    pub(super) mac: Option<Spanned<&'a str>>,
    pub(super) udp6_checksum: Option<Spanned<bool>>,
    pub(super) public_key: Option<Spanned<&'a str>>,
    pub(super) next_public_key: Option<Spanned<&'a str>>,
}

impl Peer {
    pub(super) fn written(&self) -> Written<'_> {
        let subnets = self.subnet.get_ref().as_slice().iter();
        Written {
            name: borrowed(&self.name),
            vtep: borrowed(&self.vtep),
            subnet: Spanned::new(self.subnet.span(), subnets.map(String::as_str).collect()),
            mac: self.mac.as_ref().map(borrowed),
            udp6_checksum: self.udp6_checksum.clone(),
            public_key: self.public_key.as_ref().map(borrowed),
            next_public_key: self.next_public_key.as_ref().map(borrowed),
        }
    }
}

fn borrowed(text: &Spanned<String>) -> Spanned<&str> {
    Spanned::new(text.span(), text.get_ref())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) name: Spanned<String>,
    pub(super) network: Spanned<String>,
    pub(super) netns: Option<Spanned<PathBuf>>,
    pub(super) pid: Option<Spanned<u32>>,
    pub(super) address: Option<Spanned<OneOrMany>>,
    pub(super) interface: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) forwarding: bool,
    pub(super) allowed_sources: Option<Spanned<OneOrMany>>,
}

/// A text or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// `"auto"` or a number of bytes.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number of bytes")]
pub(super) enum Mtu {
    Bytes(u16),
    Word(AutoWord),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AutoWord {
    Auto,
}
