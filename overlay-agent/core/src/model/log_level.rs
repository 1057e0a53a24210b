//! How much the programs say.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What of their packets the programs tell the agent's log. Each level has those above it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// No packet: the code for it is not loaded
    #[default]
    Off,
    /// The same as off
    Error,
    /// Each packet that is dropped, with its reason
    Warn,
    /// The same as warn
    Info,
    /// Also each packet that is left to the kernel
    Debug,
}

impl LogLevel {
    /// Its number among the levels of the `log` crate, which the programs use, too.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}
