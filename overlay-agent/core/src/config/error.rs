//! Faults of a configuration, each with its place and its cure.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use overlay_common::maps::MAX_PREFIX_LENGTHS;

use crate::model::{Family, InvalidValue};

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
    /// The fault.
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
    /// A name of an endpoint that commands take for something else.
    #[error(
        "{name:?} cannot be an endpoint's name, because explain, ping and capture take it for {taken}; choose another"
    )]
    EndpointName {
        /// As configured.
        name: String,
        /// Its other use.
        taken: &'static str,
    },
    /// A text that is not what it should be.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// Not an address.
    #[error(
        "invalid IP address {0:?}; write an address alone, such as 10.244.1.20 or fd00:244:0:1::20"
    )]
    Address(String),
    /// Not an outer address.
    #[error(
        "invalid IP address {0:?}; write an address of the underlay alone, such as 192.168.56.12 or 2001:db8::12"
    )]
    Vtep(String),
    /// A peer that is called as this node is.
    #[error(
        "{0} is this node's own name, and a peer is another node; correct the peer's name or node.name, or remove the peer"
    )]
    OwnName(String),
    /// Not a prefix.
    #[error(
        "invalid prefix {0:?}; write an address and a length, such as 10.244.1.0/24 or fd00:244:0:1::/64"
    )]
    Subnet(String),
    /// Addresses that no container can have.
    #[error(
        "{cidr} is part of {others}, {what}; choose another range, such as 10.244.0.0/16 or fd00:244::/48"
    )]
    Nobodys {
        /// As configured.
        cidr: IpNet,
        /// Those.
        others: IpNet,
        /// Their kind.
        what: &'static str,
    },
    /// Bits beyond the prefix are set.
    #[error("{given} has host bits set; write {network}")]
    HostBits {
        /// As configured.
        given: IpNet,
        /// As it should be.
        network: IpNet,
    },
    /// More than one of a family.
    #[error("{what} has two {family} values, {first} and {second}; keep one of them")]
    TwoOfFamily {
        /// The object that has them.
        what: &'static str,
        /// Their family.
        family: Family,
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// A network without a share for this node.
    #[error(
        "this node has no part of the network's {cidr}; add a subnet inside it, or remove {cidr} from cidr"
    )]
    NoShare {
        /// The network's addresses.
        cidr: IpNet,
    },
    /// Something of a family that the network does not have.
    #[error(
        "{value} is {family}, and the network has no {family} cidr; add one, or remove {value}"
    )]
    NoSuchFamily {
        /// The subnet or address.
        value: String,
        /// Its family.
        family: Family,
    },
    /// A list with nothing or too much in it.
    #[error("{what} takes {takes}, not {given}; {cure}")]
    Number {
        /// The thing counted.
        what: &'static str,
        /// How many it takes.
        takes: &'static str,
        /// How many were given.
        given: usize,
        /// The cure.
        cure: &'static str,
    },
    /// A subnet that is not part of its network.
    #[error("{subnet} is not inside the network's cidr {cidr}; choose a part of it")]
    Outside {
        /// The subnet.
        subnet: IpNet,
        /// The network.
        cidr: IpNet,
    },
    /// Two subnets share addresses.
    #[error("{subnet} overlaps {other} of {owner}; give every node its own part")]
    Overlap {
        /// The subnet here.
        subnet: IpNet,
        /// The one it overlaps.
        other: IpNet,
        /// Whose that is.
        owner: String,
    },
    /// An outer address that packets of the tunnel itself could not be sent to.
    #[error(
        "{subnet} of {owner} has the VTEP {vtep} in it, and what is sent there would go into the tunnel; give the network addresses that no node has"
    )]
    AroundVtep {
        /// The subnet.
        subnet: IpNet,
        /// Whose that is.
        owner: String,
        /// The outer address.
        vtep: IpAddr,
    },
    /// No room for a gateway and an endpoint.
    #[error(
        "{subnet} has no room for a gateway and an endpoint; use a prefix of /{longest} or shorter"
    )]
    TooSmall {
        /// The subnet.
        subnet: IpNet,
        /// The longest prefix that has room, in bits.
        longest: u8,
    },
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
    /// An outer address beside an underlay that is one.
    #[error(
        "node.underlay is an address already; name there the interfaces where tunnel packets arrive, such as \"eth1\", and here the address"
    )]
    VtepTwice,
    /// A VTEP that no packet can be sent to.
    #[error("{address} cannot be a VTEP; use a unicast address of {whose} underlay interface")]
    NotUnicast {
        /// As configured.
        address: IpAddr,
        /// Whose it would be.
        whose: &'static str,
    },
    /// No member of etcd.
    #[error(
        "{0:?} is not a member of etcd; write it as \"https://192.0.2.1:2379\", or \"http://…\" without TLS"
    )]
    Member(String),
    /// One of two that make sense together alone.
    #[error("{given} is given without {lacking}; give both, or neither")]
    Half {
        /// The key that is there,
        given: &'static str,
        /// and the one that is not.
        lacking: &'static str,
    },
    /// Members with TLS, and nothing to know them by.
    #[error(
        "members at https:// are known by their certificates, and there is no cluster.ca; give the file of the CA that \
         has signed them"
    )]
    NoCa,
    /// Certificates where there is no TLS.
    #[error("{0} is for members with TLS; write them as https:// in cluster.etcd, or leave it out")]
    NoTls(&'static str),
    /// A path that depends on where the agent was started.
    #[error("{} is not a whole path; begin it with a slash", .0.display())]
    NotWhole(PathBuf),
    /// Where no keys of flannel's can be.
    #[error("{0:?} is not a prefix of keys; write it as \"/coreos.com/network\"")]
    StorePrefix(String),
    /// A port that UDP does not have.
    #[error("0 is not a UDP port; use 4789, or 8472 to join flannel")]
    PortZero,
    /// An MTU out of bounds.
    #[error("an MTU of {0} is out of range; use \"auto\", or 576 to 65485")]
    Mtu(u16),
    /// An MTU that IPv6 forbids.
    #[error(
        "an MTU of {0} is too small for IPv6; use \"auto\", or at least 1280 (RFC 8200), or remove the IPv6 subnets"
    )]
    MtuForIpv6(u16),
    /// Stripping in XDP without a program there.
    #[error("rx = \"xdp\" needs the program in the driver; set guard = \"native\", or rx = \"tc\"")]
    RxWithoutGuard,
    /// A checksum over IPv6 to a VTEP that has none.
    #[error("{0} is not an IPv6 VTEP, and only IPv6 needs the checksum; remove udp6_checksum")]
    ChecksumOverIpv4(IpAddr),
    /// A peer of an encrypted network without a key.
    #[error(
        "the network is encrypted, and the peer has no public_key; add what \"overlay-agent key\" prints on that node"
    )]
    NoPublicKey,
    /// Outer IPv6, of an encrypted network.
    #[error("encryption takes only IPv4 VTEPs, and {0} is not one; give the peer's IPv4 address")]
    EncryptedOverIpv6(IpAddr),
    /// A port for `WireGuard` that cannot be its own.
    #[error("UDP port {port} {what}; choose another {key}, the same on all nodes")]
    WireGuardPort {
        /// The port.
        port: u16,
        /// The fault.
        what: String,
        /// Where it is given.
        key: &'static str,
    },
    /// A port for `WireGuard` without it.
    #[error("the network is not encrypted; set encryption = \"wireguard\", or remove the port")]
    NotEncrypted,
    /// Sources behind an endpoint that has nobody behind it.
    #[error(
        "only an endpoint that forwards has others behind it; set forwarding = true, or remove allowed_sources"
    )]
    NotForwarding,
    /// Sources that are somebody else's.
    #[error(
        "{prefix} overlaps {other} of {owner}; let the endpoint send only from what nobody else has"
    )]
    SourceTaken {
        /// The prefix.
        prefix: IpNet,
        /// The other prefix.
        other: IpNet,
        /// Whose that is.
        owner: String,
    },
    /// A reference to a network that is not there.
    #[error("there is no network {0:?}; name one of [[networks]]")]
    NoSuchNetwork(String),
    /// Not the number of a process.
    #[error("0 is not the number of a process; write that of one that runs in the container")]
    Pid,
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
        subnet: IpNet,
        /// The first that an endpoint can have.
        first: IpAddr,
        /// The last that an endpoint can have.
        last: IpAddr,
    },
    /// More lengths of prefixes than the data plane looks up.
    #[error(
        "the peers' {family} subnets have {lengths} different prefix lengths, the data plane takes {MAX_PREFIX_LENGTHS}; use fewer, or fastpath = \"off\""
    )]
    PrefixLengths {
        /// Their family.
        family: Family,
        /// How many.
        lengths: usize,
    },
}
