//! Underlays as real nodes have them: an address on the loopback behind two cards, next hops that
//! come and go, routers with IPv6 addresses alone, addresses that are late or away, and devices of
//! other kinds than a card.

mod addresses;
mod kinds;
mod spread;
mod stand;

use anyhow::Result;
use overlay_tests::{families::Family, guard::Guard, run, topology::Node, traffic::Pair};

use crate::stand::{
    BOTH, both_cards, configure, flows, flows_fast, ip, pass_over_linkdown, second_cable, vteps,
    way_is,
};

#[test]
fn an_address_on_the_loopback_behind_two_cards() -> Result<()> {
    let guard = Guard::pair("tuplo")?;
    second_cable(&guard)?;
    for node in [1, 2] {
        let other = 3 - node;
        ip(
            &guard,
            node,
            &format!(
                "addr add 10.255.0.{node}/32 dev lo
                 route add 10.255.0.{other}/32 nexthop via 192.168.56.1{other} nexthop via 172.30.0.{other}"
            ),
        )?;
    }
    let nodes = &guard.topology().nodes;
    // The loopback is where nothing arrives: what to write is said.
    let by_address = (BOTH.0, "underlay = \"10.255.0.1\"");
    configure(&guard, &nodes[0], &[by_address])?;
    guard.agent(1).tells("write vtep = \"10.255.0.1\"")?;

    for node in nodes {
        let (number, other) = (node.number, 3 - node.number);
        let own = format!("{}\nvtep = \"10.255.0.{number}\"", BOTH.1);
        let peer = format!("vtep = \"10.255.0.{other}\"");
        let old = format!("vtep = \"192.168.56.1{other}\"");
        configure(&guard, node, &[(&old, &peer), (BOTH.0, &own)])?;
    }
    flows_fast(&guard, "the address on the loopback")?;
    let status = guard.agent(1).json(&["status"])?;
    assert_eq!(status["vteps"], serde_json::json!(["10.255.0.1"]));
    assert_eq!(status["networks"][0]["mtu"], 1450, "not the loopback's");
    let path = Pair::between(&nodes[0].containers[0], &nodes[1].containers[0], Family::V4);
    path.tcp(&[1 << 20])?;
    path.udp(&[2000])?;

    // Each of the cables in turn loses its carrier; the kernel has the other one at once where it
    // is told, as routing daemons advise, to pass over what has none.
    pass_over_linkdown(&guard, &["all", "eth1", "eth2"])?;
    for (gone, dev, via) in [
        ("eth2", "eth1", "192.168.56.12"),
        ("eth1", "eth2", "172.30.0.2"),
    ] {
        ip(&guard, 2, &format!("link set {gone} down"))?;
        way_is(&guard, dev, via)?;
        flows_fast(&guard, gone)?;
        ip(&guard, 2, &format!("link set {gone} up"))?;
        // A dead next hop lives again with its device.
        flows_fast(&guard, "its return")?;
    }
    Ok(guard.down()?)
}

#[test]
fn a_way_that_ends_in_silence() -> Result<()> {
    let guard = Guard::pair("tupway")?;
    second_cable(&guard)?;
    both_cards(&guard)?;
    ip(
        &guard,
        2,
        "route add 192.168.56.11/32 via 172.30.0.1 dev eth2",
    )?;
    let again = "link set eth2 down\nlink set eth2 up\nroute replace 192.168.56.11/32 via 172.30.0.1 dev eth2";

    // The object that a route names goes, and the route with it, unannounced.
    let by_object = "nexthop add id 10 via 172.30.0.2 dev eth2\nroute add 192.168.56.12/32 nhid 10";
    ip(&guard, 1, by_object)?;
    way_is(&guard, "eth2", "172.30.0.2")?;
    flows_fast(&guard, "a way by an object")?;
    ip(&guard, 1, "nexthop del id 10")?;
    way_is(&guard, "eth1", "192.168.56.12")?;
    flows_fast(&guard, "the end of the object")?;

    // So it does when the device loses its carrier.
    ip(&guard, 1, by_object)?;
    way_is(&guard, "eth2", "172.30.0.2")?;
    ip(&guard, 2, "link set eth2 down")?;
    way_is(&guard, "eth1", "192.168.56.12")?;
    flows(&guard, "a lost carrier")?;
    ip(&guard, 2, again)?;

    // A setting has the kernel pass over a route that stays.
    ip(
        &guard,
        1,
        "route add 192.168.56.12/32 via 172.30.0.2 dev eth2",
    )?;
    way_is(&guard, "eth2", "172.30.0.2")?;
    pass_over_linkdown(&guard, &["all", "eth2"])?;
    ip(&guard, 2, "link set eth2 down")?;
    way_is(&guard, "eth1", "192.168.56.12")?;
    flows(&guard, "a lost carrier of a route that stays")?;
    Ok(guard.down()?)
}

#[test]
fn rules_choose_by_what_a_tunnel_sends() -> Result<()> {
    let guard = Guard::pair("tuprule")?;
    second_cable(&guard)?;
    both_cards(&guard)?;
    flows_fast(&guard, "two cards")?;
    let other_table = "route add 192.168.56.12/32 via 172.30.0.2 dev eth2 table 77";
    ip(&guard, 1, other_table)?;
    for rule in [
        "from 192.168.56.11",
        "ipproto 17 dport 4789",
        "from 192.168.56.11 to 192.168.56.12",
    ] {
        ip(&guard, 1, &format!("rule add {rule} table 77"))?;
        way_is(&guard, "eth2", "172.30.0.2")?;
        flows_fast(&guard, rule)?;
        ip(&guard, 1, &format!("rule del {rule} table 77"))?;
        way_is(&guard, "eth1", "192.168.56.12")?;
    }
    // What is not a tunnel's.
    ip(&guard, 1, "rule add ipproto 6 table 77")?;
    ip(&guard, 1, "rule add from 172.30.0.1 table 77")?;
    flows_fast(&guard, "rules of others")?;
    way_is(&guard, "eth1", "192.168.56.12")?;
    Ok(guard.down()?)
}

#[test]
fn a_router_with_an_ipv6_address_leads_to_an_ipv4_node() -> Result<()> {
    let guard = Guard::pair("tupsix")?;
    let nodes = &guard.topology().nodes;
    let link_local = |node: &Node| -> Result<String> {
        let shown = format!(
            "ip -n {} -j -6 addr show dev eth1 scope link",
            node.namespace
        );
        let shown = run::json(shown)?;
        let address = shown[0]["addr_info"][0]["local"].as_str();
        Ok(address.unwrap_or_default().to_owned())
    };
    let (one, two) = (link_local(&nodes[0])?, link_local(&nodes[1])?);
    ip(
        &guard,
        1,
        &format!("route add 192.168.56.12/32 via inet6 {two} dev eth1"),
    )?;
    ip(
        &guard,
        2,
        &format!("route add 192.168.56.11/32 via inet6 {one} dev eth1"),
    )?;
    // Nothing is known of the neighbour by its IPv4 address, and nothing is asked for it.
    for node in [1, 2] {
        ip(&guard, node, "neigh flush dev eth1")?;
    }
    way_is(&guard, "eth1", &two)?;
    flows_fast(&guard, "a next hop of IPv6")?;
    let shown = format!("ip -n {} -j neigh show dev eth1", nodes[0].namespace);
    let shown = run::json(shown)?;
    let asked: Vec<&str> = shown
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["dst"].as_str())
        .filter(|address| !address.contains(':'))
        .collect();
    assert!(asked.is_empty(), "ARP for {asked:?}");
    let path = Pair::between(&nodes[0].containers[0], &nodes[1].containers[0], Family::V4);
    path.tcp(&[1 << 20])?;
    Ok(guard.down()?)
}

#[test]
fn an_address_that_is_away_for_a_moment() -> Result<()> {
    let guard = Guard::pair("tupgap")?;
    let agent = guard.agent(1);
    let known = vteps(&agent)?;
    ip(&guard, 1, "addr add 192.168.56.100/32 dev eth1")?;
    ip(&guard, 1, "addr del 192.168.56.11/24 dev eth1")?;
    agent.tells("192.168.56.11 as VTEP")?;
    // What comes meanwhile, with a subnet or without, is no successor; nor is it for the next agent.
    ip(&guard, 1, "addr add 192.168.56.101/24 dev eth1")?;
    agent.stop()?;
    assert!(!agent.start_anyhow()?, "it is well without its address");
    agent.tells("write vtep = \"192.168.56.101\"")?;
    ip(&guard, 1, "addr add 192.168.56.11/24 dev eth1")?;
    flows_fast(&guard, "the address's return")?;
    assert_eq!(vteps(&agent)?, known);
    agent.stop()?;
    agent.start()?;
    assert_eq!(vteps(&agent)?, known, "after a restart");
    Ok(guard.down()?)
}

#[test]
fn an_agent_that_is_earlier_than_its_underlay() -> Result<()> {
    let guard = Guard::pair("tuplate")?;
    let agent = guard.agent(1);
    agent.tell(&["down"])?;
    ip(&guard, 1, "addr del 192.168.56.11/24 dev eth1")?;
    // One that is on its way out, as virtual ones are made, is not taken.
    ip(
        &guard,
        1,
        "addr add 192.168.56.100/32 dev eth1 preferred_lft 0",
    )?;
    assert!(!agent.start_anyhow()?, "it is well without an address");
    agent.tells("no global IPv4 or IPv6 address there that stays")?;
    ip(&guard, 1, "addr add 192.168.56.11/24 dev eth1")?;
    flows_fast(&guard, "the address that was late")?;
    Ok(guard.down()?)
}
