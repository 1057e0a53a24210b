//! Whether agents look after each other.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::InvalidValue;

/// Probing of peers through the networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Probe {
    /// Neither asks nor answers.
    Off,
    /// Answers its peers.
    #[default]
    Answer,
    /// Asks each peer once in so long, too.
    Every(Duration),
}

/// More often would measure this node's own scheduling.
const SHORTEST: Duration = Duration::from_millis(100);
/// More seldom would find nothing in time.
const LONGEST: Duration = Duration::from_hours(1);

impl FromStr for Probe {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "off" => Ok(Self::Off),
            "answer" => Ok(Self::Answer),
            _ => interval(text)
                .filter(|interval| (SHORTEST..=LONGEST).contains(interval))
                .map(Self::Every)
                .ok_or_else(|| InvalidValue::Probe(text.to_owned())),
        }
    }
}

/// A number and its unit.
fn interval(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number = u64::from(number.parse::<u32>().ok()?);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(60 * number)),
        _ => None,
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Answer => f.write_str("answer"),
            Self::Every(interval) if interval.subsec_millis() > 0 => {
                write!(f, "{}ms", interval.as_millis())
            }
            Self::Every(interval) => write!(f, "{}s", interval.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Probe;

    #[test]
    fn what_is_printed_is_what_is_read() {
        for (text, printed) in [
            ("off", "off"),
            ("answer", "answer"),
            ("100ms", "100ms"),
            ("1500ms", "1500ms"),
            ("5s", "5s"),
            ("2m", "120s"),
            ("60m", "3600s"),
        ] {
            let probe: Probe = text.parse().unwrap();
            assert_eq!(probe.to_string(), printed);
            assert_eq!(printed.parse::<Probe>(), Ok(probe));
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in [
            "",
            "on",
            "5",
            "s",
            "-5s",
            "5 s",
            "5.5s",
            "99ms",
            "0s",
            "61m",
            "4294967296s",
            "5h",
        ] {
            assert!(text.parse::<Probe>().is_err(), "{text:?}");
        }
    }
}
