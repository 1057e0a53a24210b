//! Containers that come one after another are carried by the kernel at first: their programs are
//! attached when it is quiet again.
//!
//! For each program that TCX attaches, and for each that goes with its device, the kernel waits for
//! a grace period of RCU (`tcx_entry_sync()`: 4 to 10 ms) and lets nobody change any device meanwhile. Of
//! a single container nobody notices; of a series each would wait for all before it. Without programs
//! a container has all that it needs: the kernel's bridge and VXLAN device carry its packets, and the
//! guard judges who it is before anybody hears of it. Its rows say that it is left to the kernel, in both
//! directions, until both programs are there. One that has gone by then has cost no grace period at all.
//!
//! It is kept in memory only: a start attaches whatever is missing.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use overlay_core::{
    desired,
    model::{Endpoint, FastPath, IfName, Name},
    objects::Guard,
    plan::plan,
};
use overlay_kernel::{
    self as kernel,
    bpf::{self, AttachMode},
};
use tokio::time::Instant;
use tracing::{debug, info};

use super::Reconciler;

/// One that comes or goes so soon after another one belongs to a series.
const SERIES: Duration = Duration::from_millis(250);
/// It is quiet when none has come or gone for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Where it does not get quiet, one has its turn after so long,
const PATIENCE: Duration = Duration::from_secs(5);
/// and another one each time that this has passed.
const PACE: Duration = Duration::from_millis(100);

/// Those whose programs are to be attached later.
#[derive(Debug, Default)]
pub(super) struct Late {
    names: BTreeSet<Name>,
    /// In the order in which they came; some may have gone since.
    queue: VecDeque<Name>,
    /// When a container has come or gone last.
    changed: Option<Instant>,
    /// When the next one has its turn whether it is quiet or not.
    at_latest: Option<Instant>,
}

impl Late {
    /// Those that the kernel carries.
    pub(super) fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    /// A container has come or gone, and whoever asked for it has been served.
    pub(super) fn note_change(&mut self, now: Instant) {
        self.changed = Some(now);
    }

    fn is_series(&self, now: Instant) -> bool {
        let changed = self.changed;
        changed.is_some_and(|changed| now.saturating_duration_since(changed) < SERIES)
    }

    fn insert(&mut self, name: &Name, now: Instant) {
        if self.names.is_empty() {
            self.queue.clear();
            self.at_latest = Some(now + PATIENCE);
        }
        if self.names.insert(name.clone()) {
            self.queue.push_back(name.clone());
        }
    }

    /// One that goes, or has got its programs in another way.
    pub(super) fn forget(&mut self, name: &Name) {
        self.names.remove(name);
    }

    /// When the next one has its turn; `None` while there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        let at_latest = self.at_latest.filter(|_| !self.names.is_empty())?;
        let quiet = self.changed.map(|changed| changed + QUIET);
        Some(quiet.map_or(at_latest, |quiet| quiet.min(at_latest)))
    }

    /// Takes the first out.
    fn take(&mut self, now: Instant) -> Option<Name> {
        self.at_latest = self.at_latest.map(|at_latest| at_latest.max(now + PACE));
        while let Some(name) = self.queue.pop_front() {
            if self.names.remove(&name) {
                return Some(name);
            }
        }
        None
    }
}

impl Reconciler {
    /// Notes that a container's programs come later, where that helps and nothing is lost by it;
    /// whether they do.
    pub(super) fn may_be_late(&mut self, endpoint: &Endpoint) -> bool {
        let dataplane = self.node.dataplane.as_ref();
        let waits = dataplane.is_some_and(|dataplane| dataplane.mode() == AttachMode::Tcx);
        let network = self.model.network(&endpoint.network);
        let by_kernel = network.is_some_and(|network| network.fastpath == FastPath::Auto);
        // What the kernel carries unjudged waits for nothing.
        let judged = matches!(self.observed.objects.guard, Some(Guard::Does(_)));
        let attaches = !self.store.content().fastpath_off;
        let now = Instant::now();
        let late = waits && by_kernel && judged && attaches && self.late.is_series(now);
        if late {
            self.late.insert(&endpoint.name, now);
        }
        late
    }

    /// Attaches the programs of the container whose turn it is.
    pub(super) async fn attach_late(&mut self) {
        let Some(name) = self.late.take(Instant::now()) else {
            return;
        };
        let mut endpoints = self.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name == name).cloned();
        let Some(endpoint) = endpoint.filter(|_| self.settled) else {
            // The next round does it, as it is not late any more.
            self.wish();
            return self.reconcile().await;
        };
        let fast = self.make_fast(&endpoint).await.unwrap_or_else(|error| {
            debug!("{error}");
            false
        });
        if !fast {
            // What was put off is no repair.
            self.wish();
            self.reconcile().await;
        }
    }

    /// Whether all is as it should be afterwards.
    async fn make_fast(&mut self, endpoint: &Endpoint) -> kernel::Result<bool> {
        let Some(network) = self.model.network(&endpoint.network) else {
            return Ok(false);
        };
        let vni = network.vni;
        let before = self.look_at(vni, endpoint).await?;
        let Some((device, index)) = before.ours() else {
            return Ok(false);
        };
        if !self.has_known_programs(device, index)? {
            return Ok(false);
        }
        let Some(mut wanted) = desired::for_endpoint(self.inputs(), endpoint) else {
            return Ok(false);
        };
        let there = before.objects.namespaces.iter().cloned();
        wanted.namespaces.extend(there);
        // Its packets are the programs' only when both are there: connection tracking sees all of a
        // connection or nothing.
        let mut attached = before.objects.clone();
        attached.attachments.clone_from(&wanted.attachments);
        let steps = [plan(&before.objects, &attached), plan(&attached, &wanted)];
        for steps in &steps {
            if !self.carry_out(steps).await.is_complete() {
                return Ok(false);
            }
        }
        let mut made = self.look_at(vni, endpoint).await?;
        made.objects.attachments = self.known.attached_to(device);
        if !plan(&made.objects, &wanted).is_empty() {
            return Ok(false);
        }
        info!("attached the programs of {}", endpoint.name);
        self.take_in(endpoint, made);
        let programs = bpf::tcx_programs(device, index)?;
        let known = &mut self.observed.around.programs;
        if let Some(there) = known.get_mut(&(device, index)) {
            *there = programs;
        }
        Ok(true)
    }

    /// Whether the last round has seen all programs of a device: others may have put theirs there.
    fn has_known_programs(&self, device: IfName, index: u32) -> kernel::Result<bool> {
        match self.observed.around.programs.get(&(device, index)) {
            Some(known) => Ok(bpf::tcx_programs(device, index)? == *known),
            // No round since it came: the next one looks.
            None => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{Late, PACE, PATIENCE, QUIET, SERIES};

    #[test]
    fn only_one_that_follows_another_is_of_a_series() {
        let now = Instant::now();
        let mut late = Late::default();
        assert!(!late.is_series(now));
        late.note_change(now);
        assert!(late.is_series(now) && !late.is_series(now + SERIES));
        assert_eq!(late.due(), None);
    }

    #[test]
    fn all_have_their_turn_when_it_is_quiet_and_some_before() {
        let [one, two, three] = ["one", "two", "three"].map(|name| name.parse().unwrap());
        let now = Instant::now();
        let mut late = Late::default();
        late.note_change(now);
        for name in [&one, &two, &three, &two] {
            late.insert(name, now);
        }
        assert_eq!(late.due(), Some(now + QUIET));
        let busy = now + PATIENCE;
        late.note_change(busy);
        assert_eq!(late.due(), Some(busy));
        assert_eq!(late.take(busy), Some(one));
        assert_eq!(late.due(), Some(busy + PACE));
        late.forget(&two);
        assert!(late.names().contains(&three) && late.names().len() == 1);
        assert_eq!(late.take(busy + PACE), Some(three));
        assert_eq!((late.due(), late.take(busy)), (None, None));
    }
}
