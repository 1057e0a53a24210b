//! The words for what stands in the way and for what is left out, and the ids that `doctor` and
//! `status` know them by.

use std::fmt;

use ipnet::IpNet;

use super::{Full, Obstacle, OtherRoute, Problem, obstacles::list};
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
/// A device of somebody else has a name that we need.
pub const DEVICE_NAME_TAKEN: &str = "device-name-taken";
/// A VXLAN device of somebody else has the port.
pub const FOREIGN_VXLAN: &str = "foreign-vxlan";
/// A socket has the port.
pub const PORT_TAKEN: &str = "port-taken";
/// A gateway's address is somebody else's.
pub const GATEWAY_TAKEN: &str = "gateway-taken";
/// An outer address has two owners.
pub const DUPLICATE_VTEP: &str = "duplicate-vtep";

fn left_out(left_out: String, full: Full, means: &str, cure: &'static str) -> Trouble {
    let operation = format!("map {left_out}");
    let what = format!("{}; {means}", filled(full));
    Trouble::new(MAP_FULL, left_out, what, cure).during(operation)
}

fn filled((map, entries): Full) -> String {
    format!("map {map} is full with {entries} entries")
}

fn attach(endpoint: &Name, what: String, cure: impl Into<String>) -> Trouble {
    Trouble::new(ENDPOINT_NOT_ATTACHED, endpoint, what, cure.into())
        .during(format!("attach endpoint {endpoint}"))
        .of_endpoint(endpoint)
}

fn reach(peer: &Name, what: String, cure: String) -> Trouble {
    Trouble::new(PEER_NO_ROUTE, peer, what, cure).during(format!("reach peer {peer}"))
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
            format!("remove it with \"ip link del {device}\""),
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
                "see what it is for with \"nft list table inet {table}\", and rename it, or give \
                 this instance another node.name"
            ),
        ),
    }
}

/// Whose it is that is in use; it is to be removed only where no other instance uses it.
fn in_use(removal: &str, owner: Option<&Name>) -> (String, String) {
    match owner {
        Some(owner) => (format!(" of instance {owner}"), String::new()),
        None => (String::new(), format!("{removal}, or ")),
    }
}

impl From<&Problem> for Trouble {
    #[expect(clippy::too_many_lines, reason = "a list of words")]
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::RangeAroundVtep {
                network,
                cidr,
                vtep,
            } => Self::new(
                RANGE_AROUND_VTEP,
                cidr,
                format!(
                    "{vtep}, which tunnels lead to, is an address of that range, and only a route \
                     to more than the range leads there"
                ),
                format!("give the network another range, or add a route to {vtep}"),
            )
            .during(format!(
                "keep what is for {cidr} of network {network} from leaving this node outside of \
                 its tunnels"
            )),
            Problem::NoWay { peer, vtep } => reach(
                peer,
                format!("the underlay has no route to {vtep}"),
                format!("see \"ip route get {vtep}\""),
            ),
            Problem::NoWayToMore { network, peers } => Self::new(
                PEER_NO_ROUTE,
                network,
                "the underlay has no route to them either",
                "add a route to their underlay addresses",
            )
            .during(format!("reach {peers} more peers of network {network}")),
            Problem::NoTunnel { peer, vtep, family } => reach(
                peer,
                format!("the underlay of this node has no {family} address to send from to {vtep}"),
                "add one, or give the peer another vtep".to_owned(),
            ),
            Problem::PeersLeftOut {
                network,
                peers,
                full,
            } => left_out(
                format!("{peers} peers of network {network}"),
                *full,
                "the kernel's VXLAN device carries them, and checks of outer and inner sources \
                 are off in this network",
                "use fewer peers, or fewer subnets a peer",
            ),
            Problem::NetworkLeftOut { network, full } => left_out(
                format!("network {network}"),
                *full,
                "the kernel's VXLAN device carries the network, without the programs and their \
                 rules",
                "use fewer networks on this node",
            ),
            Problem::RangeLeftOut {
                network,
                cidr,
                full,
            } => left_out(
                format!("{cidr} of network {network}"),
                *full,
                "the kernel's packet filter alone keeps other networks from it",
                "use fewer networks on this node",
            ),
            Problem::TunnelLeftOut {
                network,
                device,
                full,
            } => left_out(
                format!("{device} of network {network}"),
                *full,
                "the kernel's VXLAN device sends what comes from the node itself",
                "remove an endpoint, or use fewer networks on this node",
            ),
            Problem::AddressesLeftOut {
                network,
                addresses,
                full,
            } => left_out(
                format!("{addresses} addresses of containers of network {network}"),
                *full,
                "the kernel delivers what is sent to them",
                "remove endpoints, or attach them to other nodes",
            ),
            Problem::EndpointLeftOut { endpoint, full } => attach(
                endpoint,
                format!(
                    "{}, and without one of its own nothing could tell what the container may send",
                    filled(*full)
                ),
                "remove another endpoint, or allowed_sources of one",
            ),
            Problem::LastResortTaken {
                network,
                cidr,
                metric,
            } => Self::new(
                ROUTE_TAKEN,
                cidr,
                format!("somebody else has a route to {cidr} with metric {metric}"),
                "give that route another metric",
            )
            .during(format!("keep what is for {cidr} of network {network} from leaving this node outside of its tunnels")),
            Problem::RouteTaken {
                endpoint,
                destination,
                other,
            } => route_taken(*destination, other)
            .during(format!("lead {destination} to endpoint {endpoint}"))
            .of_endpoint(endpoint),
            Problem::NoAddress { endpoint, subnet } => attach(
                endpoint,
                format!("all addresses of {subnet} are taken"),
                "remove an endpoint, or give this node a larger subnet",
            ),
            Problem::NoNamespace { endpoint, path } => attach(
                endpoint,
                format!("there is no network namespace {}", path.display()),
                "start the container first, or correct netns or pid",
            ),
            Problem::ProcessEnded {
                endpoint,
                pid,
                added_to,
            } => attach(
                endpoint,
                format!("process {pid} has ended, and its network namespace is not known any more"),
                match added_to {
                    Some(instance) => format!(
                        "delete it with \"overlay-agent endpoint delete {endpoint} --instance \
                         {instance}\", and add it for the new process"
                    ),
                    None => "correct pid, or name the namespace instead".to_owned(),
                },
            ),
            Problem::NodeNamespace { endpoint, path } => attach(
                endpoint,
                format!("{} is the node's own network namespace", path.display()),
                "name the container's",
            ),
            Problem::InterfaceTaken {
                endpoint,
                interface,
                path,
            } => attach(
                endpoint,
                format!("{} has an interface {interface} already", path.display()),
                "choose another with interface = \"NAME\"",
            ),
            Problem::DeviceTaken {
                endpoint,
                device,
                owner,
            } => {
                let (what, cure) = taken_by(*device, owner.as_ref());
                Self::new(
                    ENDPOINT_NOT_ATTACHED,
                    endpoint,
                    what,
                    format!("{cure}, or give the endpoint another name"),
                )
                .during(format!("attach endpoint {endpoint} by device {device}"))
                .of_endpoint(endpoint)
            }
            Problem::SameDeviceName { endpoint, device } => attach(
                endpoint,
                format!("another endpoint has device name {device}"),
                "rename one of them",
            ),
            Problem::OtherDefaultRoute {
                endpoint,
                family,
                device,
            } => Self::new(
                CONTAINER_DEFAULT_ROUTE,
                endpoint,
                format!(
                    "it has an {family} default route through {device} already, and ours is left \
                     out"
                ),
                "add routes to the overlay there yourself",
            )
            .during(format!("route endpoint {endpoint}"))
            .of_endpoint(endpoint),
        }
    }
}

impl From<&Obstacle> for Trouble {
    #[expect(clippy::too_many_lines, reason = "a list of words")]
    fn from(obstacle: &Obstacle) -> Self {
        match obstacle {
            Obstacle::NoSuchUnderlay { name, there } => Self::new(
                UNDERLAY_MISSING,
                name,
                format!("there is no such interface (there are: {})", list(there)),
                "correct node.underlay",
            )
            .during(format!("use underlay {name}")),
            Obstacle::NoSuchAddress { address } => Self::new(
                UNDERLAY_MISSING,
                address,
                "no interface has this address",
                "correct node.underlay, or add it with \"ip address add\"",
            )
            .during(format!("use underlay {address}")),
            Obstacle::NoVtep { underlay } => Self::new(
                UNDERLAY_MISSING,
                list(underlay),
                "no global IPv4 or IPv6 address there",
                "add one with \"ip address add\"",
            )
            .during(format!("use underlay {}", list(underlay))),
            Obstacle::MtuTooBig {
                network,
                mtu,
                room,
                underlay,
            } => Self::new(
                MTU_DOES_NOT_FIT,
                network,
                format!("the underlay's {underlay} leaves {room} bytes"),
                "use mtu = \"auto\", or raise the underlay's MTU",
            )
            .during(format!("set MTU {mtu} on network {network}")),
            Obstacle::MtuForIpv6 {
                network,
                mtu,
                underlay,
                needed,
            } => Self::new(
                MTU_DOES_NOT_FIT,
                network,
                format!("IPv6 needs 1280 bytes and the underlay has {underlay}"),
                format!(
                    "raise the underlay's MTU to {needed}, or remove the network's IPv6 subnets"
                ),
            )
            .during(format!("set MTU {mtu} on network {network}")),
            Obstacle::NoFilter {
                use_for,
                cause,
                instead,
            } => Self::new(
                PACKET_FILTER_MISSING,
                "nft",
                cause.clone(),
                format!("or use {instead}"),
            )
            .during(format!("set the packet filter, which {use_for} needs")),
            Obstacle::TableTaken {
                table,
                use_for,
                owner,
            } => {
                let (what, cure) = table_of(table, owner.as_ref());
                Self::new(
                    PACKET_FILTER_MISSING,
                    format!("table inet {table}"),
                    what,
                    cure,
                )
                .during(format!(
                    "make nftables table inet {table}, which {use_for} needs"
                ))
            }
            Obstacle::DeviceTaken { device, owner } => {
                let (what, cure) = taken_by(*device, owner.as_ref());
                let cure = format!("{cure}, or choose another VNI");
                Self::new(DEVICE_NAME_TAKEN, device, what, cure)
                    .during(format!("make device {device}"))
            }
            Obstacle::PortTaken {
                network,
                port,
                device,
                owner,
            } => {
                let (of, cure) = in_use("remove that device", owner.as_ref());
                Self::new(
                    FOREIGN_VXLAN,
                    device,
                    format!("VXLAN device {device}{of} has it"),
                    format!("{cure}choose another port"),
                )
                .during(format!("open UDP port {port} for network {network}"))
            }
            Obstacle::PortBusy { network, port } => Self::new(
                PORT_TAKEN,
                format!("UDP port {port}"),
                "a socket of another program has it",
                format!("find it with \"ss -lunp sport = {port}\", or choose another port"),
            )
            .during(format!("open UDP port {port} for network {network}")),
            Obstacle::AddressTaken {
                network,
                address,
                bridge,
                device,
                owner,
            } => {
                let (of, cure) = in_use("remove it there", owner.as_ref());
                Self::new(
                    GATEWAY_TAKEN,
                    address,
                    format!("the address is in use on {device}{of}"),
                    format!("{cure}choose another subnet"),
                )
                .during(format!(
                    "give {address} to {bridge} as gateway of network {network}"
                ))
            }
            Obstacle::RouteTaken {
                peer,
                destination,
                other,
            } => route_taken(*destination, other)
                .during(format!("add route {destination} for peer {peer}")),
            Obstacle::OwnVtep {
                network,
                peer,
                vtep,
            } => Self::new(
                DUPLICATE_VTEP,
                vtep,
                format!("{vtep} is this node's own underlay address"),
                "a peer is another node: correct its vtep, or remove it",
            )
            .during(format!("add peer {peer} of network {network}")),
        }
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
