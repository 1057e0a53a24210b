//! One round: observe, compute what should be, plan, apply; until nothing is left to do.

use std::{collections::BTreeSet, mem};

use overlay_core::{
    desired::{self, Desired},
    model::{IfName, Model},
    objects::Guard,
    plan::{Plan, Step, plan},
    plural::count_of,
    state::Content,
    surroundings::{Observed, Way},
    trouble::{Trouble, ids},
};
use overlay_kernel::{KernelError, memory, netlink::Watch, nft};
use overlay_node::{
    apply::{self, Report},
    observe::{Known, observe},
    store::StoreError,
};
use tracing::{debug, info, warn};

use super::{
    Reconciler,
    reconcile::{Untold, identity},
};

/// What a round makes may need another one: a device that has our device's name goes, ours is made, and
/// then the guard knows its index. The last one sees that nothing is left to do. That all find work
/// means that somebody works against us; the timer goes on.
const MAX_ROUNDS: usize = 4;

/// Steps that take long to look at, and leave much memory behind.
const MANY_STEPS: usize = 1000;

impl Reconciler {
    /// Brings the node to its desired state; what fails is logged, shown by `status` and tried again.
    pub async fn reconcile(&mut self) {
        let mut problems = Vec::new();
        self.take_from_spool();
        match self.rounds().await {
            Ok(found) | Err(found) => problems.extend(found),
        }
        problems.extend(self.report.failed.iter().cloned());
        self.make_pasteable(&mut problems);
        let now: BTreeSet<&Trouble> = problems.iter().collect();
        let before: BTreeSet<&Trouble> = self.problems.iter().collect();
        for problem in now.difference(&before) {
            warn!("{problem}");
        }
        for problem in before.difference(&now) {
            info!("resolved: {problem}");
        }
        self.problems = problems;
        self.forget_vanished();
        self.follow_probes();
        self.follow_names();
        self.name_messages();
        if !self.unfinished {
            if self.steps > MANY_STEPS {
                memory::release();
                self.steps = 0;
            }
            self.untold = Untold::Round;
        }
    }

    async fn rounds(&mut self) -> Result<Vec<Trouble>, Vec<Trouble>> {
        let mut problems = Vec::new();
        self.unfinished = false;
        self.settled = false;
        let mut done = None;
        for _ in 0..MAX_ROUNDS {
            let desired = self.look().await?;
            problems = desired.problems.iter().map(Trouble::from).collect();
            let plan = plan(&self.observed.objects, &desired.objects);
            self.facts = desired.facts;
            if plan.is_empty() {
                self.settled = true;
                self.report = Report::default();
                self.known.confirm(&desired.objects.peers);
                self.confirm_guard(desired.objects.guard.as_ref());
                self.observed.objects.peers = desired.objects.peers;
                self.settle_on(&problems);
                break;
            }
            if done.as_ref() == Some(&plan) {
                debug!("what was done is not seen: nothing that is known of the node counts");
                self.known = Known::default();
                done = None;
                continue;
            }
            self.note_repairs(&plan, &problems);
            self.report = self.carry_out(&plan).await;
            let steps = plan.steps().len();
            if self.report.failed.is_empty() {
                info!("applied {}", count_of(self.report.done, "step"));
            } else {
                // Told as problems, once; this would be told at every try.
                debug!("applied {} of {steps} steps", self.report.done);
            }
            // Another look at so many takes its time: clients and events come first.
            self.unfinished = steps > MANY_STEPS && self.report.failed.is_empty();
            if self.unfinished || self.report.done == 0 {
                break;
            }
            done = self.report.is_complete().then_some(plan);
        }
        Ok(problems)
    }

    /// What the guard does need not be set by this process.
    fn confirm_guard(&self, guard: Option<&Guard>) {
        let Some(Guard::Rules(rules)) = guard else {
            return;
        };
        if let Err(error) = self
            .node
            .guard
            .confirm(self.store.content().instance(), rules)
        {
            debug!("{error}");
        }
    }

    /// Takes the steps, and notes what nobody announces of them.
    pub(super) async fn carry_out(&mut self, plan: &Plan) -> Report {
        let sets_guard = plan
            .steps()
            .iter()
            .any(|step| matches!(step, Step::SetGuard { .. }));
        let before = sets_guard.then(nft::generation).and_then(Result::ok);
        let begins = self.begins(plan);
        if begins {
            self.know_flows().await;
        }
        let report = apply::apply(plan, &mut self.node, Some(&self.model), &mut self.store).await;
        self.know_own_rules(before);
        self.flows.follow(plan, begins);
        self.known.follow(plan.steps().iter(), report.is_complete());
        self.steps += plan.steps().len();
        report
    }

    /// What nftables announces of the guard that was set since a generation is no news.
    pub(super) fn know_own_rules(&mut self, before: Option<u32>) {
        if let Some(before) = before
            && let Some(after) = self.node.guard.alone_since(before)
            && nft::generation().is_ok_and(|now| now == after)
        {
            self.known.follow_rules(before, after);
        }
    }

    /// Looks at everything, gives endpoints their addresses and computes what should be.
    async fn look(&mut self) -> Result<Desired, Vec<Trouble>> {
        self.load_programs();
        let model = &self.model;
        self.store
            .update(|content| settle(content, model))
            .map_err(|error| vec![remember(&error)])?;
        let changes = self.watch.as_mut().and_then(Watch::take);
        debug!("looking at everything");
        let before = mem::take(&mut self.observed.around.followed);
        // What was seen last is of no more use, and can be large.
        self.observed = Observed::default();
        self.observed = observe(
            &self.node,
            Some(&self.model),
            self.store.content(),
            &mut self.known,
            changes,
        )
        .await
        .map_err(|error| vec![unseen(&error)])?;
        self.node.recognise(&self.observed.around.links);
        self.tell_of_followed(&before);
        if let Some(watch) = &mut self.watch {
            watch.mind(tunnels(&self.observed));
            watch.hasten(ways(&self.observed));
        }
        let desired = desired::desired(self.inputs());
        self.waiting = match &desired {
            Err(obstacles) if obstacles.may_pass() => Some(obstacles.to_string()),
            _ => None,
        };
        let desired = desired
            .map_err(|obstacles| obstacles.0.iter().map(Trouble::from).collect::<Vec<_>>())?;
        self.for_peers.clone_from(&desired.for_peers);
        let (model, facts) = (&self.model, &desired.facts);
        self.store
            .update(|content| content.remember_vteps(model, &facts.vteps, &facts.underlay))
            .map_err(|error| vec![remember(&error)])?;
        Ok(desired)
    }
}

/// Notes what follows from the model: whose namespaces processes stand for, and addresses.
fn settle(content: &mut Content, model: &Model) {
    content.recognise(model, identity);
    content.allocate(model);
}

fn remember(error: &StoreError) -> Trouble {
    let cure = "see that the folder of the state file can be written to, or move the file away";
    Trouble::new(ids::STATE_NOT_SAVED, "state", error.to_string(), cure)
}

fn unseen(error: &KernelError) -> Trouble {
    let cure = error.cure().unwrap_or("the agent tries again").to_owned();
    Trouble::new(ids::AGENT_CANNOT, "node", error.what(), cure)
}

/// The indices of our VXLAN devices.
fn tunnels(observed: &Observed) -> BTreeSet<u32> {
    let links = observed.around.links.values();
    let tunnels = links.filter(|link| link.ours && link.vxlan_port.is_some());
    tunnels.map(|link| link.index).collect()
}

/// The devices by which packets leave for peers.
fn ways(observed: &Observed) -> BTreeSet<u32> {
    let names: BTreeSet<IfName> = observed.around.ways.values().flat_map(Way::links).collect();
    let links = names
        .iter()
        .filter_map(|name| observed.around.links.get(name));
    links.map(|link| link.index).collect()
}
