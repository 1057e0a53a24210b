//! Who asks whom, through what the first node translates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_tests::{
    families::Family,
    topology::{Node, Topology},
};

/// Ports of the nodes that lead to a container here, and to one elsewhere.
const HOST_PORT: u16 = 30_080;
const NODE_PORT: u16 = 30_081;
pub(crate) const PORT: u16 = 8_080;

/// The node's address towards outside.
pub(crate) fn gate(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1).into(),
    }
}

/// Addresses that no node has: of services with a backend on the other node, on this one, at the
/// other node itself, and at whoever asks.
pub(crate) fn service(number: u16, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, number.to_be_bytes()[1]).into(),
        Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number).into(),
    }
}
pub(crate) const REMOTE: u16 = 1;
pub(crate) const LOCAL: u16 = 2;
const NODE: u16 = 3;
const ITSELF: u16 = 4;

/// Somebody asks at an address, and somebody answers at another.
pub(crate) struct Case<'a> {
    pub(crate) name: &'static str,
    pub(crate) client: &'a str,
    pub(crate) at: IpAddr,
    pub(crate) server: &'a str,
    pub(crate) backend: IpAddr,
    pub(crate) port: u16,
    /// Whether it needs what a bridge forwards to pass the packet filter (`Some(true)`), or not to
    /// pass it (`Some(false)`): so it is with the kernel alone.
    pub(crate) filtered: Option<bool>,
}

impl Case<'_> {
    fn filtered(self, filtered: bool) -> Self {
        Self {
            filtered: Some(filtered),
            ..self
        }
    }
}

fn gateway_of(node: &Node, family: Family) -> IpAddr {
    let Some(gateway) = node.gateway_at(family) else {
        panic!("a bridge has an address")
    };
    gateway
}

pub(crate) fn cases<'a>(topology: &'a Topology, outside: &'a str, family: Family) -> Vec<Case<'a>> {
    let [node, other] = topology.two_nodes();
    let [client, near] = &node.containers[..] else {
        panic!("two containers")
    };
    let far = &other.containers[0];
    let case = |name, from: &'a str, at, to: (&'a str, IpAddr), port| Case {
        name,
        client: from,
        at,
        server: to.0,
        backend: to.1,
        port,
        filtered: None,
    };
    let own = (&*client.namespace, client.at(family));
    let neighbour = (&*near.namespace, near.at(family));
    let remote = (&*far.namespace, far.at(family));
    let gateway = gateway_of(node, family);
    let (from, host) = (&*client.namespace, &*node.namespace);
    let peer = &*other.namespace;
    let vip = |number| service(number, family);
    let mut cases = vec![
        case("container, remote container", from, remote.1, remote, PORT),
        case("container, neighbour", from, neighbour.1, neighbour, PORT),
        case("node, remote container", host, remote.1, remote, PORT),
        case("service elsewhere", from, vip(REMOTE), remote, PORT),
        case("service here", from, vip(LOCAL), neighbour, PORT).filtered(true),
        case("service at itself", from, vip(ITSELF), own, PORT).filtered(false),
        case("outside, host port", outside, gate(family), own, HOST_PORT),
        case(
            "outside, node port",
            outside,
            gate(family),
            remote,
            NODE_PORT,
        ),
        case(
            "remote, gateway's host port",
            remote.0,
            gateway,
            own,
            HOST_PORT,
        ),
        case("peer, gateway's host port", peer, gateway, own, HOST_PORT),
        case("node port", from, gateway, remote, NODE_PORT),
        case("own host port", neighbour.0, gateway, own, HOST_PORT).filtered(true),
    ];
    if topology.shape.underlay.all().contains(&family) {
        let at = node.underlay_at(family);
        let there = (peer, other.underlay_at(family));
        cases.extend([
            case("remote, host port", remote.0, at, own, HOST_PORT),
            case("peer, host port", peer, at, own, HOST_PORT),
            case("service at the peer", from, vip(NODE), there, PORT),
            case("the peer", from, there.1, there, PORT),
            case("node, service elsewhere", host, vip(REMOTE), remote, PORT),
        ]);
    }
    cases
}

/// What kube-proxy and a plugin for host ports do with nftables.
pub(crate) fn rules(topology: &Topology) -> String {
    let [node, other] = topology.two_nodes();
    let mut translate = Vec::new();
    let mut masquerade = Vec::new();
    for (family, ip) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let own = node.containers[0].at(family);
        let remote = other.containers[0].at(family);
        for (number, backend) in [
            (REMOTE, remote),
            (LOCAL, node.containers[1].at(family)),
            (NODE, other.underlay_at(family)),
            (ITSELF, own),
        ] {
            let service = service(number, family);
            translate.push(format!("{ip} daddr {service} dnat {ip} to {backend}"));
        }
        for (port, backend) in [(HOST_PORT, own), (NODE_PORT, remote)] {
            translate.push(format!(
                "meta nfproto {} fib daddr type local meta l4proto {{ tcp, udp }} \
                 th dport {port} dnat {ip} to {backend}",
                family_of(family)
            ));
        }
        masquerade.push(format!(
            "ct original {ip} daddr {} masquerade",
            service(ITSELF, family)
        ));
    }
    let (translate, masquerade) = (translate.join("\n"), masquerade.join("\n"));
    format!(
        "table inet svc {{
            chain translate {{
                {translate}
            }}
            chain pre {{
                type nat hook prerouting priority -100
                jump translate
            }}
            chain out {{
                type nat hook output priority -100
                jump translate
            }}
            chain post {{
                type nat hook postrouting priority 100
                {masquerade}
                meta l4proto tcp ct original proto-dst {NODE_PORT} masquerade
                meta l4proto udp ct original proto-dst {NODE_PORT} masquerade
            }}
        }}"
    )
}

fn family_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
