//! The kernel's state of neighbours that it has to resolve.

use std::net::IpAddr;

use overlay_core::model::Mac;
use rtnetlink::packet_route::{RouteNetlinkMessage, neighbour::NeighbourState};

use super::{Netlink, neighbours::neighbours_of};
use crate::{Result, netlink::NeighbourInfo};

/// A neighbour, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, where that is known.
    pub mac: Option<Mac>,
    /// Whether it answers.
    pub state: Answers,
}

/// Whether a neighbour answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It has, not long ago.
    Yes,
    /// It has, and is about to be asked again.
    Doubtful,
    /// It has not.
    No,
    /// Nobody asks: somebody has set it.
    Set,
}

impl Netlink {
    /// The neighbours of a device, of both families, as far as anything is known of them.
    pub async fn reachabilities(&self, index: u32) -> Result<Vec<Reachability>> {
        let operation = format!("list neighbours of ifindex {index}");
        self.dump(&operation, neighbours_of(index), |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => {
                let state = match message.header.state {
                    NeighbourState::Reachable => Answers::Yes,
                    NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => {
                        Answers::Doubtful
                    }
                    NeighbourState::Incomplete | NeighbourState::Failed => Answers::No,
                    NeighbourState::Permanent | NeighbourState::Noarp => Answers::Set,
                    _ => return None,
                };
                let NeighbourInfo { address, mac, .. } = NeighbourInfo::from_message(&message)?;
                Some(Reachability {
                    address,
                    mac,
                    state,
                })
            }
            _ => None,
        })
        .await
    }
}
