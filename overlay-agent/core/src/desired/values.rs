//! Map rows of networks and devices.

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use ipnet::IpNet;
use overlay_common::maps::{self, MAX_PREFIX_LENGTHS, network_flags};

use super::{Derived, Tunnel, hooks};
use crate::model::{Dscp, Family, Mac, Security, Verdict};

/// The network's entry.
pub(super) fn network(derived: &Derived<'_>) -> maps::Network {
    let network = derived.network;
    let mut value = maps::Network {
        vni: network.vni.get(),
        peer_lengths4: lengths(derived, Family::V4),
        peer_lengths6: lengths(derived, Family::V6),
        flags: flags(derived),
        decrypted_by: derived.decrypted_by,
        mtu: derived.mtu,
        port_be: network.port.to_be_bytes(),
        gateway_mac: derived.gateway_mac.octets(),
        ..maps::Network::zeroed()
    };
    for tunnel in &derived.tunnels {
        match tunnel.local {
            IpAddr::V4(local) => {
                value.vtep = local.octets();
                value.vtep_mac = tunnel.mac.octets();
            }
            IpAddr::V6(local) => {
                value.vtep6 = local.octets();
                value.vtep6_mac = tunnel.mac.octets();
            }
        }
    }
    for range in &network.ranges {
        match range.subnet {
            IpNet::V4(subnet) => {
                value.subnet = subnet.network().octets();
                value.subnet_mask = subnet.netmask().octets();
            }
            IpNet::V6(subnet) => {
                value.subnet6 = subnet.network().octets();
                value.subnet6_mask = subnet.netmask().octets();
            }
        }
    }
    value
}

/// The entry of a VXLAN device.
pub(super) fn tunnel_port(network: maps::Network, tunnel: &Tunnel) -> maps::Port {
    maps::Port {
        network,
        mac: tunnel.mac.octets(),
        ..maps::Port::zeroed()
    }
}

/// The entry of an endpoint's device.
pub(super) fn endpoint_port(
    network: maps::Network,
    addresses: impl Iterator<Item = IpAddr>,
    mac: Mac,
    forwarding: bool,
    hooked: bool,
) -> maps::Port {
    let mut port = maps::Port {
        network,
        mac: mac.octets(),
        flags: (u16::from(forwarding) * maps::endpoint_flags::FORWARDING)
            | (u16::from(hooked) * maps::endpoint_flags::HOOKED),
        ..maps::Port::zeroed()
    };
    for address in addresses {
        match address {
            IpAddr::V4(address) => port.address = address.octets(),
            IpAddr::V6(address) => port.address6 = address.octets(),
        }
    }
    port
}

/// The lengths of the peers' prefixes of a family, longest first.
fn lengths(derived: &Derived<'_>, family: Family) -> [u8; MAX_PREFIX_LENGTHS] {
    let mut lengths = [0; MAX_PREFIX_LENGTHS];
    let in_use = derived.hooks.lengths(derived.network, family);
    for (slot, length) in lengths.iter_mut().zip(in_use.into_iter().rev()) {
        *slot = length;
    }
    lengths
}

fn flags(derived: &Derived<'_>) -> u32 {
    let network = derived.network;
    let Security {
        unknown_vtep,
        inner_source,
        endpoint_source,
        other_networks,
        in_the_clear: _,
        martians,
        malformed,
    } = network.security;
    let rules = [
        (unknown_vtep, network_flags::ANY_VTEP),
        (inner_source, network_flags::ANY_INNER_SOURCE),
        (endpoint_source, network_flags::ANY_ENDPOINT_SOURCE),
        (other_networks, network_flags::OTHER_NETWORKS),
        (martians, network_flags::MARTIANS),
        (malformed, network_flags::MALFORMED),
    ];
    let accepted = rules
        .into_iter()
        .filter(|(verdict, _)| *verdict == Verdict::Accept)
        .fold(0, |flags, (_, flag)| flags | flag);
    // Who is not in the maps is not unknown.
    let unlisted = if derived.crowded {
        network_flags::ANY_VTEP | network_flags::ANY_INNER_SOURCE
    } else {
        0
    };
    let tracked = match derived.followed {
        None => 0,
        Some(false) => network_flags::ONE_PATH,
        Some(true) => network_flags::TRACKED,
    };
    let hooked = if hooks::leaves_tunnels(derived) {
        network_flags::HOOKED
    } else {
        0
    };
    let encrypted = if derived.wireguard.is_some() {
        network_flags::ENCRYPTED
    } else {
        0
    };
    let priority = if derived.keeps_priority {
        network_flags::KEEP_PRIORITY
    } else {
        0
    };
    let accepted = accepted | unlisted | tracked | hooked | encrypted | priority;
    match network.dscp {
        Dscp::Zero => accepted,
        Dscp::Copy => accepted | network_flags::COPY_DSCP,
    }
}
