//! Rules of routing, and what the tables that they lead to refuse.
//!
//! The kernel asks the rules one by one (`fib_rules_lookup()`). One that is about the packet refuses
//! it, leads on to another rule, or to a table; if the longest prefix in that has a route, this
//! decides, unless it is `throw` or the rule suppresses it: then the next rule is asked. Here
//! nobody knows a single packet, so a rule that may be about some of a network counts.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::Family;

/// `RT_TABLE_MAIN`, which has our routes.
pub const MAIN_TABLE: u32 = 254;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules with less are asked first.
    pub priority: u32,
    /// Its action.
    pub action: RuleAction,
    /// The destinations that it is about; `None`: all.
    pub destination: Option<IpNet>,
    /// The sources that it is about; `None`: all.
    pub source: Option<IpNet>,
    /// The UDP or TCP source ports that it is about, first and last; `None`: all.
    pub source_ports: Option<(u16, u16)>,
    /// Whether it is about some packets only that nothing above tells apart: by a mark, a protocol, a
    /// type of service, an interface of ours; or about all but some.
    pub is_about_some: bool,
    /// Routes of its table with prefixes of at most so many bits do not count.
    pub suppresses: Option<u32>,
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// They are refused; as `ip rule` calls it: `blackhole`, `prohibit`, `unreachable`.
    Refuse(&'static str),
    /// A table of routes is asked.
    Table(u32),
    /// The rules from this priority on are asked.
    Goto(u32),
    /// The next rule is asked.
    Nothing,
}

impl Rule {
    /// Whether it is about every packet.
    fn is_about_all(&self) -> bool {
        let selects = [self.destination, self.source].iter().any(Option::is_some);
        !selects && self.source_ports.is_none() && !self.is_about_some
    }
}

/// The routes of a table, by their prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<IpNet, (u32, Option<&'static str>)>);

impl Table {
    /// Takes in a route: how it refuses packets, or that it does not.
    pub fn add(&mut self, destination: IpNet, metric: u32, refuses: Option<&'static str>) {
        let route = (metric, refuses);
        let known = self.0.entry(destination).or_insert(route);
        // Of several to one prefix the one with the least metric is taken.
        if metric < known.0 {
            *known = route;
        }
    }

    /// The route with the longest prefix that is a prefix of all of `net`, where it refuses.
    fn refuses(&self, net: IpNet) -> Option<(IpNet, &'static str)> {
        let mut around = std::iter::successors(Some(net.trunc()), IpNet::supernet);
        let (prefix, (_, refuses)) =
            around.find_map(|prefix| Some((prefix, self.0.get(&prefix)?)))?;
        Some((prefix, (*refuses)?))
    }

    /// The prefixes within `net`, `net` itself left out.
    fn within(&self, net: IpNet) -> impl Iterator<Item = (IpNet, Option<&'static str>)> {
        let inside = self.0.iter();
        let inside = inside.filter(move |(prefix, _)| **prefix != net && net.contains(*prefix));
        inside.map(|(prefix, (_, refuses))| (*prefix, *refuses))
    }
}

/// All rules of a node, and of the tables what is about networks.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// In the order in which they are asked.
    pub rules: BTreeMap<Family, Vec<Rule>>,
    /// By number.
    pub tables: BTreeMap<(Family, u32), Table>,
}

/// The part of a range that a rule refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The destinations.
    pub destination: IpNet,
    /// The sources; `None`: all.
    pub source: Option<IpNet>,
    /// By what, as the tools call it.
    pub by: String,
}

impl Routing {
    /// The tables that rules lead to beside the main one.
    pub fn tables_asked(rules: &BTreeMap<Family, Vec<Rule>>) -> BTreeSet<(Family, u32)> {
        let all = rules
            .iter()
            .flat_map(|(family, rules)| rules.iter().map(move |rule| (*family, rule)));
        let tables = all.filter_map(|(family, rule)| match rule.action {
            RuleAction::Table(table) if table != MAIN_TABLE => Some((family, table)),
            _ => None,
        });
        tables.collect()
    }

    /// What rules may refuse of what is sent to a range from within it, where these `subnets` of it
    /// are somebody's. They are asked before the main table, or in its place.
    pub fn refused(&self, cidr: IpNet, subnets: impl Fn() -> Vec<IpNet>) -> Vec<Refused> {
        let family = Family::of(cidr.addr());
        let asked = self.asked(family);
        let mut refused = Vec::new();
        for rule in asked {
            if rule.source.is_some_and(|source| !overlap(source, cidr)) {
                continue;
            }
            let Some(to) = rule.destination.map_or(Some(cidr), |to| common(to, cidr)) else {
                continue;
            };
            let mut refuse = |destination, by| {
                refused.push(Refused {
                    destination,
                    source: rule.source.filter(|source| !source.contains(&cidr)),
                    by,
                });
            };
            match rule.action {
                RuleAction::Refuse(how) => refuse(to, format!("{how} rule {}", rule.priority)),
                RuleAction::Table(number) => {
                    let Some(table) = self.tables.get(&(family, number)) else {
                        continue;
                    };
                    // What a rule suppresses is never a refusal: `fib_rules_lookup()`.
                    let priority = rule.priority;
                    for (destination, (net, how)) in refused_by(table, to, &subnets) {
                        let by = format!("{how} route {net} of table {number}, by rule {priority}");
                        refuse(destination, by);
                    }
                }
                RuleAction::Goto(_) | RuleAction::Nothing => {}
            }
        }
        refused
    }

    /// The rules that may be asked before one has certainly led to the main table, which has routes
    /// to all of a network.
    fn asked(&self, family: Family) -> Vec<&Rule> {
        let rules = self.rules.get(&family).map_or(&[][..], Vec::as_slice);
        let mut asked: BTreeSet<usize> = BTreeSet::new();
        let mut starts = vec![0];
        while let Some(start) = starts.pop() {
            for (place, rule) in rules.iter().enumerate().skip(start) {
                if !asked.insert(place) {
                    break;
                }
                let is_about_all = rule.is_about_all();
                match rule.action {
                    // Where the target is not there, the next rule is asked.
                    RuleAction::Goto(target) => {
                        let to = rules.iter().position(|rule| rule.priority >= target);
                        let to = to.filter(|to| {
                            *to > place && rules.get(*to).is_some_and(|it| it.priority == target)
                        });
                        starts.extend(to);
                        if to.is_some() && is_about_all {
                            break;
                        }
                    }
                    RuleAction::Table(MAIN_TABLE)
                        if is_about_all && rule.suppresses.is_none_or(|most| most == 0) =>
                    {
                        break;
                    }
                    RuleAction::Refuse(_) if is_about_all => break,
                    _ => {}
                }
            }
        }
        asked
            .into_iter()
            .filter_map(|place| rules.get(place))
            .collect()
    }

    /// The rules about the ports that tunnels to this one are sent from, which none of the kernel's
    /// answers to questions about their way takes in.
    pub fn by_source_port(
        &self,
        family: Family,
        (first, last): (u16, u16),
    ) -> impl Iterator<Item = &Rule> {
        let asked = self.asked(family).into_iter();
        asked.filter(move |rule| {
            rule.source_ports
                .is_some_and(|(from, to)| from <= last && first <= to)
                && !matches!(
                    rule.action,
                    RuleAction::Nothing | RuleAction::Table(MAIN_TABLE)
                )
        })
    }
}

/// The destinations that a table refuses of `to`, a part of a range, and the routes that do.
fn refused_by(
    table: &Table,
    to: IpNet,
    subnets: impl Fn() -> Vec<IpNet>,
) -> Vec<(IpNet, (IpNet, &'static str))> {
    let mut refused = Vec::new();
    let around = table.refuses(to);
    if table.within(to).next().is_none() {
        refused.extend(around.map(|by| (to, by)));
        return refused;
    }
    // What others in it lead elsewhere, or nowhere, is not the same for all.
    let of_some = subnets().into_iter();
    let of_some = of_some.filter_map(|subnet| common(subnet, to));
    refused.extend(of_some.filter_map(|net| Some((net, table.refuses(net)?))));
    let inside = table.within(to);
    refused.extend(inside.filter_map(|(net, how)| Some((net, (net, how?)))));
    refused.sort_unstable();
    refused.dedup();
    refused
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The intersection of two prefixes that overlap: the longer one.
fn common(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) {
        Some(other)
    } else {
        other.contains(&one).then_some(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIDR: &str = "10.244.0.0/16";
    const TABLE: u32 = 100;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rule(priority: u32, action: RuleAction) -> Rule {
        Rule {
            priority,
            action,
            destination: None,
            source: None,
            source_ports: None,
            is_about_some: false,
            suppresses: None,
        }
    }

    fn main_table() -> Rule {
        rule(32_766, RuleAction::Table(MAIN_TABLE))
    }

    fn to_table(priority: u32) -> Rule {
        rule(priority, RuleAction::Table(TABLE))
    }

    /// What is refused of the range, by destination and source.
    fn refused(rules: &[Rule], routes: &[(&str, Option<&'static str>)]) -> Vec<String> {
        let mut table = Table::default();
        for (destination, refuses) in routes {
            table.add(net(destination), 0, *refuses);
        }
        let routing = Routing {
            rules: [(Family::V4, rules.to_vec())].into(),
            tables: [((Family::V4, TABLE), table)].into(),
        };
        let subnets = || vec![net("10.244.1.0/24"), net("10.244.2.0/24")];
        let refused = routing.refused(net(CIDR), subnets).into_iter();
        refused
            .map(|one| match one.source {
                Some(source) => format!("{source} to {}", one.destination),
                None => one.destination.to_string(),
            })
            .collect()
    }

    #[test]
    fn the_longest_prefix_of_a_table_decides() {
        let rules = [to_table(99), main_table()];
        let drops = Some("blackhole");
        assert_eq!(refused(&rules, &[]), [""; 0]);
        assert_eq!(refused(&rules, &[("0.0.0.0/0", drops)]), [CIDR]);
        let part = [("10.244.2.9/32", drops)];
        assert_eq!(refused(&rules, &part), ["10.244.2.9/32"]);
        // What is thrown, or leads elsewhere, is not refused here.
        let spared = [("0.0.0.0/0", drops), ("10.244.2.0/24", None)];
        assert_eq!(refused(&rules, &spared), ["10.244.1.0/24"]);
        let spared = [("0.0.0.0/0", drops), (CIDR, None)];
        assert_eq!(refused(&rules, &spared), [""; 0]);
        let both = [(CIDR, None), ("10.244.2.0/25", drops)];
        assert_eq!(refused(&rules, &both), ["10.244.2.0/25"]);
    }

    #[test]
    fn a_rule_is_about_what_it_selects() {
        let table = [("0.0.0.0/0", Some("prohibit"))];
        let of = |from: Option<&str>, to: Option<&str>| {
            let rule = Rule {
                source: from.map(net),
                destination: to.map(net),
                ..to_table(99)
            };
            refused(&[rule, main_table()], &table)
        };
        assert_eq!(of(None, Some("10.244.2.9/32")), ["10.244.2.9/32"]);
        assert_eq!(of(None, Some("10.0.0.0/8")), [CIDR]);
        assert_eq!(of(None, Some("192.0.2.0/24")), [""; 0]);
        assert_eq!(
            of(Some("10.244.1.2/32"), None),
            ["10.244.1.2/32 to 10.244.0.0/16"]
        );
        assert_eq!(of(Some("10.0.0.0/8"), None), [CIDR]);
        assert_eq!(of(Some("192.0.2.0/24"), None), [""; 0]);
    }

    #[test]
    fn what_is_behind_the_main_table_is_not_asked() {
        let table = [("0.0.0.0/0", Some("unreachable"))];
        let all = || vec![CIDR.to_owned()];
        assert_eq!(refused(&[main_table(), to_table(40_000)], &table), [""; 0]);
        assert_eq!(refused(&[to_table(99), main_table()], &table), all());
        // A default route alone is suppressed: that of wg-quick.
        let suppressing = |most| Rule {
            suppresses: Some(most),
            ..rule(50, RuleAction::Table(MAIN_TABLE))
        };
        assert_eq!(refused(&[suppressing(0), to_table(99)], &table), [""; 0]);
        assert_eq!(refused(&[suppressing(24), to_table(99)], &table), all());
        // Some ask the main table, and some do not.
        let some = Rule {
            is_about_some: true,
            ..rule(50, RuleAction::Table(MAIN_TABLE))
        };
        assert_eq!(refused(&[some, to_table(99), main_table()], &table), all());
    }

    #[test]
    fn a_jump_leads_past_rules() {
        let table = [("0.0.0.0/0", Some("unreachable"))];
        let all = || vec![CIDR.to_owned()];
        let jump = |priority, target| rule(priority, RuleAction::Goto(target));
        let past_table = [jump(5, 32_766), to_table(99), main_table()];
        assert_eq!(refused(&past_table, &table), [""; 0]);
        let past_main = [jump(5, 40_000), main_table(), to_table(40_000)];
        assert_eq!(refused(&past_main, &table), all());
        // To nobody's priority, or for some.
        let nowhere = [jump(5, 40_001), main_table(), to_table(40_000)];
        assert_eq!(refused(&nowhere, &table), [""; 0]);
        let some = Rule {
            is_about_some: true,
            ..jump(5, 32_766)
        };
        assert_eq!(refused(&[some, to_table(99), main_table()], &table), all());
    }
}
