//! Rules of others, as far as they follow connections: when they are read, and what is told of it.

use std::{collections::BTreeMap, time::Duration};

use overlay_core::{
    filter::Following,
    model::{FastPath, Name},
    objects::filter_table,
};
use overlay_kernel::nft::{Commit, Told, Touched};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Reconciler, watches::Changed};

impl Reconciler {
    /// From when on the next round lists rules that have changed; `None` where none have.
    pub(super) fn rules_due(&self) -> Option<Instant> {
        self.known.rules_due().map(Instant::from_std)
    }

    /// What lists of rules have taken since this was asked last.
    pub(super) fn effort_for_rules(&mut self) -> Duration {
        self.known.effort_for_rules()
    }

    /// Notes what a watch has told of; from when on it is to be looked at, if at all.
    pub(super) fn heed(&mut self, changed: Changed) -> Option<Instant> {
        let commit = match changed {
            Changed::Rules(Told::Commit(commit)) => commit,
            Changed::Rules(Told::Lost) => {
                self.known.forget_rules();
                self.distrust();
                return Some(Instant::now());
            }
            Changed::Pins | Changed::Policies => {
                self.distrust();
                return Some(Instant::now());
            }
        };
        let Commit {
            generation,
            touched,
        } = commit;
        if self.known.has_seen_rules(generation) {
            return None;
        }
        let own = filter_table(self.store.content().instance());
        let is_own = |touched: &Touched| touched.table.ends_with(&own);
        let (own, of_others): (Vec<_>, Vec<_>) = touched.into_iter().partition(is_own);
        let is_news = self.known.take_rules(&of_others, generation);
        if !own.is_empty() {
            self.distrust();
            return Some(Instant::now());
        }
        self.rules_due().filter(|_| is_news)
    }

    /// Says which networks are left to the kernel from now on, and which are not any more.
    pub(super) fn tell_of_followed(&self, before: &BTreeMap<Name, Following>) {
        let now = &self.observed.around.followed;
        for network in &self.model.networks {
            match (before.get(&network.name), now.get(&network.name)) {
                (before, Some(rules)) if before != Some(rules) => {
                    let (name, text) = (&network.name, rules.text());
                    if network.fastpath == FastPath::Required {
                        warn!("network {name}, whose fast path is required: {text}");
                    } else {
                        info!("network {name}: {text}");
                    }
                }
                (Some(rules), None) => {
                    info!("network {}: resolved: {}", network.name, rules.text());
                }
                _ => {}
            }
        }
    }
}
