//! Packets as the programs see them.
//!
//! A capture lives as long as it is read: whoever starts one asks for packets again and again,
//! and one that nobody has asked for a while ends by itself.

use overlay_core::model::{IfName, Name};
use serde::{Deserialize, Serialize};

use super::{Caller, explain::Action};

/// The parameters of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only what this endpoint sends or gets.
    pub endpoint: Option<String>,
    /// Only what is for this peer, or from it.
    pub peer: Option<String>,
    /// Only packets that left a program for one of these reasons, by the counters' names, or
    /// `sent`, `passed`, `dropped` for all of a kind; none: all.
    pub reasons: Vec<String>,
    /// Only what these programs see; none: all.
    pub hooks: Vec<String>,
    /// Bytes of each packet.
    pub snap: u32,
    /// Whether it is for people to look at, not for a file.
    #[serde(default, skip_serializing_if = "is_not")]
    pub monitor: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_not(monitor: &bool) -> bool {
    !*monitor
}

impl Wanted {
    /// Name of the command that starts it.
    pub const fn called(&self) -> &'static str {
        if self.monitor { "monitor" } else { "capture" }
    }
}

/// A capture that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// The process that has started it.
    pub by: Caller,
    /// When, as RFC 3339 writes it, in UTC,
    pub since: String,
    /// and how many milliseconds ago.
    pub age_ms: u64,
    /// Its parameters.
    pub wanted: Wanted,
}

/// The packets seen since the last read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Packets, in the order in which programs were done with them.
    pub packets: Vec<Seen>,
    /// Packets that were not told so far, because there were more than the programs may tell,
    pub over_budget: u64,
    /// or than were read.
    pub ring_full: u64,
}

/// A packet in a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Nanoseconds since 1970, when it came.
    pub time_ns: u64,
    /// The program.
    pub program: String,
    /// Its device.
    pub device: String,
    /// The verdict.
    pub action: Action,
    /// The reason's name, as counters have it.
    pub reason: Option<String>,
    /// The verdict in words.
    pub text: String,
    /// The peer, as far as it was found out.
    pub peer: Option<Name>,
    /// The endpoint that it came from or goes to, as far as it was found out.
    pub endpoint: Option<Name>,
    /// The device that it was handed to.
    pub handed_to: Option<IfName>,
    /// The packet as it came.
    pub before: Bytes,
    /// The packet as it went, if it was sent.
    pub after: Option<Bytes>,
}

/// A packet, as much of it as was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Bytes that it has.
    pub length: u32,
    /// The first of them, in hexadecimal.
    pub hex: String,
}
