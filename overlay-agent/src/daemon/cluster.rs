//! The helper that speaks with the cluster's store, and what it hands over.
//!
//! It is started as somebody without rights, told what to do by a line on its standard input, and
//! tells what it knows by lines on its standard output. A network that it hands over counts as a
//! fragment of the configuration does: it is validated, kept in the state folder, and stays in
//! force whatever becomes of helper and store. After the whole it tells what changes of it, which counts
//! at once and is written down a little later: the store has it, too.

mod behind;
mod process;
mod saving;

use std::{future::pending, io, path::PathBuf, time::Duration};

use overlay_cluster::{
    access::Access,
    changes::Changes,
    problem,
    talk::{News, Start, State},
};
use overlay_core::{
    config::{PeerChange, Taken},
    trouble::{Trouble, ids},
};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use self::{
    behind::Behind,
    process::{PROGRAM, Running, asks_alike, keys, start},
};
use super::{Reconciler, access, config_file::ConfigFile, subnet_env};

pub(crate) use self::process::program;

/// A helper that ends is started again after so long.
const RESTART: Duration = Duration::from_secs(1);
/// Changes are written to the file after this time.
const SAVE: Duration = Duration::from_secs(5);

/// The helper, and what it has told.
pub(super) struct Helper {
    /// Where its network is kept.
    file: PathBuf,
    running: Option<Running>,
    restart: Instant,
    /// Its last news.
    pub(super) news: Option<News>,
    /// Why it does not run, or what it said does not count.
    failure: Option<Trouble>,
    /// A network that was refused, until the configuration file is no longer in its way.
    refused: Option<String>,
    /// Unsaved changes, and when they are to be saved.
    unsaved: Option<(Unsaved, Instant)>,
    /// The write that is under way.
    behind: Option<Behind>,
    /// Why `subnet.env` is not as it should be.
    no_subnet_env: Option<Trouble>,
}

/// Changes that are not saved yet.
enum Unsaved {
    /// A network that is in force once it is.
    Whole(String),
    /// Changes of the text in force.
    Changes,
}

/// An event of the helper.
pub(super) enum Told {
    /// It has told something.
    News(Box<News>),
    /// Its changes are to be saved.
    Save,
    /// A save has ended, or failed.
    Saved,
}

/// The action that follows from the helper's news.
pub(super) enum Outcome {
    Nothing,
    /// The configuration has to be read again.
    Read,
    /// Other peers are in force.
    Peers(PeerChange),
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
            behind: None,
            no_subnet_env: None,
        }
    }

    /// Does what the configuration asks for, and notes what is to be told.
    pub(super) async fn round(&mut self, reconciler: &mut Reconciler, config: &mut ConfigFile) {
        let may_be = |text: &String| config.files().cluster_faults(text).is_none();
        if self.refused.as_ref().is_some_and(may_be) {
            // A new helper tells it again.
            (self.running, self.refused) = (None, None);
            self.restart = Instant::now();
        }
        self.follow(reconciler, config).await;
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
    pub(super) async fn follow(&mut self, reconciler: &Reconciler, config: &ConfigFile) {
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
        let keys = match keys(&reconciler.node.key, cluster) {
            Ok(keys) => keys,
            Err(error) => {
                self.fail(ids::CLUSTER_HELPER, error.what(), error.cure());
                return;
            }
        };
        let Some(start) = start(reconciler, cluster, (access, keys)) else {
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
        let fragment = config.cluster_text();
        match Running::start(Start { fragment, ..start }).await {
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
        let due = self.unsaved.as_ref().map(|(_, due)| *due);
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        let told = async {
            if let Some(running) = &mut self.running {
                let news = running.next().await?;
                return Ok(Told::News(Box::new(news)));
            }
            if self.failure.is_some() {
                sleep_until(self.restart).await;
                return Err(io::ErrorKind::NotConnected.into());
            }
            pending().await
        };
        let saved = async {
            match &mut self.behind {
                Some(behind) => behind.done().await,
                None => pending().await,
            }
        };
        tokio::select! {
            told = told => told,
            () = saved => Ok(Told::Saved),
            () = due => Ok(Told::Save),
        }
    }

    /// Takes in what the helper has told.
    pub(super) fn take(&mut self, told: io::Result<Told>, config: &mut ConfigFile) -> Outcome {
        let mut news = match told {
            Ok(Told::News(news)) => news,
            Ok(Told::Save) => {
                return match self.unsaved.take() {
                    Some((Unsaved::Whole(text), _)) => self.save(text, config),
                    Some((Unsaved::Changes, _)) => self.save_changes(config),
                    None => Outcome::Nothing,
                };
            }
            Ok(Told::Saved) => {
                self.saved();
                return Outcome::Nothing;
            }
            Err(cause) => {
                self.has_ended(&cause);
                return Outcome::Nothing;
            }
        };
        let (fragment, changes) = (news.fragment.take(), news.changes.take());
        self.news = Some(*news);
        if let Some(text) = fragment {
            config.files().tell_cluster(&text);
            return self.accept(text, config);
        }
        match changes {
            Some(changes) => self.take_changes(&changes, config),
            None => Outcome::Nothing,
        }
    }

    fn has_ended(&mut self, cause: &io::Error) {
        if self.running.take().is_none() {
            return;
        }
        self.restart = Instant::now() + RESTART;
        let what = format!("the cluster's helper has ended: {cause}");
        warn!("{what}");
        let cure = "it is started again; the agent's log has what it said";
        self.fail(ids::CLUSTER_HELPER, what, cure);
    }

    /// Takes in what has changed since the whole was told.
    fn take_changes(&mut self, changes: &Changes, config: &mut ConfigFile) -> Outcome {
        match config.files().change_cluster(changes) {
            Ok(Taken::Peers(change)) => {
                let later = Instant::now() + SAVE;
                self.unsaved.get_or_insert((Unsaved::Changes, later));
                Outcome::Peers(change)
            }
            Ok(Taken::Whole) => match config.files().told_cluster() {
                Some(text) => self.accept(text, config),
                None => Outcome::Nothing,
            },
            Err(mismatch) => {
                // Another helper tells all of it.
                self.has_ended(&io::Error::other(mismatch));
                Outcome::Nothing
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

    /// The problems, for `status` and doctor.
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

#[cfg(test)]
mod tests;
