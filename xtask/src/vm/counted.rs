//! Instructions for each packet, as a machine told them whose clock counts them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the test prints in front of a figure.
const MARK: &str = "icount: ";
/// Columns of the table: what the test counts, and how its head calls it.
const COLUMNS: [(&str, &str); 4] = [
    ("sent", "to the other node's card"),
    ("whole", "into the receiver's hand"),
    ("from_endpoint", "`from_endpoint`"),
    ("from_underlay", "`from_underlay`"),
];
/// Subjects that the others are divided by.
const DIVISORS: [&str; 3] = ["bare", "vxlan", "baseline"];

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    subject: String,
    /// From where to where, or in which program.
    what: String,
    /// Bytes of a datagram.
    payload: u32,
    pub(super) instructions: f64,
}

impl Counted {
    /// Reads a line of the test's.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }
}

/// A kernel's figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OnKernel {
    pub(super) kernel: String,
    pub(super) figures: Vec<Counted>,
}

impl OnKernel {
    fn find(&self, subject: &str, what: &str, payload: u32) -> Option<f64> {
        let mut figures = self.figures.iter();
        let figure = figures.find(|figure| {
            figure.subject == subject && figure.what == what && figure.payload == payload
        });
        figure.map(|figure| figure.instructions)
    }

    /// Subjects and payloads in the order in which they were counted.
    fn rows(&self) -> Vec<(u32, &str)> {
        let mut rows: Vec<(u32, &str)> = Vec::new();
        for figure in &self.figures {
            let row = (figure.payload, figure.subject.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows.sort_by_key(|&(payload, _)| payload);
        rows
    }
}

/// As `docs/benchmarks.md` shows it: instructions, and ratios of the whole way.
impl fmt::Display for OnKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let divisors = DIVISORS.into_iter();
        let divisors: Vec<&str> = divisors
            .filter(|divisor| rows.iter().any(|(_, subject)| subject == divisor))
            .collect();
        write!(f, "| bytes | subject |")?;
        for (_, head) in COLUMNS {
            write!(f, " {head} |")?;
        }
        for divisor in &divisors {
            write!(f, " ÷ `{divisor}` |")?;
        }
        write!(
            f,
            "\n|{}",
            "---|".repeat(2 + COLUMNS.len() + divisors.len())
        )?;
        for (payload, subject) in rows {
            write!(f, "\n| {payload} | `{subject}` |")?;
            for (what, _) in COLUMNS {
                match self.find(subject, what, payload) {
                    Some(instructions) => write!(f, " {instructions:.0} |")?,
                    None => write!(f, " |")?,
                }
            }
            for divisor in &divisors {
                let whole = |subject| self.find(subject, "whole", payload);
                match (whole(subject), whole(divisor)) {
                    (Some(own), Some(other)) => write!(f, " {:.3} |", own / other)?,
                    _ => write!(f, " |")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(subject: &str, what: &str, instructions: f64) -> Counted {
        let figure = serde_json::json!({
            "subject": subject, "what": what, "payload": 64, "instructions": instructions,
        });
        Counted::parse(&format!("{MARK}{figure}")).expect("it is complete")
    }

    #[test]
    fn each_subject_is_divided_by_those_that_there_are() {
        let on = OnKernel {
            kernel: "6.12".to_owned(),
            figures: vec![
                counted("vxlan", "sent", 6000.0),
                counted("vxlan", "whole", 10_000.0),
                counted("overlay", "whole", 5_000.4),
                counted("overlay", "from_endpoint", 700.0),
            ],
        };
        assert_eq!(
            on.to_string(),
            "| bytes | subject | to the other node's card | into the receiver's hand | \
             `from_endpoint` | `from_underlay` | ÷ `vxlan` |\n|---|---|---|---|---|---|---|\n\
             | 64 | `vxlan` | 6000 | 10000 | | | 1.000 |\n\
             | 64 | `overlay` | | 5000 | 700 | | 0.500 |"
        );
        assert_eq!(Counted::parse("icount: no"), None);
    }
}
