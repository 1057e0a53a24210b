//! Names of a lab and of the namespaces in it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Prefix of all names of one lab, so that several can stand side by side.
///
/// At most eight lower-case letters and digits, a letter first: whatever is derived
/// from it still fits an interface name of 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

/// A name that cannot be a lab's.
#[derive(Debug, thiserror::Error)]
#[error(
    "lab name {0:?}: use 1 to 8 lower-case letters and digits, beginning with a letter, such as \"lab2\""
)]
pub struct InvalidName(String);

impl LabName {
    /// Namespace of a node; nodes are counted from 1.
    pub fn node(&self, node: u8) -> String {
        format!("{self}-n{node}")
    }

    /// Namespace of a container; containers are counted from 1 on each node.
    pub fn container(&self, node: u8, container: u8) -> String {
        format!("{self}-n{node}c{container}")
    }

    /// Namespace of the switch that joins the nodes where a single cable does not.
    pub fn switch(&self) -> String {
        format!("{self}-net")
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=8).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for LabName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::LabName;

    #[test]
    fn names_that_could_break_a_path_or_an_interface_are_refused() {
        for bad in ["", "Lab", "1ab", "la b", "../x", "lab-1", "ninechars"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad:?}");
        }
        let name: LabName = "lab2".parse().unwrap();
        assert_eq!(name.container(2, 1), "lab2-n2c1");
    }
}
