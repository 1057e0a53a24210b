//! Rules that choose the table of routes.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{model::Family, surroundings::RefusingRule};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{Netlink, address_family};
use crate::Result;

/// How the names of devices of ours begin.
const OURS: &str = "ovl";

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
    /// Every rule of a family that refuses packets.
    pub async fn refusing_rules(&self, family: Family) -> Result<Vec<RefusingRule>> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let message = RouteNetlinkMessage::GetRule(message);
        self.dump("list rules", message, |answer| match answer {
            RouteNetlinkMessage::NewRule(rule) if rule.header.family == address_family(family) => {
                refusing(&rule)
            }
            _ => None,
        })
        .await
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

/// What a rule refuses of what is forwarded, be it for a mark that somebody may set. A rule for all
/// but some may be about anybody.
fn refusing(message: &RuleMessage) -> Option<RefusingRule> {
    let header = &message.header;
    let is_inverted = header.flags.contains(RuleFlags::Invert);
    let action = match header.action {
        RuleAction::Blackhole => "blackhole",
        RuleAction::Unreachable => "unreachable",
        RuleAction::Prohibit => "prohibit",
        _ => return None,
    };
    let mut rule = RefusingRule {
        priority: 0,
        action,
        destination: None,
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            _ if is_inverted => {}
            // Sockets of users send what the node sends, which is not forwarded.
            RuleAttribute::UidRange(_) => return None,
            // What is forwarded comes by a device of ours.
            RuleAttribute::Iifname(device) if !device.starts_with(OURS) => return None,
            RuleAttribute::Destination(address) => {
                rule.destination = Some(IpNet::new(*address, header.dst_len).ok()?);
            }
            RuleAttribute::Source(address) => {
                rule.source = Some(IpNet::new(*address, header.src_len).ok()?);
            }
            _ => {}
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

    use super::{RefusingRule, refusing};

    fn rule(attributes: &[RuleAttribute], flags: RuleFlags) -> Option<RefusingRule> {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::Prohibit;
        message.header.flags = flags;
        message.header.dst_len = 24;
        message.attributes = attributes.to_vec();
        refusing(&message)
    }

    #[test]
    fn a_rule_refuses_what_it_is_about() {
        let none = RuleFlags::empty();
        let to = RuleAttribute::Destination("10.244.2.0".parse().unwrap());
        let by = |device: &str| RuleAttribute::Iifname(device.to_owned());
        let refused = rule(&[RuleAttribute::Priority(99), to.clone()], none).unwrap();
        assert_eq!(refused.priority, 99);
        assert_eq!(refused.destination, Some("10.244.2.0/24".parse().unwrap()));
        assert!(rule(&[], none).is_some());
        assert!(rule(&[RuleAttribute::FwMark(7)], none).is_some());
        assert!(rule(&[by("ovlbr1")], none).is_some());
        assert_eq!(rule(&[by("eth7"), to.clone()], none), None);
        assert_eq!(rule(&[by("lo")], none), None);

        let all_others = rule(&[to], RuleFlags::Invert).unwrap();
        assert_eq!(all_others.destination, None);
        assert!(rule(&[by("eth7")], RuleFlags::Invert).is_some());
    }
}
