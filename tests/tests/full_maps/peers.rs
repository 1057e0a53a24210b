//! Peers that do not fit.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use overlay_tests::{
    config::Peer,
    counters::Carried,
    families::{Families, Family},
};

use crate::stand::Stand;

/// A peer that is nowhere, and comes first.
fn first(stand: &Stand, family: Family) -> Peer {
    let node = &stand.guard.topology().nodes[0];
    let (vtep, subnet) = match family {
        Family::V4 => (IpAddr::from([192, 168, 56, 99]), "10.244.99.0/24"),
        Family::V6 => {
            let bits = node.underlay6.to_bits() & !0xff;
            (
                Ipv6Addr::from_bits(bits | 0x99).into(),
                "fd00:244:0:99::/64",
            )
        }
    };
    Peer {
        name: "first".to_owned(),
        vtep: vtep.to_string(),
        subnet: vec![subnet.to_owned()],
        ..Peer::default()
    }
}

fn is_reached_by_the_kernel(name: &str, family: Family, entries: &str, full: &str) -> Result<()> {
    let only = match family {
        Family::V4 => Families::V4,
        Family::V6 => Families::V6,
    };
    let stand = Stand::raise(name, (only, only), 1, entries)?;
    let nodes = &stand.guard.topology().nodes;
    let [here, there] = [0, 1].map(|node| {
        let container: &overlay_tests::topology::Container = &nodes[node].containers[0];
        (container.namespace.as_str(), container.at(family))
    });
    // Asked in both directions, so that what arrives is seen, too.
    let meet = || stand.meet(here, there, 2);
    let fast = Carried {
        sent: 2,
        received: 2,
        local: 0,
    };
    assert_eq!(stand.carries(meet)?, fast);

    let mut crowded = stand.usual(1);
    let network = crowded.networks.first_mut().context("no network")?;
    network.peers.insert(0, first(&stand, family));
    stand.configure(1, &crowded)?;
    stand.tells(1, false, full)?;
    // The first ones find out where they are.
    meet()?;
    let slow = stand.carries(meet)?;
    assert_eq!(slow.sent, 0, "what does not fit is not in the map");

    stand.configure(1, &stand.usual(1))?;
    stand.tells(1, true, "")?;
    assert_eq!(stand.carries(meet)?, fast, "there is room again");
    Ok(stand.guard.down()?)
}

#[test]
fn a_peer_that_does_not_fit_is_reached_by_the_kernel_until_there_is_room() -> Result<()> {
    let entries = "PEERS4=1,VTEPS4=1";
    is_reached_by_the_kernel("tfull4", Family::V4, entries, "4 is full with 1 entries")
}

#[test]
fn so_is_one_over_ipv6() -> Result<()> {
    let entries = "PEERS6=1,VTEPS6=1";
    is_reached_by_the_kernel("tfull6", Family::V6, entries, "6 is full with 1 entries")
}
