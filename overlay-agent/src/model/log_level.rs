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
    /// Nothing; the code is not there
    #[default]
    Off,
    /// Nothing yet: no packet is an error of theirs
    Error,
    /// Each packet that they drop, with its reason
    Warn,
    /// The same
    Info,
    /// Also each packet that they leave to the kernel
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
