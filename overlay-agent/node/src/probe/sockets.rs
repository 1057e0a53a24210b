//! A socket for each network, tunnel device and family of inner addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
};

use overlay_core::model::{Family, IfName, Vni};
use overlay_kernel::udp;

use super::PORT;

/// The purpose of a socket: a network, the outer family of its tunnel, and the inner family.
pub type Use = (Vni, Family, Family);

/// Where a socket belongs. The device's index is part of it: one that was made anew is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The device that it is bound to.
    pub device: IfName,
    /// The `ifindex` of that.
    pub index: u32,
    /// The address that it is bound to, one of this node.
    pub address: IpAddr,
}

/// The open sockets, and why others are not.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: BTreeMap<Use, (Seat, UdpSocket)>,
    refused: BTreeMap<Use, String>,
}

impl Sockets {
    /// Opens what is wanted and not open, and closes the others.
    pub(crate) fn follow(&mut self, wanted: &BTreeMap<Use, Seat>) {
        self.open
            .retain(|of, (seat, _)| wanted.get(of) == Some(seat));
        self.refused.clear();
        for (of, seat) in wanted {
            if self.open.contains_key(of) {
                continue;
            }
            match udp::through(seat.device, seat.address, PORT) {
                Ok(socket) => {
                    self.open.insert(*of, (*seat, socket));
                }
                Err(error) => {
                    self.refused.insert(*of, error.to_string());
                }
            }
        }
    }

    /// Why sockets could not be opened.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &String> {
        self.refused.values()
    }

    pub(crate) fn get(&self, of: Use) -> Option<&UdpSocket> {
        self.open.get(&of).map(|(_, socket)| socket)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Vni, &UdpSocket)> {
        self.open.iter().map(|(of, (_, socket))| (of.0, socket))
    }
}
