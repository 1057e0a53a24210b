//! Variants of the programs: what they report besides doing their work.

use overlay_common::journal::{SAID_SNAP, Watch};
use overlay_core::model::LogLevel;

use super::logs;

/// Messages for the log that each CPU may write in each window of the programs: 1,000 a second,
/// of which the log takes what it has room for.
const SAID: u32 = 10;

/// How programs are loaded. What they are not loaded to say costs nothing: the verifier takes
/// it out, and only an object that is built for it can be watched at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Which packets they tell the log.
    pub log: LogLevel,
    /// The packets that they report in their events.
    pub watch: Option<Watch>,
}

impl Variant {
    /// Whether it takes an object that is built to be watched.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some() || self.log > LogLevel::Off
    }

    /// What they are to be told to watch: for the log they write down what packets they have in
    /// hand.
    pub(super) fn watch(&self) -> Option<Watch> {
        let said = Watch {
            snap: u32::try_from(SAID_SNAP).unwrap_or(u32::MAX),
            budget: SAID,
            ..Watch::NOTHING
        };
        self.watch
            .or_else(|| (self.log > LogLevel::Off).then_some(said))
    }
}

impl Default for Variant {
    /// The variant for the agent's own log.
    fn default() -> Self {
        Self {
            log: logs::level(),
            watch: None,
        }
    }
}
