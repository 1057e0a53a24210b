//! Two nodes with runtimes on them.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, guard::Guard, packages::Release, poll};
use serde_json::{Value, json};

use super::room::Room;
use crate::{attachments, nothing_is_left, tell, veths};

/// A server of one page.
pub(super) const SERVE: &str = "cd /; exec httpd -f -p 80";

/// Two nodes, each with a room for runtimes.
pub(super) struct Clients {
    pub(super) rooms: [Room; 2],
    before: [usize; 2],
    namespaces: BTreeSet<String>,
    pub(super) guard: Guard,
}

impl Clients {
    pub(super) fn up(release: Release, name: &str) -> Result<Option<Self>> {
        Self::up_with(release.name(), name)
    }

    /// With those of a root of packages that has a name of its own.
    pub(super) fn up_with(packages: &str, name: &str) -> Result<Option<Self>> {
        Self::on(Guard::pair(name)?, packages, name)
    }

    /// On the nodes of a lab that is up.
    pub(super) fn on(guard: Guard, packages: &str, name: &str) -> Result<Option<Self>> {
        let namespaces = namespaces()?;
        let open = |node: u8| Room::open(packages, name, &guard.agent(node).instance);
        let Some(rooms) = open(1)?.zip(open(2)?) else {
            return Ok(None);
        };
        Ok(Some(Self {
            rooms: rooms.into(),
            before: [veths(&guard.agent(1))?, veths(&guard.agent(2))?],
            namespaces,
            guard,
        }))
    }

    /// The list of plugins of a node: ours, and those that are chained behind it.
    pub(super) fn configure(&self, node: u8, versions: &[&str], chained: &[Value]) -> Result<()> {
        let ours = json!({
            "type": "overlay-cni",
            "network": "lab",
            "instance": self.guard.agent(node).instance,
            "capabilities": { "ips": true, "mac": true },
        });
        let plugins: Vec<&Value> = std::iter::once(&ours).chain(chained).collect();
        let mut list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins });
        if !versions.is_empty() {
            list["cniVersions"] = json!(versions);
        }
        let room = &self.rooms[usize::from(node) - 1];
        room.write("etc/cni/net.d/10-overlay.conflist", list.to_string())
    }

    /// Neither node has anything left of what runtimes did: endpoints, devices, steps, rules of
    /// plugins, namespaces.
    pub(super) fn nothing_is_left(&self) -> Result<()> {
        for node in [1, 2] {
            let agent = self.guard.agent(node);
            poll::until_well(|| {
                attachments(&agent)
                    .ok()
                    .filter(|left| !left.is_empty())
                    .map(|left| format!("{left:?}"))
            })
            .map_err(anyhow::Error::msg)?;
            nothing_is_left(&agent, self.before[usize::from(node) - 1])?;
            let tables = tell(&agent.instance, "nft list tables")?;
            for table in ["ip filter", "ip nat"] {
                if !tables.contains(&format!("table {table}\n")) {
                    continue;
                }
                let rules = tell(&agent.instance, &format!("nft list table {table}"))?;
                let clean = !rules.contains("10.244.") && !rules.contains("CNI-DN-");
                ensure!(clean, "rules are left on node {node}: {rules}");
            }
        }
        let left: Vec<String> = namespaces()?
            .difference(&self.namespaces)
            .cloned()
            .collect();
        ensure!(left.is_empty(), "namespaces are left: {left:?}");
        Ok(())
    }
}

/// Names of namespaces that runtimes have made.
fn namespaces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/run/netns")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("netns-") || name.starts_with("cni-") {
            found.insert(name);
        }
    }
    Ok(found)
}

pub(super) fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true } })
}

/// The address of the only attachment of a node.
pub(super) fn only_address(agent: &Agent) -> Result<IpAddr> {
    let all = attachments(agent)?;
    let [only] = all.as_slice() else {
        anyhow::bail!("not one attachment: {all:?}");
    };
    Ok(only["addresses"][0]
        .as_str()
        .context("no address")?
        .parse()?)
}

/// The page of a server, asked for by somebody in a namespace until it is there.
pub(super) fn serves(namespace: &str, at: &str) -> Result<()> {
    poll::until_well(|| {
        let page = tell(
            namespace,
            &format!("curl -sS --max-time 2 http://{at}/page"),
        );
        match page {
            Ok(page) if page == "well\n" => None,
            Ok(page) => Some(page),
            Err(error) => Some(error.to_string()),
        }
    })
    .map_err(|why| anyhow::anyhow!("{namespace} does not get {at}: {why}"))
}

/// To whom a port of the host answers.
#[derive(Clone, Copy)]
pub(super) enum HostPort {
    /// To nobody: there is none
    None,
    /// To everybody
    At(u16),
}

/// A server on the first node answers both nodes and containers of both, and by the host's port.
pub(super) fn is_served(guard: &Guard, port: HostPort) -> Result<()> {
    let server = only_address(&guard.agent(1))?.to_string();
    let [first, second] = [1, 2].map(|node| guard.agent(node).instance);
    let far = format!("{second}c1");
    let all = [first.clone(), second, format!("{first}c1"), far];
    for from in &all {
        serves(from, &server)?;
    }
    let HostPort::At(number) = port else {
        return Ok(());
    };
    let at = format!("{}:{number}", guard.topology().nodes[0].underlay);
    for from in &all {
        serves(from, &at)?;
    }
    Ok(())
}
