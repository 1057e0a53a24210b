//! The words for what is left out.

mod taken;

use std::net::IpAddr;

use self::taken::{address_taken, of_clash};
use super::{
    ADDRESS_TAKEN, CONTAINER_DEFAULT_ROUTE, ENDPOINT_NOT_ATTACHED, GUARD_TABLE_MISSING,
    GUARD_TABLE_TAKEN, HOOK_PASSED_BY, MAP_FULL, OWN_KEY, PEER_NO_ROUTE, RANGE_AROUND_VTEP,
    ROUTE_TAKEN, route_taken, table_of, taken_by,
};
use crate::{
    desired::{Full, Problem, settings::BY_VRFS},
    model::Name,
    trouble::Trouble,
};

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

impl From<&Problem> for Trouble {
    #[expect(clippy::too_many_lines, reason = "a list of words")]
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::PassedBy {
                network,
                endpoint,
                hook,
            } => {
                let whose = match endpoint {
                    Some(endpoint) => format!("endpoint {endpoint}"),
                    None => format!("network {network}"),
                };
                let trouble = Self::new(
                    HOOK_PASSED_BY,
                    hook.device,
                    format!(
                        "{} has no effect on {whose}: {network} requires the fast path, which \
                         passes it by",
                        hook.what
                    ),
                    "remove it, or set fastpath = \"auto\", which leaves what it concerns to the \
                     kernel",
                );
                match endpoint {
                    Some(endpoint) => trouble.of_endpoint(endpoint),
                    None => trouble,
                }
            }
            Problem::Clash(clash) => of_clash(clash),
            Problem::NoGuard { cause } => Self::new(
                GUARD_TABLE_MISSING,
                "nft",
                cause,
                "see what \"nft list ruleset\" says",
            )
            .during("hold the rules of networks on the kernel's path"),
            Problem::GuardTaken { table, owner } => {
                let (what, cure) = table_of(table, owner.as_ref());
                Self::new(GUARD_TABLE_TAKEN, format!("table inet {table}"), what, cure).during(
                    format!(
                        "make nftables table inet {table}, which holds the rules of networks on \
                         the kernel's path"
                    ),
                )
            }
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
            Problem::OwnKey { peer, key } => Self::new(
                OWN_KEY,
                peer,
                format!("{key} is this node's own key: nothing is sent there"),
                "write what \"overlay-agent key\" prints on that node",
            )
            .during(format!("encrypt for peer {peer}")),
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
            Problem::InVrf { name, vrf, vteps } => {
                let rule = |vtep: &IpAddr| {
                    let six = if vtep.is_ipv6() { " -6" } else { "" };
                    format!("\"ip{six} rule add from {vtep} lookup {}\"", vrf.table)
                };
                let rules: Vec<String> = vteps.iter().map(rule).collect();
                let setting = BY_VRFS.replace('/', ".");
                Self::new(
                    PEER_NO_ROUTE,
                    name,
                    format!(
                        "it belongs to VRF {}, and tunnels to none: they need a rule that leads to \
                         the VRF's routes, and a setting by which they get what arrives there",
                        vrf.name
                    ),
                    format!("run {} and \"sysctl -w {setting}=1\"", rules.join(" and ")),
                )
                .during(format!("use underlay {name}"))
            }
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
            Problem::AddressTaken {
                network,
                net,
                device,
                owner,
                whose,
            } => address_taken(network, *net, *device, owner.as_ref(), whose),
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
                format!("process {pid} has ended, or may not be looked at, and its network namespace is not known"),
                match added_to {
                    Some(instance) => format!(
                        "delete it with \"overlay-agent endpoint delete {endpoint} --instance \
                         {instance}\", and add it for the new process"
                    ),
                    None => "correct pid, or name the namespace instead".to_owned(),
                },
            ),
            Problem::NodeNamespace {
                endpoint,
                path,
                other,
            } => {
                let whose = match other {
                    Some(other) => format!("the node of instance {other}"),
                    None => "the node's own".to_owned(),
                };
                attach(
                    endpoint,
                    format!("network namespace {} is {whose}", path.display()),
                    "name the container's",
                )
            }
            Problem::InterfaceTaken {
                endpoint,
                interface,
                path,
            } => attach(
                endpoint,
                format!("{} has an interface {interface} already", path.display()),
                "choose another (--interface NAME, or interface in the configuration file)",
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
