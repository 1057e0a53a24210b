//! What programs are loaded to say besides doing their work.

use overlay_common::journal::Watch;

use super::logs;
use crate::model::LogLevel;

/// How programs are loaded. What they are not loaded to say costs nothing: the verifier takes
/// it out, and only an object that is built for it can be watched at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Which packets they tell the log.
    pub log: LogLevel,
    /// What they tell of packets to whoever reads their events.
    pub watch: Option<Watch>,
}

impl Variant {
    /// Whether it takes an object that is built to be watched.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some() || self.log >= LogLevel::Debug
    }
}

impl Default for Variant {
    /// What the agent's own log asks for.
    fn default() -> Self {
        Self {
            log: logs::level(),
            watch: None,
        }
    }
}
