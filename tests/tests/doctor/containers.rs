//! Faults of containers, and of the room for them.

use std::fs;

use anyhow::Result;

use crate::{
    fault::{Fault, only_finding},
    stand::{Stand, run_of},
};

fn faults() -> Vec<Fault> {
    vec![
        Fault::new(
            "endpoint-more-addresses",
            "n1c1",
            "ip address add 10.244.1.77/32 dev lo",
        )
        .within("n1c1")
        .cured_by("n1c1", "ip address del 10.244.1.77/32 dev lo"),
        // As portmap and firewall leave them when nobody sends DEL.
        Fault::new(
            "runtime-rules-left",
            "10.244.1.99",
            "nft add table ip nat; nft add chain ip nat CNI-HOSTPORT-DNAT; \
             nft add chain ip nat CNI-DN-1; nft add rule ip nat CNI-HOSTPORT-DNAT tcp dport 8081 jump CNI-DN-1; \
             nft add rule ip nat CNI-DN-1 ip saddr 10.244.1.99 tcp dport 8081 counter; \
             nft add table ip filter; nft add chain ip filter CNI-FORWARD; \
             nft add rule ip filter CNI-FORWARD ip daddr 10.244.1.99 accept; \
             nft add rule ip filter CNI-FORWARD ip daddr 10.244.1.10 accept",
        )
        .cleared_by("n1", "nft delete table ip nat; nft delete table ip filter"),
        Fault::new(
            "container-route",
            "n1c1",
            "ip route add 10.244.2.0/24 via 10.244.1.66",
        )
        .within("n1c1"),
        Fault::new(
            "container-mtu",
            "n1c1",
            "ip route add 10.244.2.0/24 via 10.244.1.1 mtu 600",
        )
        .within("n1c1"),
        Fault::new(
            "container-route",
            "n1c1",
            "ip link add more type bridge; ip link set more up; \
             ip address add 10.200.0.2/24 dev more; ip route replace default via 10.200.0.1",
        )
        .within("n1c1")
        .with("container-default-route")
        .cleared_by("n1c1", "ip link del more"),
        Fault::new(
            "container-default-route",
            "n1c1",
            "ip link add more type bridge; ip link set more up; \
             ip address add 10.200.0.2/24 dev more; ip route add 10.244.0.0/16 via 10.244.1.1; \
             ip route replace default via 10.200.0.1",
        )
        .within("n1c1")
        .cured_by("n1c1", "ip link del more; ip route del 10.244.0.0/16"),
    ]
}

#[test]
fn what_containers_do_to_themselves_is_found_and_cured_by_what_is_printed() -> Result<()> {
    let stand = Stand::raise("tdocn")?;
    for fault in faults() {
        fault.is_found(&stand)?;
    }
    let file = stand.agent.config_file();
    let good = fs::read_to_string(&file)?;
    let more =
        "[[endpoints]]\nname = \"gone\"\nnetwork = \"lab\"\nnetns = \"/run/netns/none-such\"\n";
    fs::write(&file, format!("{good}\n{more}"))?;
    only_finding(&stand, "endpoint-not-attached", "gone", || {
        stand.diagnosis()
    })?;
    fs::write(&file, &good)?;
    stand.is_healthy("an endpoint without a namespace")?;
    maps_that_are_full(&stand)?;
    Ok(stand.guard.down()?)
}

/// With room for the two peers, and for one of them: that a full map is nearly full goes without
/// saying.
fn maps_that_are_full(stand: &Stand) -> Result<()> {
    for (entries, check, object) in [(2, "map-nearly-full", "PEERS4"), (1, "map-full", "lab")] {
        stand.agent.tell(&["down"])?;
        let room = format!("PEERS4={entries}");
        let small = stand.agent.with("OVERLAY_MAP_ENTRIES", room);
        stand.start_by(run_of(&small))?;
        only_finding(stand, check, object, || stand.diagnosis())?;
    }
    stand.agent.tell(&["down"])?;
    stand.agent.start()?;
    stand.is_healthy("small maps")
}
