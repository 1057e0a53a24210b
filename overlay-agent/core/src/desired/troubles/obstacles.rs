//! The words for what stands in the way.

use std::net::IpAddr;

use super::{
    DEVICE_NAME_TAKEN, DUPLICATE_VTEP, FOREIGN_VXLAN, GATEWAY_TAKEN, MTU_DOES_NOT_FIT,
    PACKET_FILTER_MISSING, PORT_TAKEN, SUBNET_AROUND_UNDERLAY, UNDERLAY_MISSING, WIREGUARD_MISSING,
    route_taken, table_of, taken_by,
};
use crate::{
    desired::{Obstacle, obstacles::list},
    model::Name,
    trouble::Trouble,
};

/// Whose it is that is in use; it is to be removed only where no other instance uses it.
fn in_use(removal: &str, owner: Option<&Name>) -> (String, String) {
    match owner {
        Some(owner) => (format!(" of instance {owner}"), String::new()),
        None => (String::new(), format!("{removal}, or ")),
    }
}

/// What could have been meant; nothing, where there is none.
fn among(there: &[impl ToString]) -> String {
    /// More nobody reads.
    const SHOWN: usize = 8;
    let mut texts: Vec<String> = there.iter().take(SHOWN).map(ToString::to_string).collect();
    if there.len() > SHOWN {
        texts.push(format!("and {} more", there.len() - SHOWN));
    }
    match texts.as_slice() {
        [] => String::new(),
        texts => format!(" (there are: {})", texts.join(", ")),
    }
}

/// An address to write, or where to write one.
fn or_placeholder(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string())
}

impl From<&Obstacle> for Trouble {
    #[expect(clippy::too_many_lines, reason = "a list of words")]
    fn from(obstacle: &Obstacle) -> Self {
        match obstacle {
            Obstacle::NoSuchUnderlay { name, there } => Self::new(
                UNDERLAY_MISSING,
                name,
                format!("there is no such interface{}", among(there)),
                "correct node.underlay",
            )
            .during(format!("use underlay {name}")),
            Obstacle::UnderlayInside { name, there } => Self::new(
                UNDERLAY_MISSING,
                name,
                format!(
                    "the agent itself has made it, for what is inside of the tunnels{}",
                    among(there)
                ),
                "correct node.underlay: it is where tunnel packets arrive",
            )
            .during(format!("use underlay {name}")),
            Obstacle::NoSuchAddress { address, there } => Self::new(
                UNDERLAY_MISSING,
                address,
                format!(
                    "no interface has this address{}{}",
                    if address.is_ipv6() {
                        ", or IPv6 is still asking whether another machine has it"
                    } else {
                        ""
                    },
                    among(there)
                ),
                format!(
                    "add it with \"ip address add {address}/LENGTH dev DEVICE\", or correct node.vtep or \
                     node.underlay"
                ),
            )
            .during(format!("use {address} as VTEP")),
            Obstacle::VtepGone {
                address,
                underlay,
                instead,
            } => Self::new(
                UNDERLAY_MISSING,
                address,
                format!(
                    "other nodes know this one by it, and {} not have it at present: the tunnels \
                     wait for it",
                    match underlay.as_slice() {
                        [one] => format!("{one} does"),
                        several => format!("{} do", list(several)),
                    }
                ),
                format!(
                    "if it does not come back, write vtep = \"{}\" under [node], and tell the \
                     other nodes",
                    or_placeholder(*instead)
                ),
            )
            .during(format!("use {address} as VTEP")),
            Obstacle::NothingArrives { name, address } => Self::new(
                UNDERLAY_MISSING,
                name,
                "what other machines send never arrives there",
                format!(
                    "under [node], write vtep = \"{}\", and as underlay the interfaces where tunnel \
                     packets arrive, such as [\"eth0\", \"eth1\"]",
                    or_placeholder(*address)
                ),
            )
            .during(format!("use underlay {name}")),
            Obstacle::NoVtep { underlay } => Self::new(
                UNDERLAY_MISSING,
                list(underlay),
                "no global IPv4 or IPv6 address there that stays",
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
            Obstacle::NoWireguard { network, why } => Self::new(
                WIREGUARD_MISSING,
                network,
                why.cause.clone(),
                why.cure.clone(),
            )
            .during(format!("encrypt network {network}")),
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
            Obstacle::NetworkTaken {
                network,
                devices,
                owner,
            } => Self::new(
                DEVICE_NAME_TAKEN,
                list(devices),
                format!("instance {owner} of this node has {}", list(devices)),
                format!(
                    "if this node was called {owner} before, run it with \"--instance {owner}\", or \
                     remove what it left with \"overlay-agent down --instance {owner}\"; else choose \
                     another VNI"
                ),
            )
            .during(format!("make the devices of network {network}")),
            Obstacle::DeviceTaken { device } => {
                let (what, cure) = taken_by(*device, None);
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
                let theirs = format!(
                    "see whose it is with \"ip -d link show {device}\", and have it use another port"
                );
                let (of, cure) = in_use(&theirs, owner.as_ref());
                Self::new(
                    FOREIGN_VXLAN,
                    device,
                    format!("VXLAN device {device}{of} has UDP port {port}"),
                    format!("{cure}choose another port"),
                )
                .during(format!("open UDP port {port} for network {network}"))
            }
            Obstacle::PortBusy { network, port } => Self::new(
                PORT_TAKEN,
                format!("UDP port {port}"),
                format!("a socket of another program has UDP port {port}"),
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
            Obstacle::AroundUnderlay {
                network,
                peer,
                subnet,
                inside,
            } => Self::new(
                SUBNET_AROUND_UNDERLAY,
                subnet,
                format!(
                    "{inside}, is in it: what is for the underlay there would be sent into the \
                     network"
                ),
                "give the network addresses that no node has: change its cidr, and the subnets \
                 of all nodes",
            )
            .during(match peer {
                Some(peer) => format!("add route {subnet} for peer {peer} of network {network}"),
                None => format!("give {subnet} to this node in network {network}"),
            }),
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
