//! Rules that choose the table of routes.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{
    model::Family,
    surroundings::{Rule, RuleAction as Action},
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{Netlink, address_family};
use crate::Result;

/// How the names of devices of ours begin.
const OURS: &str = "ovl";

/// The kernel's value for a rule that suppresses no route (−1).
const NOTHING_SUPPRESSED: u32 = u32::MAX;

/// A rule as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Rules with less are asked first.
    pub priority: u32,
    /// The table that it leads to.
    pub table: u32,
    /// The destinations that it is about; `None`: all.
    pub destination: Option<IpNet>,
}

impl Netlink {
    /// Every rule of a family that may be about what is forwarded from devices of ours or to them,
    /// in the order in which they are asked.
    pub async fn routing_rules(&self, family: Family) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let message = RouteNetlinkMessage::GetRule(message);
        let listed = self.dump("list rules", message, |answer| match answer {
            RouteNetlinkMessage::NewRule(rule) if rule.header.family == address_family(family) => {
                forwarding(&rule)
            }
            _ => None,
        });
        let mut rules = listed.await?;
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }

    /// Every rule of a family that leads to a table, in the order in which they are asked.
    pub async fn rules(&self, family: Family) -> Result<Vec<RuleInfo>> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let message = RouteNetlinkMessage::GetRule(message);
        let mut rules = self
            .dump("list rules", message, |answer| match answer {
                RouteNetlinkMessage::NewRule(rule)
                    if rule.header.family == address_family(family) =>
                {
                    RuleInfo::from_message(&rule)
                }
                _ => None,
            })
            .await?;
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }
}

/// A rule, as far as it may be about what is forwarded from a device of ours, be it for a mark that
/// somebody may set. One for all but some may be about anybody.
fn forwarding(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let is_inverted = header.flags.contains(RuleFlags::Invert);
    let mut rule = Rule {
        priority: 0,
        action: match header.action {
            RuleAction::ToTable => Action::Table(header.table.into()),
            RuleAction::Blackhole => Action::Refuse("blackhole"),
            RuleAction::Unreachable => Action::Refuse("unreachable"),
            RuleAction::Prohibit => Action::Refuse("prohibit"),
            _ => Action::Nothing,
        },
        destination: None,
        source: None,
        source_ports: None,
        is_about_some: is_inverted || header.tos != 0,
        suppresses: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) if header.action == RuleAction::ToTable => {
                rule.action = Action::Table(*table);
            }
            RuleAttribute::Goto(target) => rule.action = Action::Goto(*target),
            RuleAttribute::SuppressPrefixLen(most) if *most != NOTHING_SUPPRESSED => {
                rule.suppresses = Some(*most);
            }
            // Who made it.
            RuleAttribute::Protocol(_)
            | RuleAttribute::Table(_)
            | RuleAttribute::SuppressPrefixLen(_)
            | RuleAttribute::L3MDev(false)
            | RuleAttribute::Realm(_) => {}
            _ if is_inverted => {}
            // What is forwarded comes by a device of ours, which is in no VRF, and no socket has
            // bound it to one that it is to leave by.
            RuleAttribute::Iifname(device) if !device.starts_with(OURS) => return None,
            RuleAttribute::Oifname(_) | RuleAttribute::L3MDev(true) => return None,
            // It is nobody's, which counts as root's.
            RuleAttribute::UidRange(range) if range.start > 0 => return None,
            RuleAttribute::Destination(address) => {
                rule.destination = Some(IpNet::new(*address, header.dst_len).ok()?);
            }
            RuleAttribute::Source(address) => {
                rule.source = Some(IpNet::new(*address, header.src_len).ok()?);
            }
            RuleAttribute::SourcePortRange(range) => {
                rule.source_ports = Some((range.start, range.end));
            }
            _ => rule.is_about_some = true,
        }
    }
    Some(rule)
}

impl RuleInfo {
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        if header.action != RuleAction::ToTable {
            return None;
        }
        let mut rule = Self {
            priority: 0,
            table: header.table.into(),
            destination: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Destination(address) => {
                    let address: IpAddr = *address;
                    rule.destination = Some(IpNet::new(address, header.dst_len).ok()?);
                }
                _ => {}
            }
        }
        Some(rule)
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

    use super::{Action, Rule, forwarding};

    fn rule(attributes: &[RuleAttribute], flags: RuleFlags) -> Option<Rule> {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::Prohibit;
        message.header.flags = flags;
        message.header.dst_len = 24;
        message.attributes = attributes.to_vec();
        forwarding(&message)
    }

    #[test]
    fn a_rule_is_about_what_it_selects() {
        let none = RuleFlags::empty();
        let to = RuleAttribute::Destination("10.244.2.0".parse().unwrap());
        let by = |device: &str| RuleAttribute::Iifname(device.to_owned());
        let refused = rule(&[RuleAttribute::Priority(99), to.clone()], none).unwrap();
        assert_eq!(refused.priority, 99);
        assert_eq!(refused.action, Action::Refuse("prohibit"));
        assert_eq!(refused.destination, Some("10.244.2.0/24".parse().unwrap()));
        assert!(!refused.is_about_some);
        assert!(!rule(&[], none).unwrap().is_about_some);
        for some in [RuleAttribute::FwMark(7), by("ovlbr1")] {
            assert!(rule(&[some], none).unwrap().is_about_some);
        }
        for device in ["eth7", "lo"] {
            assert_eq!(rule(&[by(device), to.clone()], none), None);
        }
        assert_eq!(rule(&[RuleAttribute::Oifname("eth7".into())], none), None);

        let all_others = rule(&[to], RuleFlags::Invert).unwrap();
        assert_eq!(all_others.destination, None);
        assert!(all_others.is_about_some);
        assert!(rule(&[by("eth7")], RuleFlags::Invert).is_some());
    }

    #[test]
    fn a_rule_leads_to_a_table() {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::ToTable;
        message.header.table = 252;
        message.attributes = vec![
            RuleAttribute::Table(1000),
            RuleAttribute::SuppressPrefixLen(u32::MAX),
        ];
        let rule = forwarding(&message).unwrap();
        assert_eq!((rule.action, rule.suppresses), (Action::Table(1000), None));
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        assert_eq!(forwarding(&message).unwrap().suppresses, Some(0));
    }
}
