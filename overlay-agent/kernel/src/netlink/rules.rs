//! Rules that choose the table of routes.

use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{model::Family, surroundings::RefusingRule};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{Netlink, address_family};
use crate::Result;

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

fn refusing(message: &RuleMessage) -> Option<RefusingRule> {
    let header = &message.header;
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
