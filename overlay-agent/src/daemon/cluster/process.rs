//! The helper's process.

use std::{io, net::IpAddr, path::PathBuf, process::Stdio};

use overlay_cluster::{
    access::Access,
    talk::{News, Start},
};
use overlay_core::model::{Cluster, Mac, PublicKey};
use overlay_kernel::helper;
use overlay_node::key::{KeyError, KeyFile};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::daemon::Reconciler;

/// Its program.
pub(super) const PROGRAM: &str = "overlay-cluster";
/// No line of its is longer: 100,000 peers take half of it.
const LONGEST: usize = 64 << 20;

/// A helper that runs.
pub(super) struct Running {
    pub(super) start: Start,
    child: Child,
    // Its end tells the helper to end.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Running {
    pub(super) async fn start(start: Start) -> io::Result<Self> {
        let mut command = Command::from(helper::command(&program()?));
        command.arg("follow");
        let mut child = command
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("it has no standard input or output");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut running = Self {
            start,
            child,
            input,
            output: BufReader::new(output),
            line: Vec::new(),
        };
        let start = running.start.clone();
        running.tell(&start).await?;
        Ok(running)
    }

    pub(super) async fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.input.write_all(&line).await
    }

    /// The next line. What was read of one is kept when the wait is given up.
    pub(super) async fn next(&mut self) -> io::Result<News> {
        loop {
            let read = self.output.fill_buf().await?;
            if read.is_empty() {
                let status = self.child.wait().await?;
                return Err(io::Error::other(format!("{status}")));
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(read.len(), |end| end + 1);
            self.line.extend(&read[..length]);
            self.output.consume(length);
            if self.line.len() > LONGEST {
                return Err(io::Error::other("it told more than a node can take"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}

/// The public halves of this node's keys, for others: of one that is needed, or has been made before it is, so
/// that all have it when the first one encrypts.
pub(super) fn keys(file: &KeyFile, cluster: &Cluster) -> Result<[Option<PublicKey>; 2], KeyError> {
    let key = match cluster.wireguard {
        Some(_) => Some(file.read_or_make()?),
        None => file.read()?,
    };
    let next = file.next().read()?;
    Ok([key, next].map(|key| key.map(|key| key.public())))
}

/// The parameters of the helper; `None` without an IPv4 address.
pub(super) fn start(
    reconciler: &Reconciler,
    cluster: &Cluster,
    (access, keys): (Access, [Option<PublicKey>; 2]),
) -> Option<Start> {
    let vteps = reconciler.facts.vteps.iter();
    let (mut v4, mut v6) = (None, None);
    for &vtep in vteps {
        let mac = Mac::of_vtep(vtep).to_string();
        match vtep {
            IpAddr::V4(address) => v4 = Some((address, mac)),
            IpAddr::V6(address) => v6 = Some((address, mac)),
        }
    }
    let network = reconciler.config.network(&cluster.network);
    let ranges = network.iter().flat_map(|network| &network.ranges);
    let mut allocations = reconciler.store.content().allocations.values();
    Some(Start {
        etcd: cluster.etcd.clone(),
        access,
        prefix: cluster.prefix.clone(),
        network: cluster.network.to_string(),
        node: reconciler.config.node.name.to_string(),
        v4: v4?,
        v6,
        keys: keys.map(|key| key.map(|key| key.to_string())),
        encrypted: cluster.wireguard.is_some(),
        wanted: cluster.subnet.iter().map(ToString::to_string).collect(),
        last: ranges.map(|range| range.subnet.to_string()).collect(),
        bound: allocations.any(|given| given.network == cluster.network),
        fragment: None,
    })
}

/// Whether a helper that was started by one need not be started anew for the other: what it hands
/// over itself is no reason, and what members ask for it is told anew.
pub(super) fn asks_alike(one: &Start, other: &Start) -> bool {
    let question = |start: &Start| Start {
        last: Vec::new(),
        bound: false,
        fragment: None,
        access: Access::default(),
        ..start.clone()
    };
    question(one) == question(other)
}

/// The helper's program, which lies beside the agent's.
pub(crate) fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name(PROGRAM))
}
