//! Lacks of the node that a step puts right.

use super::Step;
use crate::{
    model::IfName,
    objects::{LinkId, RouteKey},
};

impl Step {
    /// What somebody else has removed, added or changed, where this step puts it right: `device
    /// ovl1 was missing`. `None` for what follows from other changes, or from the node itself: a
    /// row of the eBPF maps that belongs to a device, or to the way to a peer.
    pub fn lack(&self) -> Option<String> {
        Some(match self {
            Self::CreateNamespace { name } => format!("namespace {name} was missing"),
            Self::SetSysctl {
                key,
                from: Some(from),
                to,
            } => format!("{key} was {from} instead of {to}"),
            Self::CreateLink { id, .. } => format!("device {id} was missing"),
            Self::DeleteLink { id } => format!("device {id} was not as it was made"),
            Self::ChangeLink { id, change } => format!("device {id} had lost \"{change}\""),
            Self::AddAddress { address } => {
                format!("address {} of {} was missing", address.net, address.link)
            }
            Self::DeleteAddress { address } => {
                format!("address {} had been added to {}", address.net, address.link)
            }
            Self::SetRoute { key, route } => {
                format!("{} was missing or led elsewhere", named(key, route.dev))
            }
            Self::DeleteRoute { key, dev } => format!("{} had been added", named(key, *dev)),
            Self::AddLastResort { cidr } => format!("unreachable route {cidr} was missing"),
            Self::SetNeighbour { link, address, .. } => {
                format!("neighbour {address} dev {link} was missing or altered")
            }
            Self::DeleteNeighbour { link, address } => {
                format!("neighbour {address} had been added to {link}")
            }
            Self::SetFdb { link, mac, .. } => {
                format!("forwarding entry {mac} dev {link} was missing or altered")
            }
            Self::DeleteStrayFdb { entry } => {
                format!("forwarding entry {entry} had been added")
            }
            Self::PinMap { map } => {
                format!("the pin of map {map}, or the note whose it is, was missing")
            }
            Self::DeleteStray { stray } => {
                format!("row {stray} of map {} had been added", stray.map)
            }
            Self::SetFilter { .. } => "packet filter rules were missing or altered".to_owned(),
            Self::SetGuard { .. } => {
                "the guard of the tunnels' ports was missing or altered".to_owned()
            }
            Self::Attach { link, hook } => format!("program {hook} was not attached to {link}"),
            _ => return None,
        })
    }
}

/// A route with its device, and whose that is.
fn named(key: &RouteKey, dev: IfName) -> String {
    let device = LinkId {
        scope: key.scope.clone(),
        name: dev,
    };
    format!("route {} dev {device}", key.destination)
}

#[cfg(test)]
mod tests {
    use super::Step;
    use crate::objects::{RouteKey, Scope};

    #[test]
    fn a_route_of_a_container_is_told_with_its_name() {
        let lack = |scope| {
            let step = Step::DeleteRoute {
                key: RouteKey {
                    scope,
                    destination: "0.0.0.0/0".parse().unwrap(),
                    metric: 0,
                },
                dev: "eth0".parse().unwrap(),
            };
            step.lack().unwrap()
        };
        assert_eq!(
            lack(Scope::Endpoint("web".parse().unwrap())),
            "route 0.0.0.0/0 dev eth0 of endpoint web had been added"
        );
        assert_eq!(lack(Scope::Node), "route 0.0.0.0/0 dev eth0 had been added");
    }
}
