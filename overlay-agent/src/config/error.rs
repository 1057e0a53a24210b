//! What can be wrong with a configuration, each with its place and its cure.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnet::Ipv4Net;
use overlay_common::maps::MAX_PREFIX_LENGTHS;

use crate::model::InvalidValue;

/// A configuration that was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("read configuration {}: {cause}; give the path of an existing file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// The file was read and is wrong; nothing of it is used.
    #[error(transparent)]
    Invalid(#[from] Faults),
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Debug)]
pub struct Faults {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub faults: Vec<Located>,
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{fault}", self.path.display())?;
        }
        Ok(())
    }
}

/// A fault and its place.
#[derive(Debug)]
pub struct Located {
    /// Line in the file, from 1.
    pub line: usize,
    /// Path of the key, for instance `networks[0].peers[2].vtep`; empty for a syntax error.
    pub field: String,
    /// What is wrong there.
    pub fault: Fault,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.fault)
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not TOML, or a key that is unknown, missing or of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// A text that is not what it should be.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// Not an address.
    #[error("{0:?} is no IP address; write it as 192.168.56.12")]
    Address(String),
    /// Not a prefix.
    #[error("{0:?} is no subnet; write it as 10.244.1.0/24")]
    Subnet(String),
    /// Bits beyond the prefix are set.
    #[error("{given} has host bits set; write {network}")]
    HostBits {
        /// As configured.
        given: Ipv4Net,
        /// As it should be.
        network: Ipv4Net,
    },
    /// Where IPv6 would stand.
    #[error("{0} is IPv6, which this version does not carry yet; use IPv4")]
    Ipv6(String),
    /// A list with nothing or too much in it.
    #[error("{what} takes {takes}, not {given}; {cure}")]
    Number {
        /// The thing counted.
        what: &'static str,
        /// How many it takes.
        takes: &'static str,
        /// How many were given.
        given: usize,
        /// What to do.
        cure: &'static str,
    },
    /// A subnet that is not part of its network.
    #[error("{subnet} is not inside the network's cidr {cidr}; choose a part of it")]
    Outside {
        /// The subnet.
        subnet: Ipv4Net,
        /// The network.
        cidr: Ipv4Net,
    },
    /// Two subnets share addresses.
    #[error("{subnet} overlaps {other} of {owner}; give every node its own part")]
    Overlap {
        /// The subnet here.
        subnet: Ipv4Net,
        /// The one it overlaps.
        other: Ipv4Net,
        /// Whose that is.
        owner: String,
    },
    /// No room for a gateway and an endpoint.
    #[error("{0} has no room for a gateway and an endpoint; use a prefix of /30 or shorter")]
    TooSmall(Ipv4Net),
    /// The same value twice where it must be unique.
    #[error("{what} {value} is used twice, first by {first}; each must have its own")]
    Duplicate {
        /// The kind of value.
        what: &'static str,
        /// The value.
        value: String,
        /// The field of its first use.
        first: String,
    },
    /// A VTEP that is this node's own.
    #[error("{0} is this node's own underlay address; a peer is another node")]
    OwnVtep(IpAddr),
    /// A VTEP that no packet can be sent to.
    #[error("{0} cannot be a VTEP; use a unicast address of the peer's underlay interface")]
    NotUnicast(IpAddr),
    /// A port that UDP does not have.
    #[error("0 is no UDP port; use 4789, or 8472 to join flannel")]
    PortZero,
    /// An MTU out of bounds.
    #[error("an MTU of {0} is out of range; use \"auto\", or 576 to 65485")]
    Mtu(u16),
    /// Something that is planned and not built.
    #[error("{0} is not built yet; {1}")]
    NotBuilt(&'static str, &'static str),
    /// A reference to a network that is not there.
    #[error("there is no network {0:?}; name one of [[networks]]")]
    NoSuchNetwork(String),
    /// Not one of two alternatives.
    #[error("an endpoint has either netns or pid; {0}")]
    NetnsOrPid(&'static str),
    /// A relative path to a namespace.
    #[error(
        "{0:?} is neither a name nor an absolute path; write a name such as \"web\", or a path such as \"/proc/1234/ns/net\""
    )]
    NetnsPath(PathBuf),
    /// An endpoint's address that its node does not have.
    #[error(
        "{address} is not an address for endpoints of {subnet}; use one from {first} to {last}"
    )]
    NotForEndpoints {
        /// As configured.
        address: IpAddr,
        /// The node's share.
        subnet: Ipv4Net,
        /// The first that an endpoint can have.
        first: IpAddr,
        /// The last that an endpoint can have.
        last: IpAddr,
    },
    /// More lengths of prefixes than the data plane looks up.
    #[error(
        "the peers' subnets have {0} different prefix lengths, the data plane takes {MAX_PREFIX_LENGTHS}; use fewer, or fastpath = \"off\""
    )]
    PrefixLengths(usize),
}
