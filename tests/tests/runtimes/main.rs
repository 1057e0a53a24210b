//! Container runtimes: the plugin as they were seen to drive it.

mod clients;
mod plugin;
mod protocol;
mod same_number;
mod series;
mod thousand;

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    netns::Temporary,
    run,
    script::inside,
};
use serde_json::{Value, json};

use plugin::Cni;

/// As long as runtimes' ids are.
const ID: &str = "3f8c1f4e6b7a9d0c2e5f3f8c1f4e6b7a9d0c2e5f3f8c1f4e6b7a9d0c2e5faaaa";

fn ip(namespace: &str, command: &str) -> Result<Value> {
    Ok(run::json(format!("ip -n {namespace} -j {command}"))?)
}

fn tell(namespace: &str, command: &str) -> Result<String> {
    Ok(run::checked(inside(namespace, command))?)
}

/// Endpoints that runtimes have asked for.
fn attachments(agent: &Agent) -> Result<Vec<Value>> {
    let listed = agent.json(&["endpoint", "list"])?;
    let all = listed.as_array().context("not a list")?;
    let attached = all.iter().filter(|it| it["attachment"].is_object());
    Ok(attached.cloned().collect())
}

fn address(result: &Value) -> Result<IpAddr> {
    let text = result["ips"][0]["address"].as_str().context("no address")?;
    let (address, length) = text.split_once('/').context("no length")?;
    ensure!(length == "24", "the prefix on the link is {length}");
    Ok(address.parse()?)
}

fn reaches(from: &str, to: IpAddr) -> Result<()> {
    let answer = check::ping(from, to)?;
    ensure!(
        matches!(answer, Answer::Ttl(_)),
        "{from} to {to}: {answer:?}"
    );
    Ok(())
}

/// Nothing is left of what runtimes have asked for: endpoints, devices, rows, steps.
fn nothing_is_left(agent: &Agent, devices: usize) -> Result<()> {
    let left = attachments(agent)?;
    ensure!(left.is_empty(), "endpoints are left: {left:?}");
    let links = ip(&agent.instance, "link show type veth")?;
    let links = links.as_array().map_or(0, Vec::len);
    ensure!(links == devices, "{links} veths instead of {devices}");
    let plan = agent.plan()?;
    ensure!(plan.is_empty(), "steps are left: {plan:?}");
    let status = agent.json(&["status"])?;
    ensure!(
        status["healthy"] == true,
        "not healthy: {}",
        status["problems"]
    );
    Ok(())
}

fn veths(agent: &Agent) -> Result<usize> {
    let links = ip(&agent.instance, "link show type veth")?;
    Ok(links.as_array().map_or(0, Vec::len))
}

#[test]
fn a_container_comes_is_asked_for_again_is_checked_and_goes() -> Result<()> {
    let guard = Guard::pair("tcni")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let place = Temporary::make("tcni-a")?;
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web";
    let cni = Cni::new("tcni-n1", ID, "tcni-a").setting("CNI_ARGS", arguments);

    let versions = cni.setting("CNI_CONTAINERID", "").run("VERSION")?.well()?;
    ensure!(versions["supportedVersions"] == json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    cni.run("STATUS")?.well()?;

    let result = cni.run("ADD")?.well()?;
    ensure!(result["cniVersion"] == "1.1.0");
    let inside_of = &result["interfaces"][1];
    ensure!(inside_of["name"] == "eth0" && inside_of["sandbox"] == "/var/run/netns/tcni-a");
    ensure!(result["ips"][0]["interface"] == 1);
    ensure!(result["routes"][0]["dst"] == "0.0.0.0/0");
    let link = ip("tcni-a", "link show dev eth0")?;
    ensure!(
        link[0]["address"] == inside_of["mac"],
        "{link} is not {inside_of}"
    );
    ensure!(
        link[0]["mtu"] == inside_of["mtu"],
        "{link} is not {inside_of}"
    );
    let host = result["interfaces"][0]["name"]
        .as_str()
        .context("no device")?;
    ip("tcni-n1", &format!("link show dev {host}"))?;
    reaches("tcni-n2c1", address(&result)?)?;
    let listed = attachments(&agent)?;
    ensure!(listed[0]["attachment"]["container"] == ID);
    ensure!(listed[0]["attachment"]["labels"]["pod"] == "web");
    ensure!(
        listed[0]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("web-"))
    );

    // A plugin that was killed before its answer is started again.
    let again = cni.run("ADD")?.well()?;
    ensure!(again == result, "{again} is not {result}");
    ensure!(attachments(&agent)?.len() == 1);

    // A plugin that was called after us has made packets smaller and moved the route.
    tell("tcni-a", "ip addr add 192.0.2.7/24 dev eth0")?;
    tell("tcni-a", "ip link set eth0 mtu 1300")?;
    tell("tcni-a", "ip route del default")?;
    let gateway = result["ips"][0]["gateway"].as_str().context("no gateway")?;
    tell(
        "tcni-a",
        &format!("ip route add default via {gateway} table 100"),
    )?;
    let checked = cni.with("prevResult", result.clone());
    checked.run("CHECK")?.well()?;
    agent.kill()?;
    agent.start()?;
    tell("tcni-n1", "ip link set ovlbr1 down")?; // A round that repairs looks at everything.
    overlay_tests::poll::until_well(|| {
        let link = ip("tcni-n1", "link show dev ovlbr1").ok()?;
        let up = link[0]["flags"].as_array()?.contains(&json!("UP"));
        (!up).then_some("the bridge stays down")
    })
    .map_err(anyhow::Error::msg)?;
    let addresses = ip("tcni-a", "-4 addr show dev eth0")?;
    ensure!(
        addresses.to_string().contains("192.0.2.7"),
        "it is gone: {addresses}"
    );
    ensure!(ip("tcni-a", "link show dev eth0")?[0]["mtu"] == 1300);
    ensure!(ip("tcni-a", "route show default")? == json!([]));
    checked.run("CHECK")?.well()?;

    tell("tcni-a", "ip route del default table 100")?;
    ensure!(checked.run("CHECK")?.code()? == 103);
    ensure!(cni.run("CHECK")?.code()? == 7, "without prevResult");

    cni.run("DEL")?.well()?;
    cni.run("DEL")?.well()?;
    ensure!(ip("tcni-a", "link show")?.as_array().map_or(0, Vec::len) == 1);
    cni.setting("CNI_NETNS", "").run("DEL")?.well()?;
    ensure!(checked.run("CHECK")?.code()? == 3);
    nothing_is_left(&agent, before)?;
    drop(place);
    Ok(())
}

#[test]
fn what_is_asked_for_is_given_or_refused_by_its_code() -> Result<()> {
    let guard = Guard::pair("tcnj")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let _places = [Temporary::make("tcnj-a")?, Temporary::make("tcnj-b")?];
    let one = Cni::new("tcnj-n1", "one", "tcnj-a");
    let two = Cni::new("tcnj-n1", "two", "tcnj-b");

    let asked = json!({ "IPs": ["10.244.1.77/24"], "Mac": "02:00:00:00:00:77" });
    let result = one.with("runtimeConfig", asked).run("ADD")?.well()?;
    ensure!(address(&result)? == IpAddr::from([10, 244, 1, 77]));
    ensure!(result["interfaces"][1]["mac"] == "02:00:00:00:00:77");
    reaches("tcnj-n2c1", address(&result)?)?;
    reaches(
        "tcnj-a",
        guard.topology().nodes[1].containers[0].address.into(),
    )?;

    let same = two.setting("CNI_ARGS", "IP=10.244.1.77");
    ensure!(same.run("ADD")?.code()? == 101, "an address twice");
    let outside = two.setting("CNI_ARGS", "IP=10.9.9.9");
    ensure!(outside.run("ADD")?.code()? == 7);
    let other = Cni::new("tcnj-n1", "three", "tcnj-a");
    ensure!(other.run("ADD")?.code()? == 100, "an interface twice");
    ensure!(two.with("network", json!("none")).run("ADD")?.code()? == 7);
    ensure!(two.with("network", json!("none")).run("STATUS")?.code()? == 50);
    ensure!(
        two.with("ipam", json!({ "type": "host-local" }))
            .run("ADD")?
            .code()?
            == 2
    );
    ensure!(two.with("cniVersion", json!("0.2.0")).run("ADD")?.code()? == 1);
    ensure!(two.with("cniVersion", json!("1.0.0")).run("GC")?.code()? == 1);
    ensure!(two.setting("CNI_CONTAINERID", "").run("ADD")?.code()? == 4);
    ensure!(two.setting("CNI_IFNAME", "a/b").run("ADD")?.code()? == 4);
    ensure!(
        two.setting("CNI_NETNS", "/run/netns/none")
            .run("ADD")?
            .code()?
            == 5
    );
    let node = two.setting("CNI_NETNS", "/run/netns/tcnj-n1");
    ensure!(node.run("ADD")?.code()? == 8, "the node's own namespace");
    ensure!(two.run("REBOOT")?.code()? == 4);
    ensure!(attachments(&agent)?.len() == 1);

    // The older form of a result, behind what another plugin has made.
    let previous = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{ "name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/x" }],
        "ips": [{ "version": "4", "address": "192.0.2.1/24", "interface": 0 }],
        "dns": { "nameservers": ["192.0.2.53"] },
    });
    let chained = two
        .with("cniVersion", json!("0.4.0"))
        .with("prevResult", previous);
    let result = chained.run("ADD")?.well()?;
    ensure!(result["interfaces"][0]["name"] == "net1" && result["interfaces"][2]["name"] == "eth0");
    ensure!(result["ips"][1]["interface"] == 2 && result["ips"][1]["version"] == "4");
    ensure!(
        result["interfaces"][2].get("mtu").is_none(),
        "0.4.0 has none: {result}"
    );
    ensure!(result["dns"]["nameservers"][0] == "192.0.2.53");

    // GC leaves what is in use, whoever is not told of it, and what it is told of.
    let valid = json!([{ "containerID": "one", "ifname": "eth0" }]);
    let gone = two.with("cni.dev/valid-attachments", valid);
    gone.run("GC")?.well()?;
    one.run("GC")?.well()?;
    ensure!(attachments(&agent)?.len() == 2);
    // A container that is started again without DEL has the same id and another namespace.
    let moved = Cni::new("tcnj-n1", "one", "tcnj-b").setting("CNI_IFNAME", "eth1");
    let first = one
        .setting("CNI_NETNS", "/run/netns/tcnj-b")
        .setting("CNI_IFNAME", "eth1");
    first.run("ADD")?.well()?;
    ensure!(moved.run("ADD")?.well()?["interfaces"][1]["sandbox"] == "/var/run/netns/tcnj-b");
    moved
        .setting("CNI_NETNS", "/run/netns/tcnj-a")
        .run("ADD")?
        .well()?;
    ip("tcnj-a", "link show dev eth1")?;
    ensure!(ip("tcnj-b", "link show dev eth1").is_err(), "it is in both");
    for cni in [&one, &two, &moved] {
        cni.run("DEL")?.well()?;
    }
    nothing_is_left(&agent, before)
}

#[test]
fn what_happens_while_the_agent_is_away_is_made_up_for() -> Result<()> {
    let guard = Guard::pair("tcnk")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let mut places = Vec::new();
    for name in ["tcnk-a", "tcnk-b", "tcnk-c"] {
        places.push(Temporary::make(name)?);
        Cni::new("tcnk-n1", name, name).run("ADD")?.well()?;
    }
    ensure!(attachments(&agent)?.len() == 3);
    agent.kill()?;
    let absent = Cni::new("tcnk-n1", "absent", "tcnk-a").setting("CNI_IFNAME", "eth1");
    ensure!(absent.run("STATUS")?.code()? == 50);
    ensure!(absent.run("ADD")?.code()? == 11, "to be tried again");
    ensure!(
        absent
            .setting("CNI_CONTAINERID", "tcnk-b")
            .with("prevResult", json!({}))
            .run("CHECK")?
            .code()?
            == 7
    );
    // The agent hears of one when it starts, and sees of the other that its namespace is gone.
    Cni::new("tcnk-n1", "tcnk-a", "tcnk-a").run("DEL")?.well()?;
    Cni::new("tcnk-n1", "tcnk-a", "").run("DEL")?.well()?;
    drop(places.remove(1));
    // The path leads to somebody else's namespace now, which is not touched.
    let stranger = Temporary::make("tcnk-b")?;
    agent.start()?;
    overlay_tests::poll::until_well(|| {
        let left = attachments(&agent).ok()?;
        (left.len() != 1).then(|| format!("{left:?}"))
    })
    .map_err(anyhow::Error::msg)?;
    ensure!(attachments(&agent)?[0]["attachment"]["container"] == "tcnk-c");
    ensure!(
        ip("tcnk-b", "link show")?.as_array().map_or(0, Vec::len) == 1,
        "the stranger has eth0"
    );
    ensure!(ip("tcnk-a", "link show")?.as_array().map_or(0, Vec::len) == 1);
    // Its runtime is not told again, and the same container can come again.
    Cni::new("tcnk-n1", "tcnk-a", "tcnk-a").run("ADD")?.well()?;
    for name in ["tcnk-a", "tcnk-b", "tcnk-c"] {
        Cni::new("tcnk-n1", name, name).run("DEL")?.well()?;
    }
    nothing_is_left(&agent, before)?;
    ensure!(
        !Path::new("/run/overlay/tcnk-n1/detach")
            .read_dir()?
            .any(|_| true)
    );
    drop(stranger);
    Ok(())
}

#[test]
fn a_hundred_containers_of_killed_plugins_leave_nothing() -> Result<()> {
    let guard = Guard::pair("tcnl")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let _place = Temporary::make("tcnl-a")?;
    for round in 0..100_u64 {
        let cni = Cni::new("tcnl-n1", &format!("{ID}-{round}"), "tcnl-a");
        let mut plugin = cni.start("ADD")?;
        // Killed before, during and after its question.
        std::thread::sleep(Duration::from_millis(round % 12));
        plugin.kill()?;
        plugin.wait()?;
        if round % 3 == 0 {
            cni.run("ADD")?.well()?;
        }
        if round == 50 {
            agent.kill()?;
            agent.start()?;
        }
        let netns = if round % 2 == 0 {
            ""
        } else {
            "/run/netns/tcnl-a"
        };
        cni.setting("CNI_NETNS", netns).run("DEL")?.well()?;
    }
    // What a killed plugin has asked for can come after its container's DEL.
    for round in 0..100 {
        Cni::new("tcnl-n1", &format!("{ID}-{round}"), "")
            .run("DEL")?
            .well()?;
    }
    ensure!(ip("tcnl-a", "link show")?.as_array().map_or(0, Vec::len) == 1);
    nothing_is_left(&agent, before)
}
