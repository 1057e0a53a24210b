//! Devices, addresses and routes.

use anyhow::Result;
use overlay_tests::config::{Config, Endpoint};

use crate::in_the_way::{Case, survives};

fn nothing_more(_: &mut Config) {}

/// An endpoint whose veth is called `ovl-app`.
fn with_endpoint(config: &mut Config) {
    config.endpoints = vec![Endpoint {
        name: "app".to_owned(),
        network: config.networks[0].name.clone(),
        netns: Some("tstrv-app".to_owned()),
        ..Endpoint::default()
    }];
}

/// Of the kinds of which another instance's is in use, nobody is told to delete one.
const CASES: [(&str, Case); 9] = [
    (
        "tstrb",
        Case {
            what: "a bridge",
            needs: nothing_more,
            clear: "ip link del ovlbr1",
            make: "ip link add ovlbr1 address 02:00:00:00:00:77 mtu 1300 type bridge; ip addr add 198.51.100.1/24 dev ovlbr1",
            look: "ip -d link show ovlbr1; ip addr show ovlbr1",
            said: "a device that this instance did not make",
            never_said: "down",
            stops: true,
        },
    ),
    (
        "tstrx",
        Case {
            what: "a VXLAN device of another instance",
            needs: nothing_more,
            clear: "ip link del ovl1",
            make: "ip link add ovl1 type vxlan id 77 dstport 4790 local 192.168.56.11; ip link set ovl1 alias overlay:other; ip neigh add 10.9.9.9 lladdr 02:00:00:00:00:09 dev ovl1 nud permanent; bridge fdb add 02:00:00:00:00:09 dev ovl1 dst 192.168.56.99",
            look: "ip -d link show ovl1; ip neigh show dev ovl1; bridge fdb show dev ovl1",
            said: "instance other of this node has ovl1",
            never_said: "ip link del",
            stops: true,
        },
    ),
    (
        "tstrh",
        Case {
            what: "a device with the name of the one for headroom",
            needs: nothing_more,
            clear: "ip link del ovlpad1",
            make: "ip link add ovlpad1 address 02:00:00:00:00:78 mtu 1280 type bridge; ip addr add 198.51.100.2/24 dev ovlpad1",
            look: "ip -d link show ovlpad1; ip addr show ovlpad1",
            said: "a device that this instance did not make",
            never_said: "down",
            stops: true,
        },
    ),
    (
        "tstrv",
        Case {
            what: "a veth",
            needs: with_endpoint,
            clear: "ip link del ovl-app",
            make: "ip link add ovl-app type veth peer name ovl-app-peer",
            look: "ip -d link show ovl-app; ip -d link show ovl-app-peer",
            said: "a device that this instance did not make",
            never_said: "down",
            stops: false,
        },
    ),
    (
        "tstra",
        Case {
            what: "the gateway's address",
            needs: nothing_more,
            clear: "ip addr del 10.244.1.1/24 dev ovlbr1 2>&1 || true; ip link del mine 2>&1 || true",
            make: "ip link add mine type bridge; ip addr add 10.244.1.1/32 dev mine",
            look: "ip -d addr show dev mine",
            said: "the address is in use on mine",
            never_said: "down",
            stops: true,
        },
    ),
    (
        "tstrr",
        Case {
            what: "a route to a peer's subnet with the metric of ours",
            needs: nothing_more,
            clear: "ip route del 10.244.2.0/24",
            // 10.244.2 is number 1026 of its size (modulo 4096).
            make: "ip route add 10.244.2.0/24 via 192.168.56.12 dev eth1 metric 1027 proto static",
            look: "ip -d route show 10.244.2.0/24",
            said: "there is a route already, through eth1",
            never_said: "down",
            stops: true,
        },
    ),
    (
        "tstrp",
        Case {
            what: "a route of another instance to a peer's subnet",
            needs: nothing_more,
            clear: "ip route del 10.244.2.0/24; ip link del ovlbr9 2>&1 || true",
            make: "ip link add ovlbr9 type bridge; ip link set ovlbr9 alias overlay:other up; ip addr add 10.8.8.1/24 dev ovlbr9; ip route add 10.244.2.0/24 via 10.8.8.8 dev ovlbr9 proto 111",
            look: "ip -d route show 10.244.2.0/24",
            said: "instance other of this node leads there, through ovlbr9",
            never_said: "ip route del",
            stops: true,
        },
    ),
    (
        "tstrl",
        Case {
            what: "a route in the place of the last resort",
            needs: nothing_more,
            clear: "ip route del unreachable 10.244.0.0/16 2>&1 || ip route del blackhole 10.244.0.0/16",
            make: "ip route add blackhole 10.244.0.0/16 metric $METRIC proto static",
            look: "ip -d route show 10.244.0.0/16",
            said: "somebody else has a route to 10.244.0.0/16",
            never_said: "ip route del",
            stops: false,
        },
    ),
    (
        "tstru",
        Case {
            what: "a socket with the tunnel's port",
            needs: nothing_more,
            clear: "ip link del vx7 2>&1 || ip link del ovl1",
            make: "ip link add vx7 type vxlan id 7 dstport 4789 local 192.168.56.11; ip link set vx7 up",
            look: "ip -d link show vx7",
            said: "VXLAN device vx7 has UDP port 4789",
            never_said: "down",
            stops: true,
        },
    ),
];

#[test]
fn none_is_touched() -> Result<()> {
    for (lab, case) in &CASES {
        println!("{}", case.what);
        survives(lab, case)?;
    }
    Ok(())
}
