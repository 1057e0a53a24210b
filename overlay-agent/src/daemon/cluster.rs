//! The helper that speaks with the cluster's store, and what it hands over.
//!
//! It is started as somebody without rights, told what to do by a line on its standard input, and
//! tells what it knows by lines on its standard output. A network that it hands over counts as a
//! fragment of the configuration does: it is validated, kept in the state folder, and stays in
//! force whatever becomes of helper and store.

use std::{io, net::IpAddr, path::PathBuf, process::Stdio, time::Duration};

use overlay_cluster::{
    access::Access,
    problem,
    talk::{News, Start, State},
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{Reconciler, access, config_file::ConfigFile, files::replace, subnet_env};
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
    /// One that could not be written, and when that is tried again.
    unsaved: Option<(String, Instant)>,
    /// Why `subnet.env` is not as it should be.
    no_subnet_env: Option<Trouble>,
}

/// What the helper's turn brings.
pub(super) enum Told {
    /// It has told something.
    News(Box<News>),
    /// A network that could not be written is to be written again.
    SaveAgain,
}

struct Running {
    start: Start,
    child: Child,
    // Its end tells the helper to end.
    input: ChildStdin,
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
            unsaved: None,
            no_subnet_env: None,
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
        let no_subnet_env = subnet_env::follow(reconciler);
        if let Some(trouble) = no_subnet_env.as_ref()
            && self.no_subnet_env.as_ref() != Some(trouble)
        {
            warn!("{trouble}");
        }
        self.no_subnet_env = no_subnet_env;
        reconciler.cluster_troubles = self.troubles();
        reconciler.cluster.clone_from(&self.news);
    }

    /// Starts, replaces or ends the helper, as the configuration wants it.
    pub(super) async fn follow(&mut self, reconciler: &Reconciler, fragment: Option<&String>) {
        let Some(cluster) = &reconciler.config.cluster else {
            (self.running, self.news, self.failure) = (None, None, None);
            return;
        };
        let access = match access::read(&cluster.access) {
            Ok(access) => access,
            // One that runs goes on with what was there before.
            Err(error) => {
                self.fail(ids::CLUSTER_HELPER, error.what(), error.cure);
                return;
            }
        };
        let Some(start) = start(reconciler, cluster, access, fragment) else {
            // One that runs knows where this node was.
            if self.running.is_some() {
                return;
            }
            self.restart = Instant::now() + RESTART;
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
            self.renew(start.access).await;
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
    pub(super) async fn changed(&mut self) -> io::Result<Told> {
        let again = self.unsaved.as_ref().map(|(_, again)| *again);
        let again = async {
            match again {
                Some(again) => sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        if let Some(running) = &mut self.running {
            return tokio::select! {
                news = running.next() => news.map(|news| Told::News(Box::new(news))),
                () = again => Ok(Told::SaveAgain),
            };
        }
        if self.failure.is_some() {
            sleep_until(self.restart).await;
            return Err(io::ErrorKind::NotConnected.into());
        }
        std::future::pending().await
    }

    /// Takes in what the helper has told; whether the configuration has to be read again.
    pub(super) fn take(&mut self, told: io::Result<Told>, config: &ConfigFile) -> bool {
        let mut news = match told {
            Ok(Told::News(news)) => news,
            Ok(Told::SaveAgain) => {
                return self.unsaved.take().is_some_and(|(text, _)| self.save(text));
            }
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
        self.news = Some(*news);
        let Some(text) = fragment else { return false };
        (self.refused, self.unsaved) = (None, None);
        if let Some(faults) = config.cluster_faults(&text) {
            self.fail(
                ids::CLUSTER_REFUSED,
                format!("what the cluster's store says is refused, the network before stays in force: {faults}"),
                "correct the configuration file if that is in the way, or the store",
            );
            self.refused = Some(text);
            return false;
        }
        self.save(text)
    }

    /// Writes a network down; whether the configuration has to be read again.
    fn save(&mut self, text: String) -> bool {
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
                // The helper tells it no second time.
                self.unsaved = Some((text, Instant::now() + RESTART));
                false
            }
        }
    }

    /// Tells the helper of certificates that were renewed, or of another password.
    async fn renew(&mut self, access: Access) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.start.access != access {
            info!("the files of certificates and passwords of the cluster have changed");
            // One that does not hear it has ended, which its output says.
            if let Err(cause) = running.tell(&access).await {
                warn!("tell the cluster's helper: {cause}");
            }
            running.start.access = access;
        }
        let of_helper = |failure: &Trouble| failure.id == ids::CLUSTER_HELPER;
        if self.failure.as_ref().is_some_and(of_helper) {
            self.failure = None;
        }
    }

    fn fail(
        &mut self,
        id: &'static str,
        what: impl Into<String>,
        cure: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        let failure = Trouble::new(id, "cluster", what, cure);
        if self.failure.as_ref() != Some(&failure) {
            warn!("{failure}");
        }
        self.failure = Some(failure);
    }

    /// What is wrong, for `status` and doctor.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let failures = self.failure.iter().chain(&self.no_subnet_env);
        let mut troubles: Vec<Trouble> = failures.cloned().collect();
        let Some(news) = &self.news else {
            return troubles;
        };
        if news.state == State::Disconnected {
            let away = news.away.as_ref();
            let why = away.map_or("not connected yet", |away| &away.what);
            let usual = "start etcd, or correct cluster.etcd";
            troubles.push(Trouble::new(
                ids::CLUSTER_AWAY,
                "cluster",
                format!("etcd cannot be followed, the last known peers stay: {why}"),
                away.map_or(usual, |away| &away.cure).to_owned(),
            ));
        }
        // No more than the helper tells, unless it is not the helper any more.
        let problems = news.problems.iter().take(problem::MOST + 1);
        troubles.extend(problems.map(|problem| {
            let subject = format!("cluster {}", problem.subject);
            let (what, cure) = (problem.what.clone(), problem.cure.clone());
            Trouble::new(ids::CLUSTER_ENTRY, subject, what, cure)
        }));
        troubles
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

    async fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.input.write_all(&line).await
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
fn start(
    reconciler: &Reconciler,
    cluster: &Cluster,
    access: Access,
    fragment: Option<&String>,
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
        wanted: cluster.subnet.iter().map(ToString::to_string).collect(),
        last: ranges.map(|range| range.subnet.to_string()).collect(),
        bound: allocations.any(|given| given.network == cluster.network),
        fragment: fragment.cloned(),
    })
}

/// Whether a helper that was started by one need not be started anew for the other: what it hands
/// over itself is no reason, and what members ask for it is told anew.
fn asks_alike(one: &Start, other: &Start) -> bool {
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
