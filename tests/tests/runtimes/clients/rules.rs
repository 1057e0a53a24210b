//! Docker 28's own rules, written by a real dockerd with iptables-nft and with iptables-legacy, on a
//! node with an overlay network.

use std::{os::unix::fs::symlink, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    counters::{carried, reasons},
    families::Family,
    guard::Guard,
    poll,
    traffic::Pair,
};

use super::{
    docker::Docker,
    nodes::{Clients, SERVE, serves},
};
use crate::tell;

/// With rules of its own for IPv4, and a bridge of its own that containers are published from.
const OPTIONS: [&str; 4] = [
    "--ip6tables=false",
    "--userland-proxy=false",
    "--bip=172.31.0.1/24",
    "--live-restore=false",
];
const PUBLISHED: u16 = 8_081;

/// A node with Docker's rules, and another one without.
struct Beside<'a> {
    guard: &'a Guard,
    agent: Agent,
}

impl Beside<'_> {
    fn pair(&self) -> Pair<'_> {
        let [node, other] = self.guard.topology().two_nodes();
        let far = &other.containers[0];
        Pair::between(&node.containers[0], far, Family::V4)
    }

    /// Whether what containers exchange arrives, and all of it by the programs.
    fn is_fast(&self) -> Result<bool> {
        let paths = || -> Result<(u64, u64)> {
            let carried = carried(&self.agent.instance)?;
            let left = ["translated", "tracked", "hooked"];
            let passed = reasons(&self.agent.instance, "PASSES")?.into_iter();
            let of_rules = passed.filter(|(reason, _)| left.contains(&reason.as_str()));
            let left = of_rules.map(|(_, count)| count).sum();
            Ok((carried.sent + carried.received, left))
        };
        let before = paths()?;
        self.pair().udp(&[100, 1000])?;
        self.pair().tcp(&[1 << 20])?;
        let after = paths()?;
        Ok(after.0 != before.0 && after.1 == before.1)
    }

    fn becomes_fast(&self) -> Result<()> {
        poll::until_well(|| match self.is_fast() {
            Ok(true) => None,
            other => Some(format!("not fast: {other:?}")),
        })
        .map_err(anyhow::Error::msg)
    }

    fn on_node(&self, command: &str) -> Result<String> {
        tell(&self.agent.instance, command)
    }

    fn ping_arrives(&self) -> bool {
        let pair = self.pair();
        tell(
            pair.client,
            &format!("ping -n -q -c 1 -W 0.5 {}", pair.address),
        )
        .is_ok()
    }

    /// The commands of doctor's cures, by the check.
    fn cures(&self, check: &str) -> Result<Vec<String>> {
        let found = self.agent.json(&["doctor"])?;
        let findings = found["findings"].as_array().context("no findings")?;
        let of_check = findings.iter().filter(|finding| finding["check"] == check);
        let commands = of_check.filter_map(|finding| finding["cure"]["commands"].as_array());
        let commands = commands.flatten().filter_map(|command| command.as_str());
        Ok(commands.map(str::to_owned).collect())
    }
}

fn beside(name: &str, program: &str, is_seen: bool) -> Result<()> {
    let Some(clients) = Clients::up_with("docker", name)? else {
        return Ok(());
    };
    let room = &clients.rooms[0];
    for link in ["iptables", "ip6tables"] {
        let link = room.path(&format!("usr/sbin/{link}"));
        std::fs::remove_file(&link)?;
        symlink(program, &link)?;
    }
    let beside = Beside {
        guard: &clients.guard,
        agent: clients.guard.agent(1),
    };
    // Docker drops what is forwarded where it has turned forwarding on itself.
    beside.agent.kill()?;
    beside.on_node("sysctl -q -w net.ipv4.ip_forward=0")?;
    let docker = Docker::start_with(room, &beside.agent, &OPTIONS)?;
    beside.agent.start()?;
    let policy = room.tell(&["iptables", "-S", "FORWARD"])?;
    ensure!(policy.contains("-P FORWARD DROP"), "{policy}");
    beside.becomes_fast()?;

    // A published port, from containers of the network and from nodes.
    docker.ran(
        &format!("--detach --name web --publish {PUBLISHED}:80"),
        SERVE,
    )?;
    let nodes = &clients.guard.topology().nodes;
    let at = format!("{}:{PUBLISHED}", nodes[0].underlay);
    for on in [true, false] {
        beside.agent.fastpath(on)?;
        for from in [
            &nodes[0].containers[0].namespace,
            &nodes[1].namespace,
            &nodes[1].containers[0].namespace,
        ] {
            serves(from, &at).with_context(|| format!("fast path {on}"))?;
        }
    }
    // The policy holds for what the kernel carries, and doctor knows what helps.
    ensure!(!beside.ping_arrives(), "without a rule that accepts it");
    if is_seen {
        let cures = beside.cures("firewall-drops-forwarded")?;
        ensure!(
            !cures.is_empty(),
            "no cure: {:#}",
            beside.agent.json(&["doctor"])?
        );
        for cure in &cures {
            // The room is in the node's namespace, and has Docker's own program.
            let command = cure.find("iptables").map(|place| &cure[place..]);
            let command = command.with_context(|| format!("no command of Docker's: {cure}"))?;
            let words: Vec<&str> = command.split_whitespace().collect();
            room.tell(&words)?;
        }
    } else {
        for (from, to) in [("ovlbr1", "ovl1"), ("ovl1", "ovlbr1")] {
            room.tell(&[
                "iptables",
                "-I",
                "DOCKER-USER",
                "-i",
                from,
                "-o",
                to,
                "-j",
                "ACCEPT",
            ])?;
        }
    }
    ensure!(beside.ping_arrives(), "it cures nothing");
    beside.agent.fastpath(true)?;
    beside.becomes_fast()?;

    // What the administrator drops is dropped on either path; of legacy tables that is not seen.
    if is_seen {
        let far = nodes[1].containers[0].address.to_string();
        room.tell(&["iptables", "-I", "DOCKER-USER", "-d", &far, "-j", "DROP"])?;
        poll::until_well(|| beside.ping_arrives().then(|| "it arrives".to_owned()))
            .map_err(anyhow::Error::msg)?;
        for _ in 0..3 {
            ensure!(!beside.ping_arrives());
            thread::sleep(Duration::from_millis(100));
        }
        room.tell(&["iptables", "-D", "DOCKER-USER", "-d", &far, "-j", "DROP"])?;
        beside.becomes_fast()?;
        ensure!(beside.cures("forward-rules-bypassed")?.is_empty());
    }
    docker.tell("rm --force web")?;
    drop(docker);
    Ok(())
}

#[test]
fn beside_docker_s_rules_of_iptables_nft_the_network_is_fast() -> Result<()> {
    beside("tdcr", "xtables-nft-multi", true)
}

#[test]
fn beside_docker_s_rules_of_iptables_legacy_the_network_is_fast() -> Result<()> {
    beside("tdcl", "xtables-legacy-multi", false)
}
