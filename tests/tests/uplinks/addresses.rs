//! Addresses and routes as clouds and routing daemons set them: nothing on link, gateways that are told to
//! be, weights, metrics and MTUs.

use anyhow::Result;
use overlay_tests::{families::Family, guard::Guard, poll, run, traffic::Pair};

use crate::{
    spread::{FLOWS, hops_are, spread},
    stand::{both_cards, configure, flows_fast, ip, pass_over_linkdown, second_cable, way_is},
};

/// Has both nodes know each other by other addresses; `own` says where those are, N being the number.
fn known_by(guard: &Guard, addresses: &str, own: &str) -> Result<()> {
    for node in &guard.topology().nodes {
        let (number, other) = (node.number, 3 - node.number);
        let old = format!("vtep = \"192.168.56.1{other}\"");
        let peer = format!("vtep = \"{addresses}{other}\"");
        let own = own.replace('N', &number.to_string());
        configure(guard, node, &[(&old, &peer), ("underlay = \"eth1\"", &own)])?;
    }
    Ok(())
}

fn of_both(guard: &Guard, commands: &str) -> Result<()> {
    for node in [1_usize, 2] {
        let commands = commands.replace('N', &node.to_string());
        ip(guard, node, &commands.replace('O', &(3 - node).to_string()))?;
    }
    Ok(())
}

#[test]
fn an_address_of_one_and_a_gateway_that_is_told_to_be_on_link() -> Result<()> {
    let guard = Guard::pair("tupclou")?;
    // As clouds have it: nothing is on link, and all goes by a router.
    of_both(
        &guard,
        "addr flush dev eth1
         addr add 10.250.0.N/32 dev eth1
         route add default via 10.250.0.O dev eth1 onlink",
    )?;
    known_by(
        &guard,
        "10.250.0.",
        "underlay = \"eth1\"\nvtep = \"10.250.0.N\"",
    )?;
    flows_fast(&guard, "an address of one")?;
    way_is(&guard, "eth1", "10.250.0.2")?;
    Ok(guard.down()?)
}

#[test]
fn metrics_weights_and_mtus_of_routes() -> Result<()> {
    let guard = Guard::pair("tupmetr")?;
    second_cable(&guard)?;
    both_cards(&guard)?;
    pass_over_linkdown(&guard, &["all", "eth1", "eth2"])?;
    ip(
        &guard,
        2,
        "route add 192.168.56.11/32 via 172.30.0.1 dev eth2",
    )?;
    // The better one of two, and the other one when its carrier is lost.
    let by_metrics = "route add 192.168.56.12/32 via 172.30.0.2 dev eth2 metric 10
                      route add 192.168.56.12/32 via 192.168.56.12 dev eth1 metric 20";
    ip(&guard, 1, by_metrics)?;
    way_is(&guard, "eth2", "172.30.0.2")?;
    flows_fast(&guard, "the better metric")?;
    ip(&guard, 2, "link set eth2 down")?;
    way_is(&guard, "eth1", "192.168.56.12")?;
    let again = "link set eth2 up\nroute replace 192.168.56.11/32 via 172.30.0.1 dev eth2";
    ip(&guard, 2, again)?;
    way_is(&guard, "eth2", "172.30.0.2")?;
    flows_fast(&guard, "its return")?;
    ip(&guard, 1, "route flush 192.168.56.12/32")?;

    let weighed = "nexthop add id 1 via 192.168.56.12 dev eth1
                   nexthop add id 2 via 172.30.0.2 dev eth2
                   nexthop add id 10 group 1,7/2,1
                   route add 192.168.56.12/32 nhid 10";
    ip(&guard, 1, weighed)?;
    hops_are(&guard, 2)?;
    flows_fast(&guard, "weights")?;
    let (arrived, sent) = spread(&guard)?;
    assert_eq!(arrived, FLOWS);
    assert!(
        sent[1] > 0 && sent[0] > 2 * sent[1],
        "{sent:?} by weights of 7 and 1"
    );
    ip(&guard, 1, "route del 192.168.56.12/32\nnexthop flush")?;
    Ok(guard.down()?)
}

#[test]
fn a_route_with_an_mtu_is_as_narrow_as_it_says() -> Result<()> {
    let guard = Guard::pair("tupmtu")?;
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    ip(&guard, 1, "route add 192.168.56.12/32 dev eth1 mtu 1400")?;
    flows_fast(&guard, "a narrow route")?;
    let whole = format!(
        "ip netns exec {} ping -n -c 3 -i 0.2 -W 1 -M do -s 1400 {}",
        from.namespace, to.address
    );
    poll::until(
        || run::output(&whole),
        |said| said.stdout.contains("mtu = 1350") || said.stderr.contains("mtu=1350"),
    )?;
    // What may be cut up arrives, and what was told does, too.
    let path = Pair::between(from, to, Family::V4);
    path.udp(&[1300, 1400, 4000])?;
    path.tcp(&[1 << 18])?;
    ip(&guard, 1, "route del 192.168.56.12/32")?;
    flows_fast(&guard, "a wide route")?;
    Ok(guard.down()?)
}
