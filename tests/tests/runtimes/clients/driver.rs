//! Docker 28 by its remote driver, on two nodes.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    counters,
    families::Families,
    guard::Guard,
    poll,
    shape::{Scenario, Shape},
};

use super::{
    docker::{Docker, NO_BRIDGE, NO_RULES},
    nodes::{Clients, HostPort, SERVE, is_served, only_address},
};
use crate::{attachments, ip};

/// The root of packages that has Docker.
const PACKAGES: &str = "docker";

fn subnet(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

#[test]
fn docker_runs_containers_by_the_driver() -> Result<()> {
    let Some(clients) = Clients::up_with(PACKAGES, "tcpi")? else {
        return Ok(());
    };
    let [first, second] = [1, 2].map(|node| clients.guard.agent(node));
    let mut server = Docker::start(&clients.rooms[0], &first)?;
    let client = Docker::start(&clients.rooms[1], &second)?;
    server.create_network(&subnet(1))?;
    client.create_network(&subnet(2))?;

    server.ran("--detach --name web --network pods", SERVE)?;
    let at = only_address(&first)?;
    ensure!(server.address("web")? == at.to_string());
    let before = counters::carried(&first.instance)?;
    is_served(&clients.guard, HostPort::None)?;
    let fetch = format!("wget -q -O - http://{at}/page");
    ensure!(client.ran("--rm --network pods", &fetch)? == "well");
    let carried = counters::carried(&first.instance)? - before;
    ensure!(
        carried.sent > 0 && carried.received > 0,
        "by the kernel: {carried:?}"
    );

    // Whoever is ended and started again, the container runs on and is reached.
    first.kill()?;
    first.start()?;
    is_served(&clients.guard, HostPort::None)?;
    server.kill_driver()?;
    server.kill(&NO_RULES)?;
    is_served(&clients.guard, HostPort::None)?;
    // Docker's rules drop what the kernel forwards, and nothing of the fast path.
    server.restart(&[NO_BRIDGE])?;
    ensure!(client.ran("--rm --network pods", &fetch)? == "well");
    server.restart(&NO_RULES)?;
    ensure!(only_address(&first)? == at, "it has moved");
    let inside = server.tell("exec web /bin/ip route")?;
    ensure!(
        inside.contains("default via 10.244.1.1 dev ovl0"),
        "{inside}"
    );

    // It comes back in another namespace, and need not have the same address.
    server.tell("stop --time 0 web")?;
    ensure!(attachments(&first)?.is_empty());
    server.tell("start web")?;
    is_served(&clients.guard, HostPort::None)?;

    // Without live-restore a daemon takes its containers along.
    let mortal = [&NO_RULES[..], &["--live-restore=false"]].concat();
    server.restart(&mortal)?;
    server.tell("start web")?;
    is_served(&clients.guard, HostPort::None)?;
    server.restart(&mortal)?;
    ensure!(attachments(&first)?.is_empty());
    server.tell("start web")?;
    is_served(&clients.guard, HostPort::None)?;

    let asked = client.ran(
        "--rm --network pods --ip 10.244.2.77 --mac-address 02:00:00:00:00:77",
        "ip addr show ovl0",
    )?;
    ensure!(
        asked.contains("10.244.2.77/24") && asked.contains("02:00:00:00:00:77"),
        "{asked}"
    );
    // While the agent is away it is told by the spool.
    first.kill()?;
    server.tell("rm --force web")?;
    first.start()?;
    for docker in [&server, &client] {
        docker.tell("network rm pods")?;
    }
    clients.nothing_is_left()
}

#[test]
fn what_docker_cannot_have_is_refused_in_words() -> Result<()> {
    let Some(clients) = Clients::up_with(PACKAGES, "tcpj")? else {
        return Ok(());
    };
    let agent = clients.guard.agent(1);
    let docker = Docker::start(&clients.rooms[0], &agent)?;
    let instance = &agent.instance;
    let ours = format!("--driver overlay-agent --opt instance={instance}");
    let addressed = format!("{ours} --ipam-driver overlay-agent --ipam-opt instance={instance}");
    for (options, why) in [
        (ours.clone(), "add \"--ipam-driver overlay-agent\""),
        (
            format!("{addressed} --ipam-opt network=none"),
            "the agent has lab",
        ),
        (
            format!("{addressed} --opt network=none"),
            "the agent has lab",
        ),
        (
            format!("{addressed} --opt mtu=9000"),
            "there is no option \"mtu\"",
        ),
        (
            format!("{addressed} --subnet 192.0.2.0/24"),
            "it has 10.244.1.0/24",
        ),
        (
            format!("{addressed} --subnet 10.244.1.0/24 --gateway 10.244.1.9"),
            "its gateway is 10.244.1.1",
        ),
        (
            format!("{addressed} --subnet 10.244.1.0/24 --ip-range 10.244.1.128/25"),
            "leave --ip-range out",
        ),
        (format!("{addressed} --internal"), "leave --internal out"),
    ] {
        let said = docker.refused(&format!("network create {options} pods"))?;
        ensure!(said.contains(why), "{options}: {said}");
    }
    docker.create_network(&subnet(1))?;

    let run = |options: &str| {
        let said = docker
            .run(&format!("--rm --network pods {options}"), "true")
            .output()?;
        ensure!(!said.status.success(), "{options}: it has succeeded");
        Ok(String::from_utf8_lossy(&said.stderr).into_owned())
    };
    let said = run("--publish 8081:80")?;
    ensure!(said.contains("the overlay publishes none"), "{said}");
    let other = clients.guard.topology().nodes[0].containers[0].address;
    let said = run(&format!("--ip {other}"))?;
    ensure!(said.contains("in use by endpoint"), "{said}");
    agent.kill()?;
    let said = run("")?;
    ensure!(said.contains("systemctl start overlay-agent"), "{said}");
    agent.start()?;

    // Beside a bridge of Docker's, in either order; ports are published there.
    docker.tell("network create bridged")?;
    for (one, other) in [("pods", "bridged"), ("bridged", "pods")] {
        docker.ran(&format!("--detach --name both --network {one}"), SERVE)?;
        docker.tell(&format!("network connect {other} both"))?;
        let inside = docker.tell("exec both /bin/ip -o -4 addr")?;
        ensure!(
            inside.contains(" eth0 ") && inside.contains(" ovl0 "),
            "{inside}"
        );
        let at: IpAddr = docker.address("both")?.parse().context("no address")?;
        crate::reaches(
            &clients.guard.topology().nodes[1].containers[0].namespace,
            at,
        )?;
        docker.tell("restart --time 0 both")?;
        let inside = docker.tell("exec both /bin/ip -o -4 addr")?;
        ensure!(
            inside.contains(" eth0 ") && inside.contains(" ovl0 "),
            "{inside}"
        );
        docker.tell("rm --force both")?;
    }
    // Which of them has the default route, and what the interface is called, is the user's choice.
    let gateway = |priority: u8| {
        let options = format!("--rm --network bridged --network name=pods,gw-priority={priority}");
        docker.ran(&options, "ip route show default")
    };
    ensure!(gateway(0)?.contains("dev eth0"));
    ensure!(gateway(1)?.contains("via 10.244.1.1 dev ovl0"));
    let named = "name=pods,driver-opt=com.docker.network.endpoint.ifname=net7";
    let inside = docker.ran(&format!("--rm --network {named}"), "ip addr show net7")?;
    ensure!(inside.contains("10.244.1."), "{inside}");
    docker.tell("network rm pods bridged")?;
    let bridges = ip(instance, "link show type bridge")?;
    let bridges = bridges.as_array().map_or(0, Vec::len);
    ensure!(bridges == 1, "{bridges} bridges");
    clients.nothing_is_left()
}

#[test]
fn docker_is_told_of_both_families() -> Result<()> {
    let shape = Shape::of("tcpl", Scenario::Overlay, 2, 1)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let Some(clients) = Clients::on(guard, PACKAGES, "tcpl")? else {
        return Ok(());
    };
    let agent = clients.guard.agent(1);
    let docker = Docker::start(&clients.rooms[0], &agent)?;
    let instance = &agent.instance;
    let ours = format!(
        "--driver overlay-agent --ipam-driver overlay-agent --opt instance={instance} --ipam-opt \
         instance={instance}"
    );
    let refused = docker.refused(&format!("network create {ours} pods"))?;
    ensure!(refused.contains("add --ipv6"), "{refused}");
    docker.tell(&format!("network create {ours} --ipv6 pods"))?;
    docker.ran("--detach --name web --network pods", SERVE)?;
    let given = attachments(&agent)?[0]["addresses"].clone();
    let given = given.as_array().context("no addresses")?;
    ensure!(given.len() == 2, "{given:?}");
    let form = "{{range.NetworkSettings.Networks}}{{.IPAddress}}/{{.GlobalIPv6Address}}{{end}}";
    let known = docker.tell(&format!("inspect --format {form} web"))?;
    for address in given {
        let text = address.as_str().context("no address")?;
        ensure!(known.split('/').any(|it| it == text), "{known}: {text}");
        crate::reaches("tcpl-n2c1", text.parse()?)?;
    }
    let routes = docker.tell("exec web /bin/ip -6 route")?;
    ensure!(routes.contains("default via fd00:"), "{routes}");
    docker.tell("rm --force web")?;
    docker.tell("network rm pods")?;
    clients.nothing_is_left()
}

#[test]
fn fifty_containers_of_docker_with_kills_in_between_leave_nothing() -> Result<()> {
    let Some(clients) = Clients::up_with(PACKAGES, "tcpk")? else {
        return Ok(());
    };
    let agent = clients.guard.agent(1);
    let mut docker = Docker::start(&clients.rooms[0], &agent)?;
    docker.create_network(&subnet(1))?;
    let mut ran = 0;
    for number in 0..50_u64 {
        let name = format!("c{number}");
        let options = format!("--rm --name {name} --network pods");
        let mut run = docker
            .run(&options, "ip addr show ovl0 | grep -q 10.244.1.")
            .spawn()?;
        // Before, while and after the driver is asked.
        let at = Duration::from_millis(40 + number * 53 % 500);
        match number % 10 {
            3 => {
                thread::sleep(at);
                docker.kill_driver()?;
            }
            5 => {
                thread::sleep(at);
                agent.kill()?;
                agent.start()?;
            }
            7 => {
                thread::sleep(at);
                run.kill()?;
            }
            9 => {
                thread::sleep(at);
                docker.kill(&NO_RULES)?;
            }
            _ => {}
        }
        if run.wait()?.success() {
            ran += 1;
        }
    }
    println!("{ran} of 50 containers were run");
    ensure!(ran >= 30, "{ran} of 50 containers were run");
    poll::until_well(|| {
        let left = match docker.tell("ps --all --quiet") {
            Ok(left) => left.replace('\n', " "),
            Err(error) => return Some(error.to_string()),
        };
        if left.is_empty() {
            return None;
        }
        let removed = docker.tell(&format!("rm --force {left}"));
        Some(format!("{left}: {removed:?}"))
    })
    .map_err(anyhow::Error::msg)?;
    // One is there as ever.
    ensure!(
        docker
            .ran("--rm --network pods", "ip addr show ovl0")?
            .contains("10.244.1.")
    );
    docker.tell("network rm pods")?;
    clients.nothing_is_left()
}
