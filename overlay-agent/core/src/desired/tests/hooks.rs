//! What others have hooked in.

use overlay_common::maps::{endpoint_flags, network_flags};

use super::{CONFIG, bare, build, name};
use crate::{
    desired::{Desired, Problem},
    objects::LinkRef,
    surroundings::{ForeignHook, Observed, Side},
};

fn with(device: &str, side: Side) -> Observed {
    let mut observed = bare();
    let hook = ForeignHook {
        side,
        what: "qdisc tbf".to_owned(),
        spares_redirected: false,
    };
    observed.around.hooks.insert(name(device), vec![hook]);
    observed
}

/// Whether the tunnels, what the endpoint sends and what it gets are left to the kernel.
fn left(desired: &Desired) -> [bool; 3] {
    let entries = &desired.objects.entries;
    let network = entries.networks.values().next().unwrap();
    let port = &entries.ports[&LinkRef::Name(name("ovl-web"))];
    let endpoint = entries.endpoints.values().next().unwrap();
    [
        network.flags & network_flags::HOOKED != 0,
        port.flags & endpoint_flags::HOOKED != 0,
        endpoint.hooked,
    ]
}

#[test]
fn what_a_hook_concerns_is_left_to_the_kernel() {
    for (device, side, expected) in [
        ("ovl-web", Side::Egress, [false, true, true]),
        ("ovl-web", Side::Ingress, [false, true, true]),
        ("ovlbr7", Side::Egress, [false, true, true]),
        ("ovl7", Side::Ingress, [true, false, false]),
        ("eth1", Side::Ingress, [true, false, false]),
        // Packets of the programs pass there, too.
        ("eth1", Side::Egress, [false, false, false]),
        ("eth2", Side::Ingress, [false, false, false]),
    ] {
        let desired = build(CONFIG, &with(device, side)).unwrap();
        assert_eq!(left(&desired), expected, "{device} {side:?}");
        let told = desired.facts.hooks.len() + desired.facts.endpoint_hooks.len();
        assert_eq!(told, usize::from(expected.contains(&true)), "{device}");
    }
}

#[test]
fn a_rule_that_names_an_address_takes_that_address_alone() {
    let mut observed = bare();
    for net in ["10.244.2.9/32", "10.244.1.2/32", "10.244.2.0/24"] {
        let named = &mut observed.around.named;
        named.insert(net.parse().unwrap(), "nft chain inet t c".to_owned());
    }
    let desired = build(CONFIG, &observed).unwrap();
    assert_eq!(left(&desired), [false, true, true]);
    let subnets = &desired.objects.peers.entries.subnets;
    let hooked = subnets.iter().filter(|(_, entry)| entry.hooked);
    let hooked: Vec<String> = hooked.map(|((_, net), _)| net.to_string()).collect();
    assert_eq!(hooked, ["10.244.2.0/24", "10.244.2.9/32"]);
}

#[test]
fn a_network_that_requires_the_fast_path_tells_what_it_passes_by() {
    let required = CONFIG.replace("vni = 7", "vni = 7\nfastpath = \"required\"");
    for device in ["ovl-web", "ovlbr7", "ovl7"] {
        let desired = build(&required, &with(device, Side::Ingress)).unwrap();
        assert_eq!(left(&desired), [false; 3], "{device}");
        let mut problems = desired.problems.iter();
        let told = problems.any(|problem| {
            matches!(problem, Problem::PassedBy { hook, .. } if hook.device == name(device))
        });
        assert!(told, "{device}");
    }
}

#[test]
fn there_is_no_way_to_what_a_route_refuses() {
    let mut observed = bare();
    for net in [
        "10.244.2.9/32",
        "10.244.3.0/24",
        "10.99.0.0/16",
        "10.244.1.0/30",
    ] {
        observed
            .around
            .refused
            .insert(net.parse().unwrap(), "blackhole");
    }
    let desired = build(CONFIG, &observed).unwrap();
    let subnets = &desired.objects.peers.entries.subnets;
    let ways = subnets.iter().map(|((_, net), entry)| {
        let open = matches!(entry.underlay, LinkRef::Name(_));
        (net.to_string(), entry.vtep.to_string(), open)
    });
    let row = |net: &str, vtep: &str, open| (net.to_owned(), vtep.to_owned(), open);
    assert_eq!(
        ways.collect::<Vec<_>>(),
        [
            row("10.244.2.0/24", "192.168.56.12", true),
            row("10.244.2.9/32", "192.168.56.12", false),
            // Without a way anyhow.
            row("10.244.3.0/24", "192.168.60.13", false),
            row("10.244.128.0/20", "192.168.60.13", false),
        ]
    );
    let network = desired.objects.entries.networks.values().next().unwrap();
    assert_eq!(network.peer_lengths4[..4], [32, 24, 20, 0]);
    assert_eq!(network.flags & network_flags::HOOKED, 0);
    // The first of its addresses is the container's.
    assert_eq!(left(&desired), [false, true, true]);
}
