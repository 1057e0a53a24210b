//! `cnitool`, libcni's own client: all verbs through the library that runtimes call plugins with, and
//! the plugins that are chained behind ours.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    netns::Temporary,
    packages::{Release, fetched},
    poll,
    run::{self, Running},
    script::inside,
};
use serde_json::{Value, json};

use super::{
    nodes::{Clients, portmap, serves},
    room::Room,
};
use crate::{address, attachments, ip, reaches, tell};

/// What a container is to send and get, in bits a second.
const SHAPED: u32 = 8_000_000;

struct Tool<'a> {
    room: &'a Room,
}

impl<'a> Tool<'a> {
    fn put(room: &'a Room) -> Result<Option<Self>> {
        let Some(program) = fetched("cnitool") else {
            return Ok(None);
        };
        fs::copy(program, room.path("usr/bin/cnitool"))?;
        Ok(Some(Self { room }))
    }

    fn ask(&self, verb: &str, netns: &str, capabilities: &Value) -> Result<Output> {
        let path = format!("/run/netns/{netns}");
        let mut tool = self.room.command(&["cnitool", verb, "pods", &path]);
        tool.env("CNI_PATH", "/usr/lib/cni");
        tool.env("NETCONFPATH", "/etc/cni/net.d");
        tool.env("CAP_ARGS", capabilities.to_string());
        Ok(tool.output()?)
    }

    fn tell(&self, verb: &str, netns: &str, capabilities: &Value) -> Result<String> {
        let said = self.ask(verb, netns, capabilities)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&said.stdout), text(&said.stderr));
        ensure!(said.status.success(), "{verb} {netns}: {out}{error}");
        Ok(out)
    }

    fn add(&self, netns: &str, capabilities: &Value) -> Result<Value> {
        let said = self.tell("add", netns, capabilities)?;
        serde_json::from_str(&said).with_context(|| format!("not a result: {said}"))
    }
}

/// Bits a second of TCP between a client and a server that listens.
fn rate(client: &str, server: &str, at: std::net::IpAddr, direction: &str) -> Result<f64> {
    let _listens = Running::inside(server, "iperf3 -s -1")?;
    let line = inside(client, format!("iperf3 -c {at} -t 2 -J {direction}"));
    let mut rate = None;
    poll::until_well(|| match run::json(&line) {
        Ok(said) => {
            rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
            rate.is_none().then(|| said["error"].to_string())
        }
        // It does not listen yet.
        Err(error) => Some(error.to_string()),
    })
    .map_err(anyhow::Error::msg)?;
    rate.context("iperf3 counted nothing")
}

/// Each hook that the agent leaves an attached container to the kernel for.
fn hooks(endpoints: &[Value]) -> Vec<String> {
    let all = endpoints.iter().filter_map(|it| it["hooks"].as_array());
    all.flatten().map(Value::to_string).collect()
}

#[test]
fn libcni_asks_all_verbs_of_a_chain() -> Result<()> {
    let Some(clients) = Clients::up(Release::Forky, "tcpg")? else {
        return Ok(());
    };
    let Some(tool) = Tool::put(&clients.rooms[0])? else {
        return Ok(());
    };
    let chained = [
        portmap(),
        json!({ "type": "firewall" }),
        json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.IFNAME.arp_announce": "2" } }),
        json!({ "type": "sbr" }),
    ];
    clients.configure(1, &["1.0.0", "1.1.0"], &chained)?;
    let agent = clients.guard.agent(1);
    let no_capability = json!({});
    let places = ["tcpg-a", "tcpg-b"].map(Temporary::make);
    for place in &places {
        ensure!(place.is_ok(), "{place:?}");
    }

    tool.tell("status", "tcpg-a", &no_capability)?;
    agent.kill()?;
    let away = tool.ask("status", "tcpg-a", &no_capability)?;
    ensure!(!away.status.success(), "the agent is away");
    let why = String::from_utf8_lossy(&away.stderr).into_owned();
    ensure!(why.contains("connect to the agent"), "{why}");
    agent.start()?;
    tool.tell("status", "tcpg-a", &no_capability)?;

    let published = json!({
        "portMappings": [{ "hostPort": 8091, "containerPort": 80, "protocol": "tcp" }],
        "ips": ["10.244.1.78/24"],
        "mac": "02:00:00:00:00:78",
    });
    let result = tool.add("tcpg-a", &published)?;
    ensure!(result["cniVersion"] == "1.1.0", "{result}");
    ensure!(address(&result)?.to_string() == "10.244.1.78");
    let inside_of = ip("tcpg-a", "link show dev eth0")?;
    ensure!(inside_of[0]["address"] == "02:00:00:00:00:78");
    let far = &clients.guard.topology().nodes[1];
    reaches(&far.containers[0].namespace, address(&result)?)?;
    // sbr leaves routes to those alone that say by their address whom they speak for.
    let line = format!("ping -c 1 -I 10.244.1.78 {}", far.containers[0].address);
    tell("tcpg-a", &line)?;
    let announced = tell("tcpg-a", "sysctl -n net.ipv4.conf.eth0.arp_announce")?;
    ensure!(announced == "2\n", "tuning: {announced}");
    let moved = ip("tcpg-a", "route show table 100 default")?;
    ensure!(moved != json!([]), "sbr has moved no route");
    let busybox = clients.rooms[0].path("rootfs/bin/busybox");
    let serve = format!(
        "{} httpd -f -p 80 -h {}",
        busybox.display(),
        clients.rooms[0].path("rootfs").display()
    );
    let server = Running::inside("tcpg-a", &serve)?;
    let node = clients.guard.topology().nodes[0].underlay;
    for from in ["tcpg-n2", "tcpg-n1c1", "tcpg-n2c1"] {
        serves(from, &format!("{node}:8091"))?;
    }
    tool.tell("check", "tcpg-a", &published)?;

    // What the agent no longer has is missed.
    tool.add("tcpg-b", &no_capability)?;
    tool.tell("check", "tcpg-b", &no_capability)?;
    tell("tcpg-b", "ip addr flush dev eth0")?;
    let checked = tool.ask("check", "tcpg-b", &no_capability)?;
    ensure!(!checked.status.success(), "there is no address");
    tool.tell("del", "tcpg-b", &no_capability)?;
    tool.tell("del", "tcpg-b", &no_capability)?;
    ensure!(attachments(&agent)?.len() == 1);

    // It knows no attachment that is valid, so it deletes all that it remembers.
    tool.tell("gc", "tcpg-a", &no_capability)?;
    drop(server);
    ensure!(attachments(&agent)?.is_empty());
    tool.add("tcpg-a", &no_capability)?;
    // While the agent is away it is told by the spool.
    agent.kill()?;
    tool.tell("del", "tcpg-a", &no_capability)?;
    agent.start()?;
    clients.nothing_is_left()
}

#[test]
fn what_bandwidth_shapes_is_shaped_and_nothing_else() -> Result<()> {
    let Some(clients) = Clients::up(Release::Forky, "tcph")? else {
        return Ok(());
    };
    let Some(tool) = Tool::put(&clients.rooms[0])? else {
        return Ok(());
    };
    let bandwidth = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    clients.configure(1, &["1.0.0", "1.1.0"], &[bandwidth])?;
    let agent = clients.guard.agent(1);
    let places = ["tcph-a", "tcph-b"].map(Temporary::make);
    for place in &places {
        ensure!(place.is_ok(), "{place:?}");
    }
    let limits = json!({ "bandwidth": {
        "ingressRate": SHAPED, "ingressBurst": SHAPED / 8,
        "egressRate": SHAPED, "egressBurst": SHAPED / 8,
    } });
    let shaped = address(&tool.add("tcph-a", &limits)?)?;
    let free = address(&tool.add("tcph-b", &json!({}))?)?;
    tool.tell("check", "tcph-a", &limits)?;
    poll::until(|| attachments(&agent), |all| hooks(all).len() >= 2)?;
    // From this node and from the other one, each way.
    for from in ["tcph-n1c1", "tcph-n2c1"] {
        for direction in ["", "--reverse"] {
            let slow = rate(from, "tcph-a", shaped, direction)?;
            let fast = rate(from, "tcph-b", free, direction)?;
            println!("{from} {direction}: {slow:.0} and {fast:.0} bits a second");
            ensure!(slow < 2.0 * f64::from(SHAPED), "{from} {direction}: {slow}");
            ensure!(
                fast > 10.0 * f64::from(SHAPED),
                "{from} {direction}: {fast}"
            );
        }
    }
    tool.tell("del", "tcph-a", &limits)?;
    tool.tell("del", "tcph-b", &json!({}))?;
    let left = ip(&agent.instance, "link show type ifb")?;
    ensure!(left == json!([]), "the plugin leaves {left}");
    clients.nothing_is_left()
}
