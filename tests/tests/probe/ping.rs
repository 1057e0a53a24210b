//! `ping`: packets of a container, by the programs that carry its traffic.

use anyhow::{Context as _, Result};
use overlay_tests::{guard::Guard, run, script::words, topology::VXLAN_MTU};
use serde_json::Value;

#[test]
fn packets_take_the_way_of_containers() -> Result<()> {
    let guard = Guard::overlay("tping")?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let address = to.address.to_string();
    let sent = || -> Result<u64> {
        let stats = agent.json(&["stats"])?;
        let endpoints = stats["endpoints"].as_array().context("endpoints")?;
        let mut endpoints = endpoints.iter();
        let own = endpoints.find(|endpoint| endpoint["name"] == from.namespace.as_str());
        Ok(own.context("the endpoint")?["tx"]["packets"]
            .as_u64()
            .unwrap_or_default())
    };

    let before = sent()?;
    let ping = ["ping", &address, "--from", &from.namespace, "--count", "3"];
    let told = agent.json(&ping)?;
    assert_eq!(told["endpoint"], from.namespace.as_str(), "{told}");
    assert_eq!((&told["sent"], &told["lost"]), (&3.into(), &0.into()));
    assert_eq!(told["path_mtu"], VXLAN_MTU, "{told}");
    assert!(told["rtt"]["min_ns"].as_u64() > Some(0), "{told}");
    // Three, and the one of full size: the container's own counter has them.
    assert!(sent()? >= before + 4, "{before} and then {}", sent()?);

    // A peer is asked at its gateway; nobody need say who asks.
    let text = agent.tell(&["ping", &nodes[1].namespace, "-c", "1", "--no-mtu"])?;
    let gateway = nodes[1].gateway.context("a gateway")?;
    assert!(text.contains(&format!("→ {gateway} in lab: ")), "{text}");
    assert!(text.contains("1 sent, 1 answered, 0 % lost"), "{text}");

    // Nobody has that address.
    let nobody = agent.ask(&["ping", "10.244.2.200", "-c", "1", "-o", "json"])?;
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    let told: Value = serde_json::from_str(&nobody.stdout)?;
    assert_eq!(told["lost"], 1, "{told}");
    // Too long for the network's devices.
    let long = agent.ask(&["ping", &address, "-c", "1", "-s", "1451", "-o", "json"])?;
    let told: Value = serde_json::from_str(&long.stdout)?;
    assert_eq!(told["answers"][0]["outcome"], "too_big", "{told}");

    // What is broken on the way of containers is seen, though the underlay is well.
    let drop = "nsenter --net=/run/netns/tping-n2 nft add table inet tping";
    run::checked(drop)?;
    for line in [
        "add chain inet tping in { type filter hook forward priority 0; policy drop; }",
        "add chain inet tping own { type filter hook input priority 0; policy drop; }",
    ] {
        let mut command = words("nsenter --net=/run/netns/tping-n2 nft");
        command.push(line.to_owned());
        run::checked(&command)?;
    }
    let silent = agent.ask(&["ping", &nodes[1].namespace, "-c", "1"])?;
    assert_eq!(silent.code, Some(1), "{silent:?}");
    let through = agent.ask(&["ping", &address, "-c", "1", "--no-mtu"])?;
    assert_eq!(
        through.code,
        Some(0),
        "the fast path passes by it: {through:?}"
    );

    for (words, code) in [
        (&["ping", "nobody"][..], 5),
        (&["ping", "192.0.2.1"], 5),
        (&["ping", &address, "--from", "nobody"], 5),
    ] {
        let out = agent.ask(words)?;
        assert_eq!(out.code, Some(code), "{words:?}: {}", out.stderr);
    }

    // Called like a peer: nobody guesses who is meant.
    agent.attach(&nodes[1].namespace, "tping-twin")?;
    let twin = agent.ask(&["ping", &nodes[1].namespace, "-c", "1"])?;
    assert_eq!(twin.code, Some(2), "{twin:?}");
    assert!(twin.stderr.contains(&gateway.to_string()), "{twin:?}");
    Ok(guard.down()?)
}
