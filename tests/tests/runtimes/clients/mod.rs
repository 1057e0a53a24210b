//! Real runtimes from the distribution, each on two nodes: what they do with the plugin, and that
//! nothing is left of it.

mod cnitool;
mod containerd;
mod docker;
mod driver;
mod nodes;
mod podman;
mod room;
mod rules;

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{packages::Release, poll};
use serde_json::json;

use self::{
    containerd::Containerd,
    nodes::{Clients, HostPort, SERVE, is_served, only_address, portmap},
    podman::{Backend, Podman},
};
use crate::attachments;

#[test]
fn podman_4_runs_containers_by_cni() -> Result<()> {
    let Some(clients) = Clients::up(Release::Bookworm, "tcpa")? else {
        return Ok(());
    };
    let tuning = json!({ "type": "tuning", "mtu": 1400 });
    clients.configure(1, &[], &[portmap(), json!({ "type": "firewall" }), tuning])?;
    clients.configure(2, &[], &[portmap()])?;
    let agent = clients.guard.agent(1);
    let server = Podman::configured(&clients.rooms[0], Backend::Cni)?;
    let client = Podman::configured(&clients.rooms[1], Backend::Cni)?;
    server.run(
        "--detach --name web --network pods --publish 8081:80",
        SERVE,
    )?;
    is_served(&clients.guard, HostPort::At(8081))?;
    agent.kill()?;
    agent.start()?;
    is_served(&clients.guard, HostPort::At(8081))?;
    let inside = server.tell("exec web /bin/ip link show eth0")?;
    ensure!(
        inside.contains("mtu 1400"),
        "what tuning did is undone: {inside}"
    );
    let at = only_address(&agent)?;
    let page = client.run(
        "--rm --network pods",
        &format!("wget -q -O - http://{at}/page"),
    )?;
    ensure!(page == "well\n", "{page}");
    // It comes back in another namespace.
    server.tell("stop --time 0 web")?;
    ensure!(attachments(&agent)?.is_empty());
    server.tell("start web")?;
    is_served(&clients.guard, HostPort::At(8081))?;
    let asked = client.run(
        "--rm --network pods --ip 10.244.2.77 --mac-address 02:00:00:00:00:77",
        "ip addr show eth0",
    )?;
    ensure!(
        asked.contains("10.244.2.77/24") && asked.contains("02:00:00:00:00:77"),
        "{asked}"
    );
    server.tell("rm --force --time 0 web")?;
    clients.nothing_is_left()
}

#[test]
fn podman_5_runs_containers_by_netavark() -> Result<()> {
    let Some(clients) = Clients::up(Release::Forky, "tcpb")? else {
        return Ok(());
    };
    let agent = clients.guard.agent(1);
    let mut all = Vec::new();
    for (room, node) in clients.rooms.iter().zip([1, 2]) {
        let podman = Podman::configured(room, Backend::Netavark)?;
        let instance = clients.guard.agent(node).instance;
        podman.tell(&format!(
            "network create --driver overlay-cni --opt network=lab --opt instance={instance} pods"
        ))?;
        all.push(podman);
    }
    let [server, client] = all.as_slice() else {
        anyhow::bail!("not two");
    };
    server.run("--detach --name web --network pods:ip=10.244.1.77", SERVE)?;
    ensure!(only_address(&agent)? == IpAddr::from([10, 244, 1, 77]));
    is_served(&clients.guard, HostPort::None)?;
    agent.kill()?;
    agent.start()?;
    is_served(&clients.guard, HostPort::None)?;
    let page = client.run(
        "--rm --network pods",
        "wget -q -O - http://10.244.1.77/page",
    )?;
    ensure!(page == "well\n", "{page}");
    server.tell("stop --time 0 web")?;
    ensure!(attachments(&agent)?.is_empty());
    server.tell("start web")?;
    is_served(&clients.guard, HostPort::None)?;
    // While the agent is away it is told by the spool.
    agent.kill()?;
    server.tell("rm --force --time 0 web")?;
    agent.start()?;
    let refused = server.run("--rm --network pods --publish 8081:80", "true");
    ensure!(refused.is_err_and(|error| error.to_string().contains("publishes none")));
    clients.nothing_is_left()
}

#[test]
fn containerd_1_runs_containers_for_ctr() -> Result<()> {
    let Some(clients) = Clients::up(Release::Bookworm, "tcpc")? else {
        return Ok(());
    };
    // For a detached container ctr sends no DEL, and the rules of a firewall plugin would stay.
    clients.configure(1, &[], &[])?;
    clients.configure(2, &[], &[json!({ "type": "firewall" })])?;
    let agent = clients.guard.agent(1);
    let server = Containerd::start(&clients.rooms[0], Release::Bookworm)?;
    let client = Containerd::start(&clients.rooms[1], Release::Bookworm)?;
    server.run("web", "--detach", SERVE)?;
    is_served(&clients.guard, HostPort::None)?;
    agent.kill()?;
    agent.start()?;
    is_served(&clients.guard, HostPort::None)?;
    let at = only_address(&agent)?;
    let said = client.run(
        "client",
        "--rm",
        &format!("ip -o addr; wget -q -O - http://{at}/page"),
    )?;
    ensure!(
        said.contains(" 10.244.2.") && said.contains("127.0.0.1/8") && said.ends_with("well\n"),
        "{said}"
    );
    // What it leaves goes with its namespace.
    server.ctr("task kill --signal 9 web")?;
    poll::until_well(|| {
        // It tells the exit code of the container as its own.
        let told = server.ctr("task delete web");
        match server.ctr("task list --quiet") {
            Ok(left) => left.contains("web").then(|| format!("{told:?}")),
            Err(error) => Some(error.to_string()),
        }
    })
    .map_err(anyhow::Error::msg)?;
    server.ctr("container delete web")?;
    clients.nothing_is_left()
}

/// A pod on each node, host ports, a daemon and an agent that are killed, and what a kubelet asks.
fn pods(release: Release, name: &str, versions: &[&str]) -> Result<()> {
    let Some(clients) = Clients::up(release, name)? else {
        return Ok(());
    };
    let port = HostPort::At(8090);
    let chained = [portmap(), json!({ "type": "firewall" })];
    clients.configure(1, versions, &chained)?;
    clients.configure(2, versions, &chained)?;
    let agent = clients.guard.agent(1);
    for room in &clients.rooms {
        Podman::configured(room, Backend::of(release))?;
    }
    let mut daemons = Vec::new();
    for room in &clients.rooms {
        let daemon = Containerd::start(room, release)?;
        daemon.take_image(SERVE)?;
        daemons.push(daemon);
    }
    let pod = daemons[0].run_pod("web", &[(8090, 80)])?;
    let other = daemons[1].run_pod("other", &[])?;
    let at = only_address(&agent)?;
    let there = attachments(&clients.guard.agent(2))?;
    let netns = there[0]["netns"].as_str().context("no namespace")?;
    let inside = netns.rsplit('/').next().context("no name")?;
    crate::reaches(inside, at)?;
    is_served(&clients.guard, port)?;
    agent.kill()?;
    // Only from CNI 1.1 on is a plugin asked how it is.
    let ready = daemons[0].network_is_ready()?;
    ensure!(ready.is_ok() != versions.contains(&"1.1.0"), "{ready:?}");
    agent.start()?;
    ensure!(daemons[0].network_is_ready()?.is_ok());
    crate::reaches(inside, at)?;
    // The daemon finds its pods again.
    drop(daemons.remove(0));
    let again = Containerd::start(&clients.rooms[0], release)?;
    crate::reaches(inside, at)?;
    is_served(&clients.guard, port)?;
    for _ in 0..2 {
        again.stop_pod(&pod)?;
    }
    again.remove_pod(&pod)?;
    daemons[0].stop_pod(&other)?;
    daemons[0].remove_pod(&other)?;
    clients.nothing_is_left()
}

#[test]
fn containerd_1_runs_pods() -> Result<()> {
    pods(Release::Bookworm, "tcpd", &[])
}

#[test]
fn containerd_2_runs_pods_and_asks_how_the_plugin_is() -> Result<()> {
    pods(Release::Forky, "tcpe", &["1.0.0", "1.1.0"])
}

#[test]
fn a_hundred_pods_whose_kubelet_gave_up_leave_nothing() -> Result<()> {
    let Some(clients) = Clients::up(Release::Forky, "tcpf")? else {
        return Ok(());
    };
    clients.configure(1, &["1.0.0", "1.1.0"], &[portmap()])?;
    let agent = clients.guard.agent(1);
    Podman::configured(&clients.rooms[0], Backend::Netavark)?;
    let daemon = Containerd::start(&clients.rooms[0], Release::Forky)?;
    daemon.take_image(SERVE)?;
    let mut made = 0;
    for batch in 0..25_u64 {
        // Given up before, while and after the plugin runs, which containerd then kills.
        let outcomes: Vec<bool> = thread::scope(|scope| {
            let daemon = &daemon;
            let asks = (0..4_u64).map(|of| {
                let number = batch * 4 + of;
                scope.spawn(move || {
                    daemon
                        .run_pod_impatiently(&format!("pod-{number}"), 20 + number * 37 % 1200)
                        .is_ok()
                })
            });
            let asks: Vec<_> = asks.collect();
            asks.into_iter()
                .map(|ask| ask.join().is_ok_and(|made| made))
                .collect()
        });
        made += outcomes.iter().filter(|&&it| it).count();
        if batch == 12 {
            agent.kill()?;
            agent.start()?;
        }
    }
    println!("{made} of 100 pods were there before they were given up");
    let patient = daemon.run_pod("patient", &[])?;
    ensure!(daemon.pods()?.contains(&patient));
    let remove_all = || -> Result<usize> {
        for pod in daemon.pods()? {
            daemon.stop_pod(&pod)?;
            daemon.remove_pod(&pod)?;
        }
        // One that was given up may have been started all the same.
        thread::sleep(Duration::from_millis(500));
        Ok(daemon.pods()?.len())
    };
    poll::until_well(|| match remove_all() {
        Ok(0) => None,
        Ok(left) => Some(format!("{left} pods are left")),
        Err(error) => Some(format!("{error:#}")),
    })
    .map_err(anyhow::Error::msg)?;
    clients.nothing_is_left()
}
