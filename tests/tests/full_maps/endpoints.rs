//! Containers that do not fit.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use overlay_common::maps::DROPS;
use overlay_tests::{
    check::{self, Answer},
    config::Endpoint,
    counters::{self, Carried},
    families::{Families, Family},
    run,
    script::inside,
};

use crate::stand::Stand;

const BOTH: [Family; 2] = [Family::V4, Family::V6];
const DUAL: (Families, Families) = (Families::V4, Families::Both);

/// Attaches a container; its addresses.
fn add(stand: &Stand, name: &str) -> Result<Vec<IpAddr>> {
    let netns = stand.other(name);
    let endpoint = stand.agent.attach(name, &netns)?;
    stand.agent.until_done()?;
    let addresses = endpoint["addresses"].as_array();
    let addresses = addresses.with_context(|| format!("add {name}: {endpoint}"))?;
    let parse = |address: &serde_json::Value| Ok(address.as_str().context("no text")?.parse()?);
    addresses.iter().map(parse).collect()
}

fn delete(stand: &Stand, name: &str) -> Result<()> {
    stand.agent.tell(&["endpoint", "del", name])?;
    Ok(())
}

fn is_there(stand: &Stand, name: &str) -> Result<bool> {
    let devices = format!("ip -n {} -brief link show", stand.agent.instance);
    let devices = run::checked(devices)?;
    let netns = Path::new("/run/netns").join(stand.other(name));
    Ok(netns.exists() || devices.contains(&format!("ovl-{name}")))
}

/// What is carried for a container when it meets the first ones of both nodes.
fn meets(stand: &Stand, name: &str, address: IpAddr) -> Result<Carried> {
    let netns = stand.other(name);
    let late = (netns.as_str(), address);
    let nodes = &stand.guard.topology().nodes;
    let first = |node: usize| {
        let container = &nodes[node].containers[0];
        (
            container.namespace.as_str(),
            container.at(Family::of(address)),
        )
    };
    stand.carries(|| {
        stand.meet(late, first(1), 2)?;
        stand.meet(late, first(0), 0)
    })
}

/// All four packets to the other node and back, and all four to the neighbour.
const FAST: Carried = Carried {
    sent: 2,
    received: 2,
    local: 4,
};
/// The same without those that go to the container. Of a neighbour's answers, which the kernel
/// delivers, nobody can tell that they are not translated: after the first one the kernel gets what
/// is sent to it, too.
const HALF: Carried = Carried {
    sent: 2,
    received: 0,
    local: 1,
};

fn is_delivered_to_by_the_kernel(name: &str, full: Family, map: &str) -> Result<()> {
    // Two are the lab's.
    let stand = Stand::raise(name, DUAL, 2, &format!("{map}=3"))?;
    add(&stand, "early")?;
    let late = add(&stand, "late")?;
    stand.tells(1, false, &format!("{map} is full with 3 entries"))?;
    for address in &late {
        // The first ones ask for MACs.
        meets(&stand, "late", *address)?;
        let expected = if Family::of(*address) == full {
            HALF
        } else {
            FAST
        };
        assert_eq!(meets(&stand, "late", *address)?, expected, "{address}");
    }
    assert!(is_kept_from_lying(&stand, "late")?);

    delete(&stand, "early")?;
    stand.tells(1, true, "")?;
    for address in late {
        assert_eq!(meets(&stand, "late", address)?, FAST, "there is room again");
    }
    Ok(stand.guard.down()?)
}

/// Whether what a container sends from an address of nobody is dropped under its name.
fn is_kept_from_lying(stand: &Stand, name: &str) -> Result<bool> {
    let spoofed = || -> Result<u64> {
        let drops = counters::reasons(&stand.agent.instance, DROPS)?;
        let found = drops.iter().find(|(reason, _)| reason == "spoofed_source");
        Ok(found.map_or(0, |(_, packets)| *packets))
    };
    let before = spoofed()?;
    let netns = stand.other(name);
    run::checked(format!("ip -n {netns} addr add 10.244.77.7/32 dev lo"))?;
    let to = stand.guard.topology().nodes[1].containers[0].address;
    let out = run::output(inside(&netns, format!("ping -c1 -W1 -I 10.244.77.7 {to}")))?;
    Ok(!out.success && spoofed()? > before)
}

#[test]
fn one_whose_address_does_not_fit_is_delivered_to_by_the_kernel_until_there_is_room() -> Result<()>
{
    is_delivered_to_by_the_kernel("tfep4", Family::V4, "ENDPOINTS4")
}

#[test]
fn so_is_one_whose_ipv6_address_does_not_fit() -> Result<()> {
    is_delivered_to_by_the_kernel("tfep6", Family::V6, "ENDPOINTS6")
}

#[test]
fn one_whose_device_does_not_fit_is_refused_before_anything_is_made() -> Result<()> {
    // The VXLAN device and two containers are the lab's.
    let stand = Stand::raise("tfport", DUAL, 2, "PORTS=4")?;
    let early = add(&stand, "early")?;
    let netns = stand.other("late");
    let out = stand.agent.ask(&[
        "endpoint",
        "add",
        "late",
        "--network",
        "lab",
        "--netns",
        &netns,
    ])?;
    let text = format!("{}{}", out.stdout, out.stderr);
    assert_eq!(out.code, Some(1), "{text}");
    assert!(text.contains("map PORTS is full with 4 entries"), "{text}");
    assert!(!is_there(&stand, "late")?, "something was made of it");
    assert_eq!(stand.agent.plan()?, Vec::<serde_json::Value>::new());
    stand.tells(1, true, "")?;
    for address in early {
        meets(&stand, "early", address)?;
        assert_eq!(meets(&stand, "early", address)?, FAST, "the rest goes on");
    }

    delete(&stand, "early")?;
    for address in add(&stand, "late")? {
        meets(&stand, "late", address)?;
        assert_eq!(meets(&stand, "late", address)?, FAST, "there is room again");
    }
    Ok(stand.guard.down()?)
}

#[test]
fn one_whose_sources_do_not_fit_is_refused_and_the_others_stay() -> Result<()> {
    let stand = Stand::raise("tfsrc", DUAL, 2, "SOURCES=1")?;
    let usual = stand.usual(1);
    let forwarding = |endpoint: &mut Endpoint, prefix: &str| {
        endpoint.forwarding = Some(true);
        endpoint.allowed_sources = vec![prefix.to_owned()];
    };
    let mut late = Endpoint {
        name: "late".to_owned(),
        network: "lab".to_owned(),
        netns: Some(stand.other("late")),
        ..Endpoint::default()
    };
    forwarding(&mut late, "10.99.2.0/24");
    let mut crowded = usual.clone();
    forwarding(&mut crowded.endpoints[1], "10.99.1.0/24");
    stand.configure(1, &crowded)?;
    stand.tells(1, true, "")?;
    // Also when it comes first: it does not take the place of one that is there.
    crowded.endpoints.insert(0, late.clone());
    stand.configure(1, &crowded)?;
    stand.tells(1, false, "attach endpoint late")?;
    stand.tells(1, false, "map SOURCES is full with 1 entries")?;
    assert!(!is_there(&stand, "late")?, "something was made of it");
    let nodes = &stand.guard.topology().nodes;
    for family in BOTH {
        let [here, there] = [0, 1].map(|node: usize| {
            let container = &nodes[node].containers[1];
            (container.namespace.as_str(), container.at(family))
        });
        stand.meet(here, there, 2)?;
    }

    let mut roomy = usual;
    roomy.endpoints.insert(0, late);
    stand.configure(1, &roomy)?;
    stand.tells(1, true, "")?;
    let to = nodes[1].containers[0].address;
    assert_eq!(check::ping(&stand.other("late"), to)?, Answer::Ttl(62));
    Ok(stand.guard.down()?)
}
