//! What the programs tell whoever watches a packet's journey.
//!
//! Only the object that is built to be watched has any of it; the other one, which carries the
//! traffic, is made from the same source without. Nothing here is pinned: those who load such
//! programs read their events, and the layout is that of one build.

use bytemuck::{Pod, Zeroable};

/// Ring buffer of [`Decision`]s and [`Sighting`]s.
pub const EVENTS: &str = "EVENTS";
/// One value, per CPU: [`Lost`].
pub const LOST: &str = "LOST";
/// The global [`Watch`], which is set before the programs are loaded.
pub const WATCH: &str = "WATCH";

/// Bytes of a packet that can be shown, before the program and after it each.
pub const MAX_SNAP: usize = 2048;
/// Bytes of each packet that a message in the log is made of: the headers of a tunnel over IPv6
/// and of what is in it.
pub const SAID_SNAP: usize = 192;
/// Bytes of such a message: a [`Sighting`], and the packet's first bytes behind it.
pub const SAID: usize = size_of::<Sighting>() + SAID_SNAP;
/// For how many nanoseconds [`Watch::budget`] is.
pub const WINDOW_NS: u64 = 10_000_000;
/// A slot, interface or reason that is none: where it stands as a wish, any.
pub const NONE: u32 = u32::MAX;

/// Defines the steps of a journey with their names and sentences.
macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $name:ident: $text:literal,)+) => {
        /// A decision that a program has made, and went on.
        ///
        /// What ends a journey is no step but a reason, or that the packet was sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Step {
            $(#[doc = $text] $(#[$doc])* $variant,)+
        }

        impl Step {
            /// Every step, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, as JSON carries it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)+
                }
            }

            /// One sentence for people: what was found.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

steps! {
    /// With the VNI.
    Port = port: "the device belongs to a network",
    OwnMac = own_mac: "the source MAC may be the endpoint's",
    OwnAddress = own_address: "the source address may be the endpoint's",
    Unicast = unicast: "unicast, by MAC and by address",
    Plain = plain: "a whole IP packet without options, extension headers or fragments",
    Here = here: "the destination is in this node's share of the network",
    /// With the index of its device and whether it forwards.
    Endpoint = endpoint: "the destination is an endpoint of this node",
    /// With its slot and the MTU of the way there.
    Peer = peer: "the destination is behind a peer",
    RightMac = right_mac: "it is addressed to the MAC that leads there",
    Bridged = bridged: "it is addressed to the endpoint's own MAC: a neighbour, no router between",
    /// With what is left.
    Ttl = ttl: "TTL or hop limit sufficient",
    /// With the bytes of the frame and the MTU.
    Fits = fits: "it is small enough",
    /// With the UDP source port and the family of the tunnel.
    Encapsulated = encapsulated: "the tunnel's headers are written around it",
    /// With the index of the underlay device.
    ToNeighbour = to_neighbour: "handed to the underlay, for the peer's next hop",
    /// With the index of the underlay device.
    ByRoute = by_route: "handed to the underlay, by a route look-up for its new header",
    /// With the VNI.
    Ours = ours: "it is for our port and address, in a network of ours",
    Valid = valid: "the VXLAN header is valid",
    /// With its slot.
    Vtep = vtep: "the outer source is a VTEP of the network",
    /// With the slot of the peer.
    Sender = sender: "the inner source may be behind the VTEP that sent it",
    Verified = verified: "there is no outer checksum left to verify",
    InnerMac = inner_mac: "the inner frame is addressed to this end of the tunnel",
    AddsUp = adds_up: "the checksums of its headers are right",
    /// With the inner TOS that it leaves behind.
    Ecn = ecn: "ECN propagated",
    Stripped = stripped: "the tunnel's headers are taken off",
    /// With the index of the endpoint's device.
    Noted = noted: "the guard has taken its tunnel's headers off and noted the endpoint",
    /// With the index of the endpoint's device.
    Delivered = delivered: "handed to the endpoint",
}

/// What an event is: its first word.
pub mod kinds {
    /// A [`super::Decision`].
    pub const DECISION: u32 = 1;
    /// A [`super::Sighting`] and the bytes of a packet.
    pub const SIGHTING: u32 = 2;
}

/// A [`Step`] with what it was decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Decision {
    /// [`kinds::DECISION`].
    pub kind: u32,
    /// Number of the [`Step`].
    pub step: u32,
    /// What the step's description says.
    pub value: u64,
    /// And what it says further.
    pub more: u64,
}

/// How a packet has left a program; [`Sighting::reason`] says why.
pub mod outcomes {
    /// Redirected; for the guard, stripped. No reason.
    pub const SENT: u32 = 0;
    /// Left to the kernel: a number of [`PassReason`](crate::reasons::PassReason).
    pub const PASSED: u32 = 1;
    /// Dropped: a number of [`DropReason`](crate::reasons::DropReason).
    pub const DROPPED: u32 = 2;
}

/// A packet that has been through a program. Its bytes as they came follow, then, of one that
/// was sent, its bytes as they went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sighting {
    /// [`kinds::SIGHTING`].
    pub kind: u32,
    /// Number of the [`Program`](crate::programs::Program).
    pub program: u32,
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Index of the device at which the program runs.
    pub interface: u32,
    /// Index of the device that it was handed to, or [`NONE`].
    pub handed_to: u32,
    /// One of [`outcomes`].
    pub outcome: u32,
    /// Number of a reason, or [`NONE`].
    pub reason: u32,
    /// Slot of the peer, as far as it was found out, or [`NONE`].
    pub peer: u32,
    /// Payload bytes of each segment of a GSO packet, or 0.
    pub segment: u32,
    /// Bytes of the packet as it came,
    pub length_before: u32,
    /// and as many of them as follow.
    pub shown_before: u32,
    /// Bytes of the packet as it went,
    pub length_after: u32,
    /// and as many of them as follow those.
    pub shown_after: u32,
}

/// What was not told, by one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Lost {
    /// More packets than [`Watch::budget`].
    pub over_budget: u64,
    /// The ring buffer was full.
    pub ring_full: u64,
}

/// What is watched. Bit masks have a bit for each number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Watch {
    /// Not 0: every decision is told.
    pub decisions: u32,
    /// Bytes of each packet that are shown; 0: packets are not told at all.
    pub snap: u32,
    /// Packets that each CPU may tell of in each [`WINDOW_NS`].
    pub budget: u32,
    /// Only those that come from, or are for, the endpoint with this device; [`NONE`]: all.
    pub endpoint: u32,
    /// Only those of the peer with this slot; [`NONE`]: all.
    pub peer: u32,
    /// The [`Program`](crate::programs::Program)s,
    pub programs: u32,
    /// whether those that were sent,
    pub sent: u32,
    /// the reasons of those that were passed,
    pub passes: u32,
    /// and the reasons of those that were dropped.
    pub drops: u32,
}

impl Watch {
    /// Nothing.
    pub const NOTHING: Self = Self {
        decisions: 0,
        snap: 0,
        budget: 0,
        endpoint: NONE,
        peer: NONE,
        programs: 0,
        sent: 0,
        passes: 0,
        drops: 0,
    };

    /// Every decision and every packet, as far as its headers go; bounded by nothing.
    pub const EVERYTHING: Self = Self {
        decisions: 1,
        snap: 128,
        budget: u32::MAX,
        endpoint: NONE,
        peer: NONE,
        programs: u32::MAX,
        sent: 1,
        passes: u32::MAX,
        drops: u32::MAX,
    };
}

const _: () = {
    assert!(size_of::<Decision>() == 24);
    assert!(size_of::<Sighting>() == 56);
    assert!(size_of::<Watch>() == 36);
    // A bit for each.
    assert!(crate::reasons::DropReason::ALL.len() <= 32);
    assert!(crate::reasons::PassReason::ALL.len() <= 32);
};

#[cfg(feature = "aya")]
mod pod {
    use super::{Lost, Watch};

    // SAFETY: aya asks that every bit pattern is a value and that there is no padding;
    // `bytemuck::Pod`, derived with its checks for this type, is that proof.
    unsafe impl aya::Pod for Watch {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Lost {}
}

#[cfg(test)]
mod tests {
    use super::Step;
    use crate::programs::Program;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (number, &step) in Step::ALL.iter().enumerate() {
            assert_eq!(step as usize, number, "{}", step.name());
        }
        for (number, program) in Program::ALL.into_iter().enumerate() {
            assert_eq!(program as usize, number);
        }
    }
}
