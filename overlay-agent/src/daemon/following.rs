//! Rules of others, as far as they follow connections: when they are read, and what is told of it.

use std::collections::BTreeMap;

use overlay_core::{
    filter::Following,
    model::{FastPath, Name},
    objects::filter_table,
};
use overlay_kernel::nft::{Commit, Told, Touched};
use tracing::{info, warn};

use super::{Reconciler, watches::Changed};

/// The objects to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Rules of others.
    RulesOfOthers,
    /// Anything.
    Any,
}

impl Reconciler {
    /// Whether the next round lists rules.
    pub(super) fn lists_rules(&self) -> bool {
        !self.known.has_rules()
    }

    /// Notes what a watch has told of; what is to be looked at for it.
    pub(super) fn heed(&mut self, changed: Changed) -> Option<News> {
        let commit = match changed {
            Changed::Rules(Told::Commit(commit)) => commit,
            Changed::Rules(Told::Lost) => {
                self.known.forget_rules();
                self.distrust();
                return Some(News::Any);
            }
            Changed::Pins | Changed::Policies => {
                self.distrust();
                return Some(News::Any);
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
            return Some(News::Any);
        }
        is_news.then_some(News::RulesOfOthers)
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
