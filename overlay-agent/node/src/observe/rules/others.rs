//! The packet filter of others: listed once, then followed change by change.
//!
//! Rules can be very many, and there are those who change some all the time. What changes is told by
//! the kernel, transaction by transaction, and listed again by itself; a rule that is about
//! addresses of others alone need not be listed at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use overlay_core::{
    filter::{Part, Ruleset},
    model::Name,
};
use overlay_kernel::{self as kernel, nft};
use tracing::debug;

use super::{
    pace::{List, Pace, TableName},
    pending::Changed,
};

/// Prefixes that rules were about which were not listed; with more, all is listed when somebody
/// new comes.
const MOST_SPARED: usize = 4096;

/// The packet filter of others.
#[derive(Default)]
pub(in super::super) struct Others {
    /// As it was read last.
    pub(super) ruleset: Option<Ruleset>,
    /// The changes since then.
    changed: Changed,
    /// The tables of the ruleset.
    tables: BTreeSet<TableName>,
    /// Those of instances of overlay, and whether others than this one translate addresses.
    overlays: BTreeSet<TableName>,
    overlays_translate: bool,
    /// Tables that judge no packets.
    silent: BTreeSet<TableName>,
    /// Addresses in rules that were not listed.
    spared: BTreeSet<IpNet>,
    /// The generation of nftables up to which all changes are known of.
    seen: Option<u32>,
    /// When lists are made,
    pace: Pace,
    /// and what they took that nobody has asked for yet.
    effort: Duration,
}

impl Others {
    /// From when on something is to be listed; `None` where nothing has changed.
    pub(in super::super) fn due(&self) -> Option<Instant> {
        self.changed.due(&self.pace, Instant::now())
    }

    /// What lists have taken, and what was made of them, since this was asked last.
    pub(in super::super) fn effort(&mut self) -> Duration {
        mem::take(&mut self.effort)
    }

    pub(super) fn translates(&self) -> bool {
        let of_ruleset = |ruleset: &Ruleset| ruleset.translates();
        self.overlays_translate || self.ruleset.as_ref().is_none_or(of_ruleset)
    }

    /// Has all of it read anew.
    pub(in super::super) fn forget(&mut self) {
        self.changed = Changed::All;
    }

    /// Whether nothing that began up to this generation is news.
    pub(in super::super) fn has_seen(&self, generation: u32) -> bool {
        // They start anew after the last one.
        let is_before = |seen: u32| seen.wrapping_sub(generation) < 1 << 31;
        self.seen.is_some_and(is_before)
    }

    /// Whether this generation is the last one that is known of.
    pub(in super::super) fn is_at(&self, generation: u32) -> bool {
        self.seen == Some(generation)
    }

    pub(in super::super) fn follow(&mut self, generation: u32) {
        self.seen = Some(generation);
    }

    /// Takes in a transaction of others; whether anything is to be listed for it. Addresses that are
    /// not `ours` are of no concern.
    pub(in super::super) fn take(
        &mut self,
        touched: &[nft::Touched],
        generation: u32,
        ours: impl Fn(&IpNet) -> bool,
    ) -> bool {
        self.seen = Some(generation);
        let mut is_news = false;
        for one in touched {
            is_news |= self.touch(one, &ours);
        }
        is_news
    }

    fn touch(&mut self, touched: &nft::Touched, ours: impl Fn(&IpNet) -> bool) -> bool {
        let table = (touched.family.to_owned(), touched.table.clone());
        let is_all = matches!(touched.part, nft::Part::Table | nft::Part::Chain { .. });
        if self.overlays.contains(&table) || is_overlays(&table.1) {
            // What such a table does is its own instance's concern, but for whether it translates.
            if is_all {
                self.forget();
            }
            return is_all;
        }
        let may_refuse = self.may_refuse(touched);
        let part = match &touched.part {
            nft::Part::Table => Part::All,
            nft::Part::Chain { chain, .. } => Part::Chain(chain.clone()),
            nft::Part::Rule { chain, limits, .. } => {
                if let Some(net) = limits.iter().find(|net| !ours(net)) {
                    if self.spared.len() < MOST_SPARED {
                        self.spared.insert(*net);
                    }
                    return false;
                }
                Part::Chain(chain.clone())
            }
            // One without a name comes and goes with the rule that it is a part of.
            nft::Part::Set(set) | nft::Part::Elements { set, .. } if set.starts_with("__") => {
                return false;
            }
            nft::Part::Set(set) | nft::Part::Elements { set, .. } => Part::Set(set.clone()),
        };
        if self.silent.contains(&table) && !is_all {
            return false;
        }
        let part = if self.tables.contains(&table) {
            part
        } else {
            Part::All
        };
        if let Changed::Parts(parts) = &mut self.changed {
            parts.entry(table).or_default().add(part, may_refuse);
        }
        true
    }

    /// Whether packets may be refused for it that were not before, or the other way round, or get
    /// other addresses by what it names itself.
    fn may_refuse(&self, touched: &nft::Touched) -> bool {
        let (family, table) = (touched.family, &touched.table);
        let ruleset = self.ruleset.as_ref();
        let is_base = |chain: &str| ruleset.is_some_and(|all| all.is_base(family, table, chain));
        let leads_there = |does: &nft::Does| {
            let refuses =
                |chain: &String| ruleset.is_some_and(|all| all.refuses(family, table, chain));
            does.leads_to.iter().any(refuses)
        };
        match &touched.part {
            nft::Part::Rule {
                chain,
                limits,
                does,
            } => {
                does.acts
                    || does.translates && !limits.is_empty()
                    || is_base(chain)
                    || leads_there(does)
            }
            nft::Part::Elements { does, .. } => does.acts || leads_there(does),
            nft::Part::Chain {
                chain,
                is_base: is_one,
            } => *is_one || is_base(chain),
            nft::Part::Table | nft::Part::Set(_) => true,
        }
    }

    /// Whether somebody who is `ours` now may be whom a rule was about that was not listed.
    pub(super) fn has_spared(&self, ours: impl Fn(&IpNet) -> bool) -> bool {
        self.spared.len() >= MOST_SPARED || self.spared.iter().any(ours)
    }

    /// Lists what has changed, as far as that may be done by now; what for, and what each list took.
    /// What cannot be listed stays as it was and is tried again; `doctor` says why.
    pub(super) fn update(&mut self, instance: &Name) -> Vec<(List, Duration)> {
        let now = Instant::now();
        if matches!(self.changed, Changed::All) {
            if self.pace.due(&List::All, now) > now {
                return Vec::new();
            }
            let read = self.timed(List::All, |others| others.read(instance));
            return read.into_iter().collect();
        }
        let mut made = Vec::new();
        for (table, list, parts) in self.changed.rested(&self.pace, now) {
            let listed = self.timed(list, |others| {
                let mut parts = parts.iter();
                parts.try_for_each(|part| others.list_part(&table, part))
            });
            made.extend(listed);
        }
        made
    }

    /// Makes a list; what it took if it could be made.
    fn timed(
        &mut self,
        list: List,
        make: impl FnOnce(&mut Self) -> kernel::Result<()>,
    ) -> Option<(List, Duration)> {
        let before = kernel::effort();
        let outcome = make(self);
        let took = kernel::effort().saturating_sub(before);
        match outcome {
            Ok(()) => Some((list, took)),
            Err(error) => {
                debug!("{error}");
                self.pace.failed(list, took, Instant::now());
                None
            }
        }
    }

    /// Notes lists that were made, and what it took in all to make something of them.
    pub(super) fn spend(&mut self, lists: Vec<(List, Duration)>, all: Duration) {
        self.effort += all;
        let alone: Duration = lists.iter().map(|(_, took)| *took).sum();
        let each = u32::try_from(lists.len()).unwrap_or(u32::MAX).max(1);
        let shared = all.saturating_sub(alone) / each;
        let now = Instant::now();
        for (list, took) in lists {
            self.pace.made(list, took + shared, now);
        }
    }

    fn read(&mut self, instance: &Name) -> kernel::Result<()> {
        // Before they are read: what changes meanwhile is news.
        let generation = nft::generation().ok();
        let others = nft::rules_of_others(instance)?;
        *self = Self {
            ruleset: Some(Ruleset::read(&others.rules, |_, _| false)),
            changed: Changed::Parts(BTreeMap::new()),
            tables: others.tables,
            overlays: others.overlays,
            overlays_translate: others.overlays_translate,
            seen: generation,
            pace: mem::take(&mut self.pace),
            effort: self.effort,
            ..Self::default()
        };
        Ok(())
    }

    fn list_part(&mut self, table: &TableName, part: &Part) -> kernel::Result<()> {
        let listing = nft::part_of_others(table, part)?;
        if *part == Part::All {
            let is_empty = listing["nftables"].as_array().is_none_or(Vec::is_empty);
            let (is_in, is_not) = if is_empty {
                (&mut self.silent, &mut self.tables)
            } else {
                (&mut self.tables, &mut self.silent)
            };
            is_in.insert(table.clone());
            is_not.remove(table);
        }
        if let Some(ruleset) = &mut self.ruleset {
            ruleset.replace(&table.0, &table.1, part, &listing);
        }
        if let Changed::Parts(tables) = &mut self.changed
            && let Some(parts) = tables.get_mut(table)
        {
            parts.remove(part);
            if parts.is_empty() {
                tables.remove(table);
            }
        }
        Ok(())
    }
}

/// Whether a table has a name as the agent gives it.
fn is_overlays(table: &str) -> bool {
    table.starts_with("overlay-") || table.starts_with("guard.overlay-")
}

#[cfg(test)]
mod tests {
    use overlay_kernel::nft::{Does, Part, Touched};

    use super::{Changed, Others};

    fn known() -> Others {
        Others {
            changed: Changed::Parts([].into()),
            tables: [("ip".to_owned(), "filter".to_owned())].into(),
            silent: [("ip".to_owned(), "counts".to_owned())].into(),
            seen: Some(7),
            ..Others::default()
        }
    }

    fn touched(table: &str, part: Part) -> Touched {
        Touched {
            family: "ip",
            table: table.to_owned(),
            part,
        }
    }

    fn rule(limits: &[&str]) -> Part {
        Part::Rule {
            chain: "forward".to_owned(),
            limits: limits.iter().map(|net| net.parse().unwrap()).collect(),
            does: Does::default(),
        }
    }

    fn elements(set: &str) -> Part {
        Part::Elements {
            set: set.to_owned(),
            does: Does::default(),
        }
    }

    fn chain(name: &str) -> Part {
        Part::Chain {
            chain: name.to_owned(),
            is_base: false,
        }
    }

    /// Whether a change is news where 10.244.0.0/16 is ours.
    fn is_news(others: &mut Others, table: &str, part: Part) -> bool {
        let ours: ipnet::IpNet = "10.244.0.0/16".parse().unwrap();
        let is_ours = |net: &ipnet::IpNet| ours.contains(net) || net.contains(&ours);
        others.take(&[touched(table, part)], 8, is_ours)
    }

    #[test]
    fn what_is_about_others_is_no_news() {
        for (table, part, expected) in [
            ("filter", rule(&[]), true),
            ("filter", rule(&["10.244.2.9/32"]), true),
            ("filter", rule(&["10.0.0.0/8"]), true),
            ("filter", rule(&["203.0.113.7/32"]), false),
            ("filter", rule(&["10.244.2.9/32", "203.0.113.7/32"]), false),
            ("filter", elements("names"), true),
            ("filter", elements("__set3"), false),
            ("filter", Part::Table, true),
            ("counts", rule(&[]), false),
            ("counts", chain("input"), true),
            ("new", rule(&[]), true),
        ] {
            let mut others = known();
            assert_eq!(
                is_news(&mut others, table, part.clone()),
                expected,
                "{part:?}"
            );
            assert_eq!(others.due().is_none(), !expected, "{table} {part:?}");
            assert!(others.has_seen(8) && !others.has_seen(9));
        }
    }

    #[test]
    fn who_comes_may_be_whom_a_rule_was_about() {
        let mut others = known();
        assert!(!is_news(&mut others, "filter", rule(&["203.0.113.7/32"])));
        let has_spared = |net: &str| {
            let net: ipnet::IpNet = net.parse().unwrap();
            others.has_spared(|spared| net.contains(spared))
        };
        assert!(has_spared("203.0.113.0/24"));
        assert!(!has_spared("10.245.0.0/16"));
    }
}
