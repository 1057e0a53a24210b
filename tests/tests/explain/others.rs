//! What is said to be dropped, or left to the kernel.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use overlay_common::maps::DROPS;
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::{Families, Family},
    frames::{Ip, ethernet},
    kernel::strips_other_family,
    raw::{self, Socket},
    run,
    script::inside,
};

use crate::{
    count,
    said::{explain, lab},
};

/// One question of a sender whose stack gets its TTL as it is told, and the answer's reason.
fn ping(from: &str, to: IpAddr, options: &str) -> Result<run::Output> {
    let line = format!("ping -n -c 1 -W 5 {options} {to}");
    Ok(run::output(inside(from, line))?)
}

#[test]
fn what_is_said_to_be_dropped_is_counted_under_that_reason() -> Result<()> {
    let guard = lab("texpdrop", Families::V4)?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().two_nodes();
    let (from, other, to) = (
        &here.containers[0],
        &here.containers[1],
        &there.containers[0],
    );
    let mac = raw::mac_of(&from.namespace, "eth0")?;
    let gateway = raw::neighbour_of(&from.namespace, here.gateway.context("a gateway")?.into())?;
    let entrance = Socket::open(&from.namespace, "eth0")?;
    for family in [Family::V4, Family::V6] {
        let (false_source, destination) = (other.at(family), to.at(family));
        let said = explain(
            &agent,
            &[
                &from.namespace,
                &destination.to_string(),
                "--proto",
                "udp",
                "--source",
                &false_source.to_string(),
            ],
        )?;
        assert!(!said.good);
        let (action, reason) = said.verdict(0).context("a verdict")?;
        assert_eq!((action, reason), ("dropped", Some("spoofed_source")));
        let verdict = &said.hops[0]["stages"][0]["verdict"];
        assert_eq!(verdict["rule"], "endpoint_source", "{verdict}");
        let cure = &verdict["cure"];
        assert!(cure.as_str().is_some_and(|cure| !cure.is_empty()));

        let before = counters::reasons(&agent.instance, DROPS)?;
        let ip = Ip::new(false_source, destination);
        let packet = ip.around_udp(1000, 9, b"as somebody else");
        entrance.send(&ethernet(gateway, mac, ip.ethertype(), &packet))?;
        let after = counters::reasons(&agent.instance, DROPS)?;
        let reason = "spoofed_source";
        assert_eq!(count(&after, reason), count(&before, reason) + 1);
    }
    drop(entrance);
    Ok(guard.down()?)
}

#[test]
fn what_the_kernel_gets_fares_as_is_said() -> Result<()> {
    let guard = lab("texpkern", Families::V4)?;
    let agent = guard.agent(1);
    let [here, there] = guard.topology().two_nodes();
    let (from, to) = (&here.containers[0].namespace, &there.containers[0]);
    for family in [Family::V4, Family::V6] {
        let gateway = here.gateway_at(family).context("a gateway")?.to_string();
        let far = to.at(family);

        let said = explain(&agent, &[from, &far.to_string(), "--ttl", "1"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("ttl_expired"))));
        assert!(
            !said.good && said.kernel().contains(&gateway),
            "{}",
            said.kernel()
        );
        let real = ping(from, far, "-t 1")?;
        assert!(
            real.stdout.contains(&format!("From {gateway}")),
            "{}",
            real.stdout
        );

        let said = explain(&agent, &[from, &far.to_string(), "--size", "1451", "--df"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("too_big"))));
        assert!(
            !said.good && said.kernel().contains("MTU 1450"),
            "{}",
            said.kernel()
        );

        // Of the container's own link, and nobody's.
        let absent = match family {
            Family::V4 => here.subnet.host(200).to_string(),
            Family::V6 => here.subnet6.host(200).to_string(),
        };
        let said = explain(&agent, &[from, &absent])?;
        assert!(
            !said.good && said.kernel().contains(&absent),
            "{}",
            said.kernel()
        );
        let real = check::ping_for(from, absent.parse()?, Duration::from_secs(1))?;
        assert!(matches!(real, Answer::None(_)), "{real:?}");

        // The node itself, and from the node.
        let said = explain(
            &agent,
            &[
                from,
                "node",
                "--source",
                &here.containers[0].at(family).to_string(),
            ],
        )?;
        assert!(said.good, "{:#?}", said.hops);
        assert_eq!(said.verdict(0), Some(("passed", Some("to_node"))));
        let said = explain(&agent, &["node", &far.to_string()])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
        assert_eq!(said.hops[0]["stages"][0]["program"], "from_host");
        // An older kernel's own device takes what its programs cannot strip.
        if family == Family::V4 || strips_other_family() {
            let spent = 64 - said.ttl().context("a TTL")?;
            check::routers_on_the_way(&here.namespace, &far.to_string(), u8::try_from(spent)?)?;
        }
    }
    // Without the flag, the node fragments IPv4.
    let said = explain(&agent, &[from, &to.address.to_string(), "--size", "1451"])?;
    assert!(
        said.good && said.kernel().contains("fragments"),
        "{}",
        said.kernel()
    );

    let gateway = here.gateway.context("a gateway")?.to_string();
    for (target, good) in [(gateway.as_str(), true), ("10.244.1.200", false)] {
        let said = explain(&agent, &[from, target, "--proto", "arp"])?;
        assert_eq!(said.verdict(0), Some(("passed", Some("not_ip"))));
        assert_eq!(said.good, good, "{}", said.kernel());
    }

    // Out of the overlay: the node has no route there.
    let said = explain(&agent, &[from, "198.51.100.7"])?;
    assert!(
        !said.good && said.kernel().contains("no route"),
        "{}",
        said.kernel()
    );
    let real = ping(from, "198.51.100.7".parse()?, "")?;
    assert!(real.stdout.contains("nreachable"), "{}", real.stdout);
    Ok(guard.down()?)
}
