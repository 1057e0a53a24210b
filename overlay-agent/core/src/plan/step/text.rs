//! Steps as `plan` prints them.

use std::fmt;

use super::{Change, Step};
use crate::{
    model::IfName,
    objects::{
        FilterRules, GuardRules, Link, LinkId, LinkKind, Masquerade, Route, RouteKey, Scope,
    },
    plural::count_of,
};

const LET_RETURN: &str = "have connection tracking go on with TCP that comes back to the kernel";

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNamespace { name } => write!(f, "add namespace {name}"),
            Self::DeleteNamespace { name } => write!(f, "delete namespace {name}"),
            Self::SetSysctl { key, from, to } => set_sysctl(f, key, from.as_deref(), to),
            Self::CreateLink { id, link, .. } => create_link(f, id, link),
            Self::DeleteLink { id } => write!(f, "delete link {id}"),
            Self::ChangeLink { id, change } => write!(f, "set link {id} {change}"),
            Self::AddAddress { address } => {
                write!(f, "add address {} to {}", address.net, address.link)
            }
            Self::DeleteAddress { address } => {
                write!(f, "delete address {} from {}", address.net, address.link)
            }
            Self::SetRoute { key, route } => set_route(f, key, route),
            Self::DeleteRoute { key, dev } => {
                write!(
                    f,
                    "delete route {} dev {dev}{}",
                    key.destination,
                    of(&key.scope)
                )
            }
            Self::AddLastResort { cidr } => write!(f, "add unreachable route {cidr}"),
            Self::DeleteLastResort { cidr } => write!(f, "delete unreachable route {cidr}"),
            Self::SetNeighbour { link, address, mac } => {
                write!(f, "set neighbour {address} lladdr {mac} dev {link}")
            }
            Self::DeleteNeighbour { link, address } => {
                write!(f, "delete neighbour {address} dev {link}")
            }
            Self::SetFdb { .. }
            | Self::SetWireguard { .. }
            | Self::SetWireguardPeer { .. }
            | Self::SetWireguardKeepalive { .. }
            | Self::DeleteWireguardPeer { .. } => tunnel(f, self),
            Self::DeleteFdb { link, mac } => write!(f, "delete fdb {mac} dev {link}"),
            Self::DeleteStrayFdb { entry } => write!(f, "delete foreign fdb {entry}"),
            Self::SetNetwork { vni, .. } => write!(f, "map network {vni}"),
            Self::DeleteNetwork { vni } => write!(f, "unmap network {vni}"),
            Self::SetVtep {
                vni, vtep, slot, ..
            } => {
                write!(f, "map VTEP {vtep} of network {vni} as slot {slot}")
            }
            Self::DeleteVtep { vni, vtep, .. } => write!(f, "unmap VTEP {vtep} of network {vni}"),
            Self::SetPeer { vni, prefix, peer } => {
                write!(
                    f,
                    "map {prefix} of network {vni} to VTEP {} via {} dev {}",
                    peer.vtep, peer.next_hop, peer.underlay
                )
            }
            Self::DeletePeer { vni, prefix } => write!(f, "unmap {prefix} of network {vni}"),
            Self::ClearSlot { link, slot } => write!(f, "count for {link} in slot {slot}"),
            Self::SetEndpoint {
                vni,
                address,
                endpoint,
            } => {
                write!(
                    f,
                    "map endpoint {address} of network {vni} to {} at {}",
                    endpoint.link, endpoint.mac
                )
            }
            Self::DeleteEndpoint { vni, address } => {
                write!(f, "unmap endpoint {address} of network {vni}")
            }
            Self::SetPort { link, port } => {
                write!(f, "map port {link} of network {}", port.network.vni)
            }
            Self::DeletePort { link } => write!(f, "unmap port {link}"),
            Self::SetSource { link, prefix } => write!(f, "map source {prefix} of port {link}"),
            Self::DeleteSource { link, prefix } => {
                write!(f, "unmap source {prefix} of port {link}")
            }
            Self::SetCidr { cidr, vni } => write!(f, "map cidr {cidr} of network {vni}"),
            Self::DeleteCidr { cidr } => write!(f, "unmap cidr {cidr}"),
            Self::DeleteStray { stray } => {
                write!(f, "delete the foreign row of map {} {stray}", stray.map)
            }
            Self::LetReturn { .. } => f.write_str(LET_RETURN),
            Self::PinMap { map } => write!(f, "pin map {map}"),
            Self::SetFilter { rules } => set_filter(f, rules),
            Self::DeleteFilter => f.write_str("delete packet filter rules"),
            Self::SetGuard { rules } => set_guard(f, rules),
            Self::DeleteGuard => f.write_str("delete the guard of the tunnels' ports"),
            Self::Attach { link, hook } => write!(f, "attach {hook} to {link}"),
            Self::Detach { link, hook } => write!(f, "detach {hook} from {link}"),
            Self::DeleteQdisc { link } => write!(f, "delete the clsact qdisc of {link}"),
            Self::DeleteLayout { abi } => write!(f, "remove the maps of ABI {abi}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Mtu(mtu) => write!(f, "mtu {mtu}"),
            Self::Up(up) => f.write_str(if *up { "up" } else { "down" }),
            Self::Master(Some(bridge)) => write!(f, "master {bridge}"),
            Self::Master(None) => f.write_str("nomaster"),
            Self::Alias(alias) => write!(f, "alias {alias}"),
            Self::Settings => f.write_str("settings as it was made"),
            Self::Sizes => f.write_str("gso_max_size and gro_max_size up to 65536"),
        }
    }
}

fn set_sysctl(f: &mut fmt::Formatter<'_>, key: &str, from: Option<&str>, to: &str) -> fmt::Result {
    match from {
        Some(from) => write!(f, "set {key} from {from} to {to}"),
        None => write!(f, "set {key} to {to}"),
    }
}

fn create_link(f: &mut fmt::Formatter<'_>, id: &LinkId, link: &Link) -> fmt::Result {
    match &link.kind {
        LinkKind::Bridge => write!(f, "add bridge {id}"),
        LinkKind::Vxlan(vxlan) => {
            write!(
                f,
                "add vxlan {id} id {} local {} dstport {} nolearning{}",
                vxlan.vni,
                vxlan.local,
                vxlan.port,
                if vxlan.copies_dscp {
                    " tos inherit"
                } else {
                    ""
                }
            )
        }
        LinkKind::Wireguard => write!(f, "add wireguard {id}"),
        LinkKind::Veth { peer } => write!(f, "add veth {id} peer {peer}"),
        LinkKind::VethPeer { host } => write!(f, "add veth {host} peer {id}"),
        LinkKind::Other => write!(f, "add link {id}"),
    }?;
    if let Some(mac) = link.mac {
        write!(f, " address {mac}")?;
    }
    write!(f, " mtu {}", link.mtu)?;
    match link.master {
        Some(bridge) => write!(f, " master {bridge}"),
        None => Ok(()),
    }
}

/// Steps for the entries that lead packets of a tunnel to a peer.
fn tunnel(f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
    match step {
        Step::SetFdb {
            link,
            mac,
            vtep,
            via,
        } => {
            write!(f, "set fdb {mac} dst {vtep}")?;
            if let Some(via) = via {
                write!(f, " via {via}")?;
            }
            write!(f, " dev {link}")
        }
        Step::SetWireguard { link, port, .. } => {
            write!(f, "set wireguard {link} to this node's key and port {port}")
        }
        Step::SetWireguardPeer { link, key, peer } => {
            write!(f, "set wireguard {link} peer {key}")?;
            let mut allowed = peer.allowed.iter();
            allowed.try_for_each(|net| write!(f, " {}", net.addr()))
        }
        Step::SetWireguardKeepalive { link, key, seconds } => {
            write!(f, "set wireguard {link} peer {key} keepalive {seconds} s")
        }
        Step::DeleteWireguardPeer { link, key } => {
            write!(f, "delete peer {key} of wireguard {link}")
        }
        _ => Ok(()),
    }
}

fn set_route(f: &mut fmt::Formatter<'_>, key: &RouteKey, route: &Route) -> fmt::Result {
    write!(
        f,
        "set route {} via {} dev {}",
        key.destination, route.via, route.dev
    )?;
    if route.onlink {
        f.write_str(" onlink")?;
    }
    if let Some(source) = route.source {
        write!(f, " src {source}")?;
    }
    if let Some(mtu) = route.mtu {
        write!(f, " mtu {mtu}")?;
    }
    if key.metric != 0 {
        write!(f, " metric {}", key.metric)?;
    }
    f.write_str(&of(&key.scope))
}

fn set_filter(f: &mut fmt::Formatter<'_>, rules: &FilterRules) -> fmt::Result {
    f.write_str("set packet filter rules")?;
    if !rules.isolated.is_empty() {
        let devices: Vec<&str> = rules.isolated.iter().map(IfName::as_str).collect();
        let pairs = rules.together.len();
        let pairs = count_of(pairs, "pair");
        write!(f, " isolate {} but {pairs}", devices.join(","))?;
    }
    for Masquerade { subnet, cidr, .. } in &rules.masqueraded {
        write!(f, " masquerade {subnet} to other than {cidr}")?;
    }
    Ok(())
}

fn set_guard(f: &mut fmt::Formatter<'_>, rules: &GuardRules) -> fmt::Result {
    let ports: Vec<String> = rules.ports.iter().map(u16::to_string).collect();
    write!(
        f,
        "guard UDP port {} for {}",
        ports.join(","),
        count_of(rules.senders.vteps.len(), "VTEP")
    )
}

fn of(scope: &Scope) -> String {
    match scope {
        Scope::Node => String::new(),
        Scope::Endpoint(name) => format!(" of endpoint {name}"),
    }
}
