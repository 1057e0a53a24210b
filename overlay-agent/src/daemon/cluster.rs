//! The helper that speaks with the cluster's store, and what it hands over.
//!
//! It is started as somebody without rights, told what to do by a line on its standard input, and
//! tells what it knows by lines on its standard output. A network that it hands over counts as a
//! fragment of the configuration does: it is validated, kept in the state folder, and stays in
//! force whatever becomes of helper and store.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use overlay_cluster::talk::{News, Start, State};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{Reconciler, config_file::ConfigFile};
use crate::{
    kernel::helper,
    model::{Cluster, Mac},
    trouble::{Trouble, ids},
};

/// The helper's program.
const PROGRAM: &str = "overlay-cluster";
/// A helper that ends is started again after so long.
const RESTART: Duration = Duration::from_secs(1);
/// No line of the helper's is longer: 100,000 peers take half of it.
const LONGEST: usize = 64 << 20;

/// The helper, and what it has told.
pub(super) struct Helper {
    /// Where its network is kept.
    file: PathBuf,
    running: Option<Running>,
    restart: Instant,
    /// What it has told last.
    pub(super) news: Option<News>,
    /// Why it does not run, or what it said does not count.
    failure: Option<Trouble>,
    /// A network that was refused, until the configuration file is no longer in its way.
    refused: Option<String>,
    /// The text of `subnet.env` that was written last.
    subnet_env: Option<String>,
}

struct Running {
    start: Start,
    child: Child,
    // Its end tells the helper to end.
    _input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Helper {
    /// One that is started when the configuration has a cluster.
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            running: None,
            restart: Instant::now(),
            news: None,
            failure: None,
            refused: None,
            subnet_env: None,
        }
    }

    /// Does what the configuration asks for, and notes what is to be told.
    pub(super) async fn round(&mut self, reconciler: &mut Reconciler, config: &ConfigFile) {
        let may_be = |text: &String| config.cluster_faults(text).is_none();
        if self.refused.as_ref().is_some_and(may_be) {
            // A new helper tells it again.
            (self.running, self.refused) = (None, None);
            self.restart = Instant::now();
        }
        self.follow(reconciler, config.cluster_text()).await;
        reconciler.cluster_troubles = self.troubles();
        reconciler.cluster.clone_from(&self.news);
    }

    /// Starts, replaces or ends the helper, as the configuration wants it.
    pub(super) async fn follow(&mut self, reconciler: &Reconciler, fragment: Option<&String>) {
        let Some(cluster) = &reconciler.config.cluster else {
            (self.running, self.news, self.failure) = (None, None, None);
            return;
        };
        let Some(start) = start(reconciler, cluster, fragment) else {
            // One that runs knows where this node was.
            if self.running.is_some() {
                return;
            }
            self.fail(
                ids::CLUSTER_HELPER,
                "this node's underlay has no IPv4 address, which each node of a cluster has",
                "give the underlay one, or name an interface that has one in node.underlay",
            );
            return;
        };
        let same = |running: &Running| asks_alike(&running.start, &start);
        // Only one that has ended is waited for: a new question is asked at once.
        let waits = self.running.is_none() && Instant::now() < self.restart;
        if self.running.as_ref().is_some_and(same) || waits {
            self.write_subnet_env(reconciler, cluster);
            return;
        }
        self.restart = Instant::now() + RESTART;
        self.running = None;
        match Running::start(start).await {
            Ok(running) => {
                info!("the cluster's helper runs");
                self.running = Some(running);
                self.failure = None;
            }
            Err(cause) => self.fail(
                ids::CLUSTER_HELPER,
                format!("start {PROGRAM}: {cause}"),
                "install it beside overlay-agent, readable and executable for everybody; after \
                 [cluster] was added to the configuration restart the agent",
            ),
        }
    }

    /// Waits until the helper tells something or ends; nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) -> io::Result<News> {
        if let Some(running) = &mut self.running {
            return running.next().await;
        }
        if self.failure.is_some() {
            sleep_until(self.restart).await;
            return Err(io::ErrorKind::NotConnected.into());
        }
        std::future::pending().await
    }

    /// Takes in what the helper has told; whether the configuration has to be read again.
    pub(super) fn take(&mut self, told: io::Result<News>, config: &ConfigFile) -> bool {
        let mut news = match told {
            Ok(news) => news,
            Err(cause) => {
                if self.running.take().is_some() {
                    self.restart = Instant::now() + RESTART;
                    warn!("the cluster's helper has ended: {cause}");
                    self.fail(
                        ids::CLUSTER_HELPER,
                        format!("the cluster's helper has ended: {cause}"),
                        "it is started again; the agent's log has what it said",
                    );
                }
                return false;
            }
        };
        let fragment = news.fragment.take();
        self.news = Some(news);
        let Some(text) = fragment else { return false };
        self.refused = None;
        if let Some(faults) = config.cluster_faults(&text) {
            self.fail(
                ids::CLUSTER_REFUSED,
                format!("what the cluster's store says is refused, the network before stays in force: {faults}"),
                "correct the configuration file if that is in the way, or the store",
            );
            self.refused = Some(text);
            return false;
        }
        match replace(&self.file, &text, 0o600) {
            Ok(()) => {
                self.failure = None;
                true
            }
            Err(cause) => {
                self.fail(
                    ids::CLUSTER_REFUSED,
                    format!(
                        "write {}: {cause}; the network before stays in force",
                        self.file.display()
                    ),
                    "make room on that disk",
                );
                false
            }
        }
    }

    fn fail(&mut self, id: &'static str, what: impl Into<String>, cure: &'static str) {
        let failure = Trouble::new(id, "cluster", what, cure);
        if self.failure.as_ref() != Some(&failure) {
            warn!("{failure}");
        }
        self.failure = Some(failure);
    }

    /// What is wrong, for `status` and doctor.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles: Vec<Trouble> = self.failure.iter().cloned().collect();
        let Some(news) = &self.news else {
            return troubles;
        };
        let mut problems = news.problems.iter();
        if news.state == State::Disconnected {
            let why = problems.next().map_or("no connection yet", String::as_str);
            troubles.push(Trouble::new(
                ids::CLUSTER_AWAY,
                "cluster",
                format!("no connection to etcd, the last known peers stay: {why}"),
                "start etcd, or correct cluster.etcd; it is tried again every few seconds",
            ));
        }
        troubles.extend(problems.enumerate().map(|(number, problem)| {
            let (what, cure) = problem
                .rsplit_once("; ")
                .unwrap_or((problem, "correct it in etcd"));
            let subject = format!("cluster {}", number + 1);
            Trouble::new(ids::CLUSTER_ENTRY, subject, what, cure.to_owned())
        }));
        troubles
    }

    /// Writes what flannel's CNI plugin reads, where the configuration says so.
    fn write_subnet_env(&mut self, reconciler: &Reconciler, cluster: &Cluster) {
        let path = cluster.subnet_env.as_ref();
        let Some((path, text)) = path.zip(subnet_env(reconciler, cluster)) else {
            return;
        };
        if self.subnet_env.as_ref() == Some(&text) {
            return;
        }
        match replace(path, &text, 0o644) {
            Ok(()) => self.subnet_env = Some(text),
            Err(cause) => warn!("write {}: {cause}", path.display()),
        }
    }
}

impl Running {
    async fn start(start: Start) -> io::Result<Self> {
        let mut command = Command::from(helper::command(&program()?));
        command.arg("follow");
        let mut child = command
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("it has no standard input or output");
        let mut input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut line = serde_json::to_vec(&start)?;
        line.push(b'\n');
        input.write_all(&line).await?;
        Ok(Self {
            start,
            child,
            _input: input,
            output: BufReader::new(output),
            line: Vec::new(),
        })
    }

    /// The next line. What was read of one is kept when the wait is given up.
    async fn next(&mut self) -> io::Result<News> {
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

/// What the helper is told; `None` without an IPv4 address.
fn start(reconciler: &Reconciler, cluster: &Cluster, fragment: Option<&String>) -> Option<Start> {
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
        prefix: cluster.prefix.clone(),
        network: cluster.network.to_string(),
        node: reconciler.config.node.name.to_string(),
        v4: v4?,
        v6,
        wanted: cluster.subnet.iter().map(ToString::to_string).collect(),
        last: ranges.map(|range| range.subnet.to_string()).collect(),
        bound: allocations.any(|given| given.network == cluster.network),
        fragment: fragment.cloned(),
    })
}

/// Whether a helper that was started by one need not be started anew for the other: what it hands
/// over itself is no reason.
fn asks_alike(one: &Start, other: &Start) -> bool {
    let question = |start: &Start| Start {
        last: Vec::new(),
        bound: false,
        fragment: None,
        ..start.clone()
    };
    question(one) == question(other)
}

/// The helper's program, which lies beside the agent's.
pub(crate) fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name(PROGRAM))
}

/// flannel's `subnet.env`: its lines, in its order.
fn subnet_env(reconciler: &Reconciler, cluster: &Cluster) -> Option<String> {
    let network = reconciler.config.network(&cluster.network)?;
    let mtu = reconciler.facts.mtus.get(&cluster.network)?;
    let families = network.ranges.iter().map(|range| {
        let family = if range.cidr.addr().is_ipv4() {
            ""
        } else {
            "IPV6_"
        };
        format!(
            "FLANNEL_{family}NETWORK={}\nFLANNEL_{family}SUBNET={}/{}\n",
            range.cidr,
            range.gateway(),
            range.subnet.prefix_len()
        )
    });
    Some(format!(
        "{}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={}\n",
        families.collect::<String>(),
        network.masquerade
    ))
}

/// Replaces a file in one step, so that nobody reads half of it and a crash leaves one or the other.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let folder = crate::config::folder_of(path);
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)?;
    // Whatever the mask of the process takes away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
