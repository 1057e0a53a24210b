//! The node as it should be, as it is, and what has come of bringing these together.

use std::{
    future::pending,
    mem,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use overlay_api::Spool;
use overlay_cluster::talk::News;
use overlay_core::{
    config::{ConfigError, Loaded},
    desired::{Facts, ForPeers, Inputs},
    identity::NetnsId,
    model::{Metrics, Model},
    surroundings::Observed,
    trouble::Trouble,
};
use overlay_kernel::{KernelError, bpf::Variant, netlink::Watch, netns};
use overlay_node::{
    apply::Report,
    node::Node,
    observe::Known,
    probe::Probes,
    store::{Store, StoreError},
};
use tokio::task::yield_now;
use tracing::warn;

use super::{
    DEBOUNCE,
    attachments::Held,
    capture::Capture,
    config_file::refused_fragments,
    flows::Flows,
    late::Late,
    messages::Messages,
    names::NameService,
    patrol::Patrol,
    repairs::Repairs,
    since::Since,
    teardown::{TeardownError, teardown},
};

/// News for the patrol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Untold {
    #[default]
    Nothing,
    /// Of containers that came: at its next turn.
    Containers,
    /// The observation of a round: before anything else.
    Round,
}

/// The desired state, the kernel, and what has come of bringing them together.
pub struct Reconciler {
    pub(super) node: Node,
    pub(super) store: Store,
    /// The configuration that is in force, without what was added at run time.
    pub(super) config: Model,
    /// The same with it.
    pub(super) model: Model,
    pub(super) facts: Facts,
    /// The kernel's events about the node.
    pub(super) watch: Option<Watch>,
    /// Its known state.
    pub(super) known: Known,
    /// The peers' objects of the last time.
    pub(super) for_peers: Option<Arc<ForPeers>>,
    /// The last look, for `status`.
    pub(super) observed: Observed,
    pub(super) report: Report,
    /// Whether the last round has found all as it should be.
    pub(super) settled: bool,
    /// Whether what was done last is still to be looked at.
    pub(super) unfinished: bool,
    /// Steps since memory was last given back.
    pub(super) steps: usize,
    /// Problems of the last round.
    pub(super) problems: Vec<Trouble>,
    /// When the configuration that is in force was read.
    pub(super) read_at: SystemTime,
    /// The missing part of the underlay: nothing is done until it is there.
    pub(super) waiting: Option<String>,
    /// Whether the node is not called like its instance.
    renamed: bool,
    /// Why the file that is there now is not in force.
    pub(super) refused: Option<String>,
    /// Why files of peers are not in force, or only as they were before.
    pub(super) refused_fragments: Vec<Trouble>,
    /// The last news of the cluster's helper.
    pub(super) cluster: Option<News>,
    /// Problems of the cluster.
    pub(super) cluster_troubles: Vec<Trouble>,
    /// Why the programs cannot be used.
    pub(super) unavailable: Option<KernelError>,
    /// Why Prometheus does not find the counters where it should.
    pub(super) closed_to_metrics: Option<Trouble>,
    /// Repairs of others' changes.
    pub(super) repairs: Repairs,
    /// Since when each problem is there.
    pub(super) since: Since,
    /// The variant of the programs.
    pub(super) variant: Variant,
    /// The capture that is under way.
    pub(super) capture: Option<Capture>,
    /// The programs' messages for the log.
    pub(super) messages: Option<Messages>,
    pub(super) patrol: Patrol,
    /// Attachments that were to go while no agent ran.
    pub(super) spool: Spool,
    /// Addresses that are kept for containers that are about to come.
    pub(super) held: Held,
    /// Changes that the patrol does not know of.
    pub(super) untold: Untold,
    /// Containers whose programs are attached later.
    pub(super) late: Late,
    pub(super) probes: Probes,
    pub(super) names: NameService,
    /// Flows that the kernel translates.
    pub(super) flows: Flows,
}

impl Reconciler {
    /// For a node on which nothing has been done yet.
    pub(super) fn new(
        node: Node,
        store: Store,
        loaded: Loaded,
        watch: Watch,
        spool: Spool,
    ) -> Self {
        let config = loaded.model;
        let model = store.content().complete(config.clone());
        // Whoever starts it so knows.
        let renamed = *store.content().instance() != config.node.name;
        Self {
            renamed,
            node,
            store,
            config,
            model,
            facts: Facts::default(),
            watch: Some(watch),
            known: Known::default(),
            for_peers: None,
            observed: Observed::default(),
            report: Report::default(),
            settled: false,
            unfinished: false,
            steps: 0,
            problems: Vec::new(),
            read_at: SystemTime::now(),
            waiting: None,
            refused: loaded.refused.map(|refused| refused.to_string()),
            refused_fragments: refused_fragments(&loaded.refused_fragments),
            cluster: None,
            cluster_troubles: Vec::new(),
            unavailable: None,
            closed_to_metrics: None,
            repairs: Repairs::default(),
            since: Since::default(),
            variant: Variant::default(),
            capture: None,
            messages: None,
            patrol: Patrol::default(),
            spool,
            held: Held::default(),
            untold: Untold::default(),
            late: Late::default(),
            probes: Probes::default(),
            names: NameService::default(),
            flows: Flows::default(),
        }
    }

    /// Takes a new configuration into force, and notes what of the files is not, and why.
    pub(super) fn set_config(&mut self, loaded: Loaded) {
        self.config = loaded.model;
        if loaded.refused.is_none() {
            self.read_at = SystemTime::now();
        }
        let refused = loaded.refused.as_ref();
        self.refused = refused.map(ConfigError::while_running);
        self.refused_fragments = refused_fragments(&loaded.refused_fragments);
        self.complete();
    }

    /// Says so when the node has another name than the instance that it was started as.
    pub(super) fn tell_new_name(&mut self) {
        let (instance, node) = (self.store.content().instance(), &self.config.node.name);
        let differ = instance != node;
        if differ && !mem::replace(&mut self.renamed, differ) {
            warn!(
                "node.name is {node} now, and this stays instance {instance}: start it as \
                 \"overlay-agent run --instance {instance}\" from now on, or change the name back"
            );
        }
        self.renamed = differ;
    }

    pub(super) fn complete(&mut self) {
        self.wish();
        self.model = self.store.content().complete(self.config.clone());
    }

    /// Where Prometheus should find the counters.
    pub(super) fn metrics(&self) -> Metrics {
        self.model.node.metrics
    }

    /// Lets cures be pasted wherever they are read.
    pub(super) fn make_pasteable(&self, troubles: &mut [Trouble]) {
        let content = self.store.content();
        for trouble in troubles {
            trouble.cure_on(Some(content.instance()), content.netns.as_deref());
        }
    }

    /// Has the patrol take what was seen last for what there should be. Nobody who
    /// asked for something has to wait for that.
    pub(super) async fn instruct_patrol(&mut self) {
        if self.untold == Untold::Round {
            // An answer is on its way before.
            yield_now().await;
            self.tell_patrol().await;
        }
    }

    async fn tell_patrol(&mut self) {
        self.untold = Untold::Nothing;
        self.patrol
            .expect(&mut self.node, &self.model, &self.observed)
            .await;
    }

    /// Waits for a change that netlink announces, and tells how long to wait for more of it; a dead
    /// socket is left to the timer.
    pub(super) async fn changed(&mut self) -> Duration {
        if let Some(watch) = &mut self.watch {
            match watch.changed().await {
                // What is lost meanwhile is worth more than a round that may have been saved.
                Ok(true) => return Duration::ZERO,
                Ok(false) => return DEBOUNCE,
                Err(error) => {
                    warn!("{error}; changes are found later");
                    self.watch = None;
                }
            }
        }
        pending().await
    }

    /// Whether something has changed that nobody announces.
    pub(super) async fn patrol(&mut self) -> bool {
        if self.settled && self.untold == Untold::Containers {
            self.tell_patrol().await;
        }
        let found = self
            .patrol
            .finds_something(&mut self.node, &self.observed)
            .await;
        if found {
            self.distrust();
        }
        found
    }

    /// Looks at everything the next time that nobody announces.
    pub(super) fn distrust(&mut self) {
        self.known.distrust();
    }

    /// The missing part of the underlay, if everything waits for it.
    pub(super) fn waits_for(&self) -> Option<&str> {
        self.waiting.as_deref()
    }

    /// Whether nothing is left to be tried again.
    pub(super) fn is_well(&self) -> bool {
        self.problems.is_empty() && self.report == Report::default()
    }

    /// The inputs of the desired state.
    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            model: &self.model,
            store: self.store.content(),
            observed: &self.observed,
            loaded: self.node.dataplane.is_some(),
            attached: !self.store.content().fastpath_off,
            capacity: self.capacity(),
            before: self.for_peers.as_ref(),
            late: Some(self.late.names()),
            translated: Some(self.flows.too_many()),
        }
    }

    /// Forgets the unfinished objects of a killed agent: once all steps are done they are finished or gone.
    pub(super) fn forget_the_unfinished(&mut self) -> Result<(), StoreError> {
        if self.is_well() {
            self.store.has_made()?;
        }
        Ok(())
    }

    /// Brings what is remembered to the disk.
    pub(super) fn close(self) -> Result<(), String> {
        self.store.close()
    }

    /// Removes all that is the instance's.
    pub(super) async fn down(self) -> Result<Vec<String>, TeardownError> {
        let Self {
            node,
            store,
            probes,
            spool,
            ..
        } = self;
        // What of others is in its folder is told when the runtime folder is given up.
        if let Err(error) = spool.clear() {
            warn!("remove what was to be detached: {error}");
        }
        // Its sockets go before its devices.
        drop(probes);
        teardown(node, store).await
    }
}

/// The namespace at a path; one that cannot be looked at is none that we know.
pub(super) fn identity(path: &Path) -> Option<NetnsId> {
    netns::id(path).ok().flatten()
}
