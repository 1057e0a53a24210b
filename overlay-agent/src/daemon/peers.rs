//! Peers that come and go one by one, without a look at all others.
//!
//! A round takes its time for each peer of the node. What one of very many needs follows from the
//! network, which the last round has left as it should be; its steps are those of a round. What others
//! do is seen with the next round, as ever, and whatever is not as usual is left to one at once.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use overlay_core::{
    config::PeerChange,
    desired::{self, Few, OfSome},
    model::Name,
    objects::{Guard, Stray},
    plan::plan,
    plural::count_of,
    shared::Shared,
};
use overlay_node::observe::are_echoes;
use tracing::{debug, info};

use super::{Reconciler, reconcile::Untold};

impl Reconciler {
    /// Takes other peers of a network into force; whether a round is to follow.
    pub(super) async fn change_peers(&mut self, change: &PeerChange) -> bool {
        if change.gone.is_empty() && change.come.is_empty() {
            return false;
        }
        self.read_at = SystemTime::now();
        let is_usual = self.is_usual(change);
        let networks = &mut self.config.networks;
        if let Some(network) = networks
            .iter_mut()
            .find(|network| network.name == change.network)
        {
            network.peers = change.peers.clone();
        }
        self.complete();
        if !is_usual {
            return true;
        }
        let done = self.change_alone(change).await;
        if done.is_none() {
            debug!("peers have changed, which takes a look at everything");
        }
        done.is_none()
    }

    /// Whether all is as it should be, and no endpoint depends on whose a prefix is.
    fn is_usual(&self, change: &PeerChange) -> bool {
        let has_sources = self
            .model
            .endpoints
            .iter()
            .any(|endpoint| !endpoint.allowed_sources.is_empty());
        let added = self.store.content().endpoints.iter();
        let mut added = added.filter(|added| !added.allowed_sources.is_empty());
        let usual = self.settled && !self.unfinished && self.is_well();
        let is_other = |name: &Name| *name != change.network;
        let mut others = self.model.networks.iter();
        let is_shared = others.any(|other| {
            let mut peers = other.peers.iter();
            is_other(&other.name)
                && peers.any(|peer| change.gone.iter().any(|gone| gone.vtep == peer.vtep))
        });
        usual && !has_sources && added.next().is_none() && !is_shared
    }

    /// Carries out the change; `None` where it is left to a round.
    async fn change_alone(&mut self, change: &PeerChange) -> Option<()> {
        let port = self.model.network(&change.network)?.outer_port();
        let ways = self.known.ways_to(&change.come, &change.gone, port)?;
        let few = Few {
            network: &change.network,
            gone: &change.gone,
            come: &change.come,
            ways: &ways,
        };
        let of_few = desired::of_some(self.inputs(), few)?;
        let strays = self.known.peer_strays();
        let steps = plan(&of_few.there, &of_few.wanted);
        if !self.carry_out(&steps).await.is_complete() {
            return None;
        }
        info!("applied {}", count_of(steps.steps().len(), "step"));
        self.take_in_peers(few, of_few, strays)?;
        self.follow_probes();
        self.follow_names();
        self.name_messages();
        self.settle_on(&[]);
        if self.untold == Untold::Nothing {
            self.untold = Untold::Containers;
        }
        self.heard_echoes().then_some(())
    }

    /// Has what is known of all peers be what it is now. It is large: nobody else may keep a copy
    /// meanwhile, or it would have to be copied for this change.
    fn take_in_peers(
        &mut self,
        few: Few<'_>,
        of_few: OfSome,
        strays: Option<BTreeSet<Stray>>,
    ) -> Option<()> {
        self.patrol.forget_peers();
        self.unsettle();
        let before = Arc::into_inner(self.for_peers.take()?)?;
        let network = self.model.network(few.network)?;
        self.observed.objects.peers = Shared::default();
        self.observed.around.ways = Shared::default();
        let before = before.emptied();
        let (peers, ways) = self.known.change_peers(&self.model, few, &of_few, strays)?;
        self.observed.objects.peers = peers.clone();
        self.observed.around.ways = ways.clone();
        if let Some(Guard::Rules(rules)) = &of_few.wanted.guard {
            self.observed.objects.guard = Some(Guard::Does(rules.digest()));
        }
        self.for_peers = Some(Arc::new(before.with(network, of_few, peers, ways)));
        Some(())
    }

    /// Whether all that the kernel has announced meanwhile is what was just done.
    fn heard_echoes(&mut self) -> bool {
        let Some(watch) = &mut self.watch else {
            return false;
        };
        let Some(changes) = watch.take() else {
            watch.miss();
            return false;
        };
        let content = self.store.content();
        let are_echoes = are_echoes(&self.node, content, &self.known, &changes);
        if !are_echoes {
            watch.give_back(changes);
        }
        are_echoes
    }
}
