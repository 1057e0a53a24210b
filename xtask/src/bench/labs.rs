//! The labs that the subjects live in, and the ways through them.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    guard::Guard,
    names::LabName,
    run,
    script::inside,
    shape::Shape,
    topology::{Node, UNDERLAY, VNI},
};

use super::{
    ceiling::{self, Ceiling},
    subject::Subject,
    uplinks,
};

/// An address that no container has.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The builds of the agent that are compared.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) measured: PathBuf,
    pub(crate) baseline: Option<PathBuf>,
}

impl Agents {
    fn of(&self, subject: Subject) -> Result<&Path> {
        match subject {
            Subject::Baseline => self
                .baseline
                .as_deref()
                .context("name the other build of the agent: --baseline AGENT"),
            _ => Ok(&self.measured),
        }
    }
}

/// Labs that are up as long as this value is.
pub(crate) struct Labs {
    // Before the labs: links go before their devices.
    ceiling: Option<Ceiling>,
    guards: BTreeMap<&'static str, Guard>,
}

/// Two ends and what is between them.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) subject: Subject,
    pub(crate) lab: LabName,
    /// Namespaces of the ends.
    pub(crate) client: String,
    pub(crate) server: String,
    /// The address that clients send to.
    pub(crate) address: Ipv4Addr,
    /// The server's own, which that may be translated to.
    pub(crate) listening: Ipv4Addr,
    /// Namespaces of the nodes that the ends are on; the same one for a local way.
    pub(crate) client_node: String,
    pub(crate) server_node: String,
}

impl Way {
    /// Whether both ends are on one node.
    pub(crate) fn is_local(&self) -> bool {
        self.client_node == self.server_node
    }

    /// The device that a packet passes when the kernel, or socat, does the tunnelling; for
    /// [`Subject::Ceiling`], the one that a packet passes when it is not redirected.
    pub(crate) fn tunnel(&self) -> Option<String> {
        match self.subject {
            Subject::Bare | Subject::Direct => None,
            Subject::Ceiling => Some(ceiling::BRIDGE.to_owned()),
            // The kernel's node is the one that has it, see `tunnelled`.
            Subject::Vxlan | Subject::Mixed | Subject::MixedBack | Subject::ServicesVxlan => {
                Some(format!("flannel.{VNI}"))
            }
            Subject::Tun => Some("tun0".to_owned()),
            Subject::Overlay
            | Subject::OverlayOff
            | Subject::Baseline
            | Subject::Services
            | Subject::OneUplink
            | Subject::TwoUplinks => Some(format!("ovl{VNI}")),
        }
    }

    /// Whether the kernel's device sends, and whether it receives, where there is a [`tunnel`].
    ///
    /// [`tunnel`]: Self::tunnel
    pub(crate) fn tunnelled(&self) -> (bool, bool) {
        (
            self.subject != Subject::MixedBack,
            self.subject != Subject::Mixed,
        )
    }

    /// Whether overlay is the sender, and the receiver, with counters as they are today.
    pub(crate) fn ours(&self) -> (bool, bool) {
        match self.subject {
            Subject::Overlay
            | Subject::OverlayOff
            | Subject::Services
            | Subject::OneUplink
            | Subject::TwoUplinks => (true, true),
            Subject::Mixed => (false, true),
            Subject::MixedBack => (true, false),
            _ => (false, false),
        }
    }

    /// The device that every packet between the nodes passes, unless there are two uplinks.
    pub(crate) const UNDERLAY: &str = UNDERLAY;
}

impl Labs {
    /// Raises the labs of these subjects. One that an earlier run had to leave is made anew.
    pub(crate) fn raise(
        subjects: &[Subject],
        agents: &Agents,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let mut guards = BTreeMap::new();
        for &subject in subjects {
            let (name, _) = subject.lab();
            if !guards.contains_key(name) {
                progress(&format!("raising lab {name}"));
                guards.insert(name, raise(subject, name, agents.of(subject)?)?);
            }
        }
        let mut labs = Self {
            ceiling: None,
            guards,
        };
        if subjects.contains(&Subject::Ceiling) {
            let (one, two) = labs.nodes(Subject::Ceiling)?;
            labs.ceiling = Some(Ceiling::raise(one, two)?);
        }
        Ok(labs)
    }

    /// From a container of node 1 to one of node 2, or back for [`Subject::Mixed`]; between the nodes
    /// themselves for [`Subject::Bare`].
    pub(crate) fn across(&self, subject: Subject) -> Result<Way> {
        let (one, two) = match (subject, self.nodes(subject)?) {
            // The kernel's node is the second.
            (Subject::Mixed, (one, two)) => (two, one),
            (_, nodes) => nodes,
        };
        let (client, server, address, listening) = if subject == Subject::Bare {
            (&one.namespace, &two.namespace, two.underlay, two.underlay)
        } else {
            let (client, server) = (container(one, 0)?, container(two, 0)?);
            let address = match subject {
                Subject::Services | Subject::ServicesVxlan => SERVICE,
                _ => server.address,
            };
            (
                &client.namespace,
                &server.namespace,
                address,
                server.address,
            )
        };
        Ok(Way {
            subject,
            lab: self.guard(subject)?.topology().shape.name.clone(),
            client: client.clone(),
            server: server.clone(),
            address,
            listening,
            client_node: one.namespace.clone(),
            server_node: two.namespace.clone(),
        })
    }

    /// Between two containers of node 1.
    pub(crate) fn local(&self, subject: Subject) -> Result<Way> {
        let (node, _) = self.nodes(subject)?;
        let (client, server) = (container(node, 0)?, container(node, 1)?);
        Ok(Way {
            client: client.namespace.clone(),
            server: server.namespace.clone(),
            address: server.address,
            listening: server.address,
            server_node: node.namespace.clone(),
            ..self.across(subject)?
        })
    }

    /// The agents of a subject's nodes, in their order.
    pub(crate) fn agents(&self, subject: Subject) -> Result<Vec<Agent>> {
        Ok(self.guard(subject)?.agents())
    }

    /// Its two nodes.
    pub(crate) fn nodes(&self, subject: Subject) -> Result<(&Node, &Node)> {
        let nodes = &self.guard(subject)?.topology().nodes;
        let [one, two] = nodes.as_slice() else {
            anyhow::bail!(
                "a comparison takes two nodes, and the lab has {}",
                nodes.len()
            );
        };
        Ok((one, two))
    }

    fn guard(&self, subject: Subject) -> Result<&Guard> {
        let (name, _) = subject.lab();
        self.guards
            .get(name)
            .with_context(|| format!("lab {name} of subject {subject} was not raised"))
    }

    /// Takes them down, and says which could not be.
    pub(crate) fn down(self) -> Result<()> {
        self.guards
            .into_iter()
            .try_for_each(|(name, guard)| guard.down().with_context(|| format!("lab {name}")))
    }
}

fn raise(subject: Subject, name: &str, agent: &Path) -> Result<Guard> {
    let (_, scenario) = subject.lab();
    let shape = Shape::usual(name, scenario)?;
    let guard = Guard::with_agent(shape, agent)?;
    match subject {
        Subject::OverlayOff => {
            guard.fastpath(false)?;
        }
        Subject::Services | Subject::ServicesVxlan => {
            let [client, server] = guard.topology().two_nodes();
            serve(client, container(server, 0)?.address)?;
        }
        Subject::OneUplink | Subject::TwoUplinks => uplinks::lay(&guard, subject)?,
        _ => {}
    }
    Ok(guard)
}

/// Has a node translate the service's address, as kube-proxy does.
fn serve(node: &Node, server: Ipv4Addr) -> Result<()> {
    let table = "ip bench-services";
    for command in [
        format!("add table {table}"),
        format!("add chain {table} prerouting {{ type nat hook prerouting priority dstnat ; }}"),
        format!("add rule {table} prerouting ip daddr {SERVICE} dnat to {server}"),
    ] {
        run::checked(inside(&node.namespace, format!("nft {command}")))?;
    }
    Ok(())
}

/// A node's container, counted from 0.
pub(super) fn container(node: &Node, index: usize) -> Result<&overlay_tests::topology::Container> {
    node.containers
        .get(index)
        .with_context(|| format!("{} has no container {}", node.namespace, index + 1))
}
