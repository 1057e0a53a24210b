//! The words for what stands in the way and for what is left out, and the ids that `doctor` and
//! `status` know them by.

mod obstacles;
mod problems;

use std::fmt;

use ipnet::IpNet;

use super::{Obstacle, OtherRoute, Problem};
use crate::{
    model::{IfName, Name},
    trouble::Trouble,
};

/// A map has no room for something.
pub const MAP_FULL: &str = "map-full";
/// A container is not in its network.
pub const ENDPOINT_NOT_ATTACHED: &str = "endpoint-not-attached";
/// A peer cannot be sent anything.
pub const PEER_NO_ROUTE: &str = "peer-no-route";
/// An outer address is one of a network's range.
pub const RANGE_AROUND_VTEP: &str = "range-around-vtep";
/// A subnet has addresses of the underlay in it.
pub const SUBNET_AROUND_UNDERLAY: &str = "subnet-around-underlay";
/// A route of somebody else is in the place of one of ours.
pub const ROUTE_TAKEN: &str = "route-taken";
/// A container has a default route of its own.
pub const CONTAINER_DEFAULT_ROUTE: &str = "container-default-route";
/// The underlay, or its address, is not there.
pub const UNDERLAY_MISSING: &str = "underlay-missing";
/// The network's MTU and the underlay's do not go together.
pub const MTU_DOES_NOT_FIT: &str = "mtu-does-not-fit";
/// There can be no packet filter rules.
pub const PACKET_FILTER_MISSING: &str = "packet-filter-missing";
/// The rules do not hold on the kernel's path.
pub const GUARD_TABLE_MISSING: &str = "guard-table-missing";
/// A table of somebody else has the name of the one that would hold them.
pub const GUARD_TABLE_TAKEN: &str = "guard-table-taken";
/// Something that others have hooked in is passed by.
pub const HOOK_PASSED_BY: &str = "hook-passed-by";
/// A device of somebody else has a name that we need.
pub const DEVICE_NAME_TAKEN: &str = "device-name-taken";
/// A VXLAN device of somebody else has the port.
pub const FOREIGN_VXLAN: &str = "foreign-vxlan";
/// A socket has the port.
pub const PORT_TAKEN: &str = "port-taken";
/// The kernel has no `WireGuard`, which a network is to be encrypted with.
pub const WIREGUARD_MISSING: &str = "wireguard-missing";
/// A peer is given this node's own key.
pub const OWN_KEY: &str = "own-key";
/// An address of a network is on a device of the node.
pub const ADDRESS_TAKEN: &str = "address-taken";
/// A gateway's address is somebody else's.
pub const GATEWAY_TAKEN: &str = "gateway-taken";
/// An outer address has two owners.
pub const DUPLICATE_VTEP: &str = "duplicate-vtep";

/// Gives a device that is in the way another name: what it does for whoever made it goes on.
pub fn rename(device: IfName) -> String {
    let mut other = format!("x-{device}");
    // As many bytes as the kernel takes; a name is ASCII or its end is left out.
    while other.len() > 15 {
        other.pop();
    }
    format!("ip link set dev {device} name {other}")
}

/// Whose a device is that stands in the way, and what to do about it: another instance's is in
/// use, so nobody is told to delete that.
fn taken_by(device: IfName, owner: Option<&Name>) -> (String, String) {
    match owner {
        Some(owner) => (
            format!("instance {owner} of this node has a device of this name"),
            "change the configuration of either".to_owned(),
        ),
        None => (
            "the name is taken by a device that this instance did not make".to_owned(),
            format!(
                "see whose it is with \"ip -d link show {device}\", and give it another name with \"{}\"",
                rename(device)
            ),
        ),
    }
}

/// Whose a route is; another instance's is in use.
fn route_taken(destination: IpNet, other: &OtherRoute) -> Trouble {
    let through = match other.device {
        Some(device) => format!("through {device}"),
        None => "through no single device".to_owned(),
    };
    let (what, cure) = match &other.owner {
        Some(owner) => (
            format!("instance {owner} of this node leads there, {through}"),
            "change the configuration of either: two networks of a node cannot have one subnet"
                .to_owned(),
        ),
        None => (
            format!("there is a route already, {through}"),
            format!("remove it with \"ip route del {destination}\""),
        ),
    };
    Trouble::new(ROUTE_TAKEN, destination, what, cure)
}

/// Whose a table is, and what to do: it is in use, so nobody is told to delete it.
fn table_of(table: &str, owner: Option<&Name>) -> (String, String) {
    match owner {
        Some(owner) => (
            format!("instance {owner} of this node has it"),
            "give one of the two another node.name".to_owned(),
        ),
        None => (
            "there is one that this instance did not make, and it is left as it is".to_owned(),
            format!(
                "see what it is for with \"nft list table inet {table}\", and have whoever makes it \
                 call it otherwise, or give this instance another node.name"
            ),
        ),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Trouble::from(self).fmt(f)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Trouble::from(self).fmt(f)
    }
}

impl std::error::Error for Problem {}

impl std::error::Error for Obstacle {}
