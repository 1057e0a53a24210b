//! Names of a network's containers, answered at the network's gateway address.
//!
//! A node knows its own containers. A name that it does not know it asks of its peers, at their
//! gateways and through the overlay: without recursion, so that each answers from its own alone and
//! no question goes round. All other names are for the servers that the node itself asks.
//!
//! - [`room`]: the names of one network. [`judge`]: what becomes of a question; it has no sockets.
//! - [`peers`], [`ask`]: the questions that are put to others, each in a thread of its own.
//! - [`service`]: the sockets, and the thread that waits for questions.
//!
//! Only who has an address of the network is answered.

mod ask;
mod judge;
mod peers;
mod room;
mod service;

pub use judge::{Verdict, judge};
pub use room::{InvalidZone, Room, Zone};
pub use service::{Counters, Service, Setup};

/// UDP and TCP port of name servers.
pub const PORT: u16 = 53;
/// Peers that are asked for a name: with more, only a node's own containers have names.
pub const MAX_PEERS: usize = 1_024;
