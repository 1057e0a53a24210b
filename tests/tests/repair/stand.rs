//! A lab with one of each object: two networks, one over IPv4 and masqueraded, one over IPv6
//! with both families inside, kept apart; a forwarding container; the guard.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    config::{Config, Network, Peer},
    counters,
    families::{Families, Family},
    guard::Guard,
    poll, run,
    script::{inside, words},
    shape::{Scenario, Shape},
    topology::{Container, Node, Topology},
};

use crate::damage::Damage;

const BLUE: &str = "blue";

pub(crate) struct Stand {
    pub(crate) guard: Guard,
    pub(crate) agent: Agent,
}

/// How a damage went by.
pub(crate) struct Repair {
    pub(crate) what: String,
    pub(crate) took: Duration,
}

impl Stand {
    pub(crate) fn raise(name: &str) -> Result<Self> {
        let shape =
            Shape::of(name, Scenario::Overlay, 2, 3)?.speaking(Families::Both, Families::V4)?;
        let nodes = Topology::new(shape.clone()).nodes;
        let guard = Guard::configured(shape, |node, config| {
            let peer = nodes.iter().find(|other| other.number != node.number);
            if let Some(peer) = peer {
                configure(node, peer, config);
            }
        })?;
        let agent = guard.agent(1);
        Ok(Self { guard, agent })
    }

    /// A container of a node: the first and second are in the first network, the third in the other.
    pub(crate) fn container(&self, node: usize, number: usize) -> &Container {
        &self.guard.topology().nodes[node - 1].containers[number - 1]
    }

    /// Runs a command in the agent's node.
    pub(crate) fn on_node(&self, command: &str) -> Result<String> {
        Self::within(&self.agent.instance, command)
    }

    /// Runs a command, as a shell reads it, in a namespace.
    pub(crate) fn within(namespace: &str, command: &str) -> Result<String> {
        let mut argv = words(inside(namespace, "sh -c"));
        argv.push(command.to_owned());
        Ok(run::checked(&argv)?)
    }

    /// The node's side of a container's veth.
    pub(crate) fn veth(&self, number: usize) -> String {
        format!("ovl-{}", self.container(1, number).namespace)
    }

    /// The folder of the instance's pins.
    pub(crate) fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/overlay").join(&self.agent.instance)
    }

    /// How programs are attached.
    pub(crate) fn attach(&self) -> Result<String> {
        let status = self.agent.json(&["status"])?;
        let attach = status["fastpath"]["attach"].as_str();
        Ok(attach.context("the programs are not attached")?.to_owned())
    }

    /// None when nothing is to be done and everybody answers.
    pub(crate) fn complaint(&self) -> Option<String> {
        let ask = || -> Result<Option<String>> {
            let plan = self.agent.plan()?;
            if !plan.is_empty() {
                return Ok(Some(format!("still to be done: {plan:?}")));
            }
            self.silence()
        };
        ask().unwrap_or_else(|error| Some(format!("{error:#}")))
    }

    /// Who does not answer.
    fn silence(&self) -> Result<Option<String>> {
        let (here, there) = (self.container(1, 1), self.container(2, 1));
        let node = &self.agent.instance;
        for (from, to) in [
            (&here.namespace, IpAddr::from(there.address)),
            (&there.namespace, here.address.into()),
            (node, there.address.into()),
            (&here.namespace, self.container(1, 2).address.into()),
            (&self.container(1, 3).namespace, blue(2, Family::V6)),
            (&self.container(2, 3).namespace, blue(1, Family::V4)),
        ] {
            if let Answer::None(why) = check::ping(from, to)? {
                return Ok(Some(format!("{from} → {to}: {why}")));
            }
        }
        Ok(None)
    }

    /// Does a damage, and waits until it is undone; then nothing may be left to do.
    pub(crate) fn suffer(&self, damage: &Damage) -> Result<Repair> {
        let look = || (damage.look)(self);
        let before = look().with_context(|| format!("before {}", damage.what))?;
        (damage.make)(self).with_context(|| damage.what.clone())?;
        let start = Instant::now();
        let undone = poll::until_well(|| match look() {
            Ok(now) if now == before => None,
            Ok(now) => Some(format!("was:\n{before}\nis:\n{now}")),
            Err(error) => Some(format!("{error:#}")),
        });
        let took = start.elapsed();
        assert_eq!(
            undone,
            Ok(()),
            "after {}\n{}",
            damage.what,
            self.agent.log()?
        );
        Ok(Repair {
            what: damage.what.clone(),
            took,
        })
    }

    /// Waits until nothing is to be done and everybody answers.
    pub(crate) fn is_whole(&self, after: &str) -> Result<()> {
        let whole = poll::until_well(|| self.complaint());
        assert_eq!(whole, Ok(()), "after {after}\n{}", self.agent.log()?);
        Ok(())
    }

    /// Packets that the agent's programs have received for its containers.
    pub(crate) fn received(&self) -> Result<u64> {
        Ok(counters::carried(&self.agent.instance)?.received)
    }
}

/// The address in the second network of a node's third container.
pub(crate) fn blue(node: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 245, node, 10].into(),
        Family::V6 => [0xfd00, 0x245, 0, node.into(), 0, 0, 0, 10].into(),
    }
}

fn configure(node: &Node, peer: &Node, config: &mut Config) {
    let subnets = |node: u8| {
        vec![
            format!("10.245.{node}.0/24"),
            format!("fd00:245:0:{node}::/64"),
        ]
    };
    config.node.guard = Some("native");
    config.networks[0].masquerade = Some(true);
    config.networks.push(Network {
        name: BLUE.to_owned(),
        vni: 2,
        port: 4790,
        cidr: vec!["10.245.0.0/16".to_owned(), "fd00:245::/48".to_owned()],
        subnet: subnets(node.number),
        peers: vec![Peer {
            name: peer.namespace.clone(),
            vtep: peer.underlay6.to_string(),
            subnet: subnets(peer.number),
            ..Peer::default()
        }],
        ..Network::default()
    });
    let third = &mut config.endpoints[2];
    BLUE.clone_into(&mut third.network);
    third.address = [Family::V4, Family::V6]
        .map(|family| blue(node.number, family).to_string())
        .to_vec();
    third.forwarding = Some(true);
    third.allowed_sources = vec![format!("10.99.{}.0/24", node.number)];
}
