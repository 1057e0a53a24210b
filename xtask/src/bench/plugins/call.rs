//! Plugins, called as runtimes call them.

use std::{
    ffi::OsString,
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use overlay_tests::{netns, run};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::scale::Node;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// overlay-cni and its agent
    Overlay,
    /// The same with programs that are attached by clsact: without the kernel's waits for TCX
    Clsact,
    /// The bridge plugin with host-local
    Bridge,
    /// The bridge plugin, as flannel's plugin calls it
    Flannel,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Clsact => "… by clsact",
            Self::Bridge => "bridge, host-local",
            Self::Flannel => "… as flannel delegates",
        }
    }
}

pub(super) struct Plugin {
    pub(super) kind: Kind,
    program: PathBuf,
    /// Namespace of the node, in which it is started.
    node: String,
    config: Value,
    path: OsString,
    folder: PathBuf,
    runtime: PathBuf,
}

impl Plugin {
    /// Ours is the first.
    pub(super) fn all(node: &Node, by_clsact: &Node, agent: &Path, others: &Path) -> [Self; 4] {
        let of_node = |node: &Node, kind, program, name: String, config| Self {
            kind,
            program,
            node: name,
            config,
            path: others.into(),
            folder: node.folder().join("host-local"),
            runtime: node.folder().join("run"),
        };
        let one = |kind, program, name, config| of_node(node, kind, program, name, config);
        let ours = |node: &Node, kind| {
            let name = node.name();
            let config = json!({
                "cniVersion": "1.0.0", "name": "pods", "type": "overlay-cni",
                "instance": name, "network": "lab",
            });
            let program = agent.with_file_name("overlay-cni");
            of_node(node, kind, program, name.to_owned(), config)
        };
        let (name, bridge) = (node.name(), others.join("bridge"));
        [
            ours(node, Kind::Overlay),
            ours(by_clsact, Kind::Clsact),
            one(
                Kind::Bridge,
                bridge.clone(),
                format!("{name}-bridge"),
                delegate(node, "bridge", false),
            ),
            one(
                Kind::Flannel,
                bridge,
                format!("{name}-flannel"),
                delegate(node, "flannel", true),
            ),
        ]
    }

    fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Overlay | Kind::Clsact)
    }

    /// The node that it is started on, but for the agent's, which has one.
    pub(super) fn make_place(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        run::checked(format!("ip netns add {}", self.node))?;
        run::checked(format!("ip -n {} link set lo up", self.node))?;
        Ok(())
    }

    pub(super) fn remove_place(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        run::checked(format!("ip netns del {}", self.node))?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// How long it took, from its start to its end.
    pub(super) fn call(&self, verb: &str, container: &str) -> Result<Duration> {
        netns::inside(&self.node, || self.call_here(verb, container))?
    }

    /// What its process has had resident, in KiB, when it waits for its input: what it has done by then.
    pub(super) fn resident(&self) -> Result<u64> {
        let mut child = self.spawn("ADD", "none")?;
        thread::sleep(Duration::from_millis(50));
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        child.kill().context("end it")?;
        child.wait().context("wait for it")?;
        let status = status.context("look at it")?;
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        peak.context("no VmHWM")?.parse().context("VmHWM")
    }

    fn spawn(&self, verb: &str, container: &str) -> Result<Child> {
        Command::new(&self.program)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", format!("/run/netns/{container}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env("OVERLAY_RUNTIME_DIR", &self.runtime)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))
    }

    fn call_here(&self, verb: &str, container: &str) -> Result<Duration> {
        let config = self.config.to_string();
        let since = Instant::now();
        let mut child = self.spawn(verb, container)?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        match stdin.write_all(config.as_bytes()) {
            // One that needs no input may be gone already.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                return Err(error).context("tell it");
            }
            _ => drop(stdin),
        }
        let output = child.wait_with_output().context("wait for it")?;
        let time = since.elapsed();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            bail!("{verb} {container} by {}: {said}", self.program.display());
        }
        Ok(time)
    }
}

/// The bridge plugin with host-local; or as flannel's plugin makes it of a subnet of the same size.
fn delegate(node: &Node, name: &str, flannel: bool) -> Value {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{ "subnet": "10.244.0.0/20" }]],
        "routes": [{ "dst": if flannel { "10.244.0.0/16" } else { "0.0.0.0/0" } }],
        "dataDir": node.folder().join("host-local"),
    });
    let mut config = json!({
        "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": "cni0",
        "isGateway": true, "ipMasq": false, "ipam": ipam,
    });
    if flannel {
        config["hairpinMode"] = json!(true);
        config["isDefaultGateway"] = json!(true);
        config["mtu"] = json!(1450);
    }
    config
}
