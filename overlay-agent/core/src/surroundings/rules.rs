//! Rules of routing.

use ipnet::IpNet;

/// A rule that refuses packets, whatever the tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusingRule {
    /// Rules with less are asked first.
    pub priority: u32,
    /// As `ip rule` calls it: `blackhole`, `prohibit`, `unreachable`.
    pub action: &'static str,
    /// The destinations that it is about; `None`: all.
    pub destination: Option<IpNet>,
    /// The sources that it is about; `None`: all.
    pub source: Option<IpNet>,
}
