//! Attachments: endpoints that container runtimes ask for, as the agent and its clients name them.
//!
//! A person gives an endpoint a name. A runtime has none to give: it knows a container by its id
//! (64 characters, where a name takes 63), and asks again when it is not sure of what became of its
//! first question. So an attachment is known by a [`Key`] and by the identity of its namespace, every
//! request can be repeated, and a refusal has a [`Kind`] that a program can act on.
//!
//! This crate has no more than the values and a client that waits for its answers, so that a program
//! that is one starts in no time.

pub mod client;
pub mod files;
pub mod nameless;
pub mod netns;
mod spool;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use spool::Spool;

/// Labels that an attachment can have.
pub const MAX_LABELS: usize = 16;
/// Bytes that a source, a container id, a label's name and a label's value can have.
pub const MAX_TEXT: usize = 253;

/// Identity of an attachment: two with equal keys are the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The source that asks for it, such as `cni:NETWORK`.
    pub source: String,
    /// The runtime's name for the container.
    pub container: String,
    /// The interface inside.
    pub interface: String,
}

impl Key {
    /// The name of its endpoint: short enough for a device's, and the same whenever it is derived.
    ///
    /// `readable` comes before it, as far as it can be part of a name.
    pub fn name(&self, readable: Option<&str>) -> String {
        let clean = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
                c
            } else {
                '-'
            }
        };
        let readable: String = readable
            .unwrap_or("c")
            .chars()
            .map(clean)
            .take(40)
            .collect();
        let readable = readable.trim_matches(['-', '.', '_']);
        let readable = if readable.is_empty() { "c" } else { readable };
        format!("{readable}-{:012x}", self.hash() >> 16)
    }

    /// 64 bits of FNV-1a, with an end of each part.
    fn hash(&self) -> u64 {
        let parts = [&self.source, &self.container, &self.interface];
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// A network namespace as the client has it before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// A file that stands for it.
    pub path: PathBuf,
    /// Device number of that file, in the kernel's encoding (`st_dev`).
    pub dev: u64,
    /// Its inode number.
    pub inode: u64,
}

/// An attachment as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its identity.
    pub key: Key,
    /// The overlay network; the only one when it is left out.
    pub network: Option<String>,
    /// Where it is to be.
    pub netns: Namespace,
    /// Its addresses, at most one of a family; the next free one of each that is left out.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its hardware address; derived from its address when left out.
    #[serde(default)]
    pub mac: Option<String>,
    /// Names for people.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether an attachment of the same key in another namespace gives way to it.
    #[serde(default)]
    pub replace: bool,
    /// Whether its runtime sets the default route, because it knows of the container's other networks.
    #[serde(default, skip_serializing_if = "is_not")]
    pub routed_by_runtime: bool,
}

/// What is left out of a request as long as nobody asks for it, so that older agents understand it.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_not(asked: &bool) -> bool {
    !asked
}

/// An address that is asked for before there is a container for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The overlay network.
    pub network: String,
    /// Whether it is to be of IPv6.
    pub v6: bool,
    /// Which one; one that is free when it is left out.
    pub address: Option<IpAddr>,
}

/// An attachment that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwanted {
    /// Its identity.
    pub key: Key,
    /// Only if its namespace is gone.
    #[serde(default)]
    pub if_gone: bool,
}

/// A client's view of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Believed {
    /// Its identity.
    pub key: Key,
    /// Where it is.
    pub netns: Namespace,
    /// Addresses that the interface has.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Where routes lead through the interface, in whatever table.
    #[serde(default)]
    pub routes: Vec<IpNet>,
}

/// An attachment that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its identity.
    pub key: Key,
    /// The name of its endpoint.
    pub name: String,
    /// Its network.
    pub network: String,
    /// The node's side of its veth.
    pub device: String,
    /// Its hardware address inside.
    pub mac: String,
    /// In bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<AttachedAddress>,
    /// The name servers, where the agent answers for names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Whether it was there before it was asked for.
    pub existed: bool,
}

/// Name servers for a network's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The servers to ask.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
}

/// An address of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedAddress {
    /// With the length of the prefix that is on the link.
    pub net: IpNet,
    /// The node's address there.
    pub gateway: IpAddr,
    /// Whether the default route leads to the gateway.
    pub default_route: bool,
}

/// A network that containers can be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub network: String,
    /// The node's address of each family, with the length of the subnet that containers get theirs from.
    pub gateways: Vec<IpNet>,
}

/// A request that was not carried out, and has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: Kind,
    /// For people: what was tried, with what, why it failed, and what to do.
    pub message: String,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is no attachment of this key.
    NotFound,
    /// The attachment of this key is in another namespace.
    ExistsElsewhere,
    /// The namespace has an interface of this name that is another's.
    InterfaceTaken,
    /// An address that is asked for is another's.
    AddressTaken,
    /// The network has no address left.
    Full,
    /// There is no such network.
    NoNetwork,
    /// The path leads to no namespace, or to another one than it does for the client.
    NoNamespace,
    /// It is the node's own namespace.
    NodeNamespace,
    /// The namespace is still there.
    Alive,
    /// The attachment differs from the client's view.
    Differs,
    /// The agent, or the node, is not as it should be; to ask again later can help.
    Busy,
    /// It makes no sense.
    Invalid,
    /// It was tried, and has failed.
    Failed,
}

/// Requests, as they stand on a line of the agent's socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Attaches a container.
    AttachmentAdd(Wanted),
    /// Detaches it.
    AttachmentDel(Unwanted),
    /// Tells whether it is as believed.
    AttachmentCheck(Believed),
    /// Tells which there are of a source.
    AttachmentList {
        /// The source.
        source: String,
    },
    /// Tells whether one could be added.
    AttachmentReady {
        /// The network; the only one when it is left out.
        network: Option<String>,
    },
    /// Tells which networks there are.
    AttachmentNetworks {},
    /// Keeps an address for a container that is about to come, for a minute.
    AddressHold(Hold),
    /// Gives it back.
    AddressRelease {
        /// The address.
        address: IpAddr,
    },
}

/// The agent's replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The attachment.
    Attached(Box<Attached>),
    /// Those of a source.
    Attachments(Vec<Key>),
    /// Networks that containers can be attached to.
    Offers(Vec<Offer>),
    /// An address that is kept, with the length of the prefix that is on the link.
    Held(IpNet),
    /// It is so now.
    Done,
    /// It is not.
    Refused(Refusal),
    /// The request is not understood.
    BadInput(String),
    /// It has failed.
    Failed(String),
}

/// The agent's socket in its runtime folder.
pub fn socket(runtime: &Path) -> PathBuf {
    runtime.join("api.sock")
}

#[cfg(test)]
mod tests {
    use super::{Key, Request, Unwanted};

    fn key(container: &str) -> Key {
        Key {
            source: "cni:lab".to_owned(),
            container: container.to_owned(),
            interface: "eth0".to_owned(),
        }
    }

    #[test]
    fn names_are_short_tell_keys_apart_and_stay() {
        let long = "f".repeat(64);
        let name = key(&long).name(Some(
            "/a pod with a name that is much too long for any device/",
        ));
        assert_eq!(
            name.len(),
            "a-pod-with-a-name-that-is-much-too-long".len() + 13
        );
        assert!(name.starts_with("a-pod-with-a-name"));
        assert_eq!(key(&long).name(None), key(&long).name(None));
        assert_ne!(key("a").name(None), key("b").name(None));
        let moved = Key {
            source: "cni:la".to_owned(),
            container: "bx".to_owned(),
            ..key("")
        };
        let other = Key {
            source: "cni:lab".to_owned(),
            container: "x".to_owned(),
            ..key("")
        };
        assert_ne!(moved.name(None), other.name(None));
        assert!(key("a").name(Some("--")).starts_with("c-"));
    }

    #[test]
    fn requests_have_the_agents_form() {
        let request = Request::AttachmentDel(Unwanted {
            key: key("a"),
            if_gone: false,
        });
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(
            text,
            r#"{"op":"attachment_del","key":{"source":"cni:lab","container":"a","interface":"eth0"},"if_gone":false}"#
        );
    }
}
