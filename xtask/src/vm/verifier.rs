//! The verifiers' statistics of the programs.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

/// What the test of the built object prints in front of its word on a program.
const MARK: &str = "verifier: ";

/// A program that a kernel has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Verified {
    program: String,
    /// Instructions that the verifier walked through, over all branches.
    walked: u32,
    /// Instructions that it left, and made of ours what this kernel runs.
    translated: u32,
    /// Bytes of machine code that these became.
    machine_code: u32,
}

impl Verified {
    /// Reads a line of the test's.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }
}

/// Programs by kernel, as `docs/kernels.md` shows them.
pub(super) struct Table<'a>(pub(super) &'a [(String, Vec<Verified>)]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| program |")?;
        for (kernel, _) in self.0 {
            write!(f, " {kernel} |")?;
        }
        write!(f, "\n|---|{}", "---|".repeat(self.0.len()))?;
        let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (column, (_, programs)) in self.0.iter().enumerate() {
            for found in programs {
                let row = rows.entry(&found.program).or_default();
                row.resize(self.0.len(), "-".to_owned());
                row[column] = format!(
                    "{} / {} / {}",
                    found.walked, found.translated, found.machine_code
                );
            }
        }
        for (program, cells) in rows {
            write!(f, "\n| `{program}` | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_is_a_column() {
        let line = |walked: u32| {
            let json = serde_json::json!({
                "program": "from_host", "walked": walked, "translated": 700, "machine_code": 4000,
            });
            Verified::parse(&format!("{MARK}{json}")).expect("it is complete")
        };
        let kernels = [
            ("6.1.0".to_owned(), vec![line(5000)]),
            ("7.2.1".to_owned(), vec![]),
            ("6.12.9".to_owned(), vec![line(4000)]),
        ];
        assert_eq!(
            Table(&kernels).to_string(),
            "| program | 6.1.0 | 7.2.1 | 6.12.9 |\n|---|---|---|---|\n\
             | `from_host` | 5000 / 700 / 4000 | - | 4000 / 700 / 4000 |"
        );
        assert_eq!(Verified::parse("verifier: no"), None);
    }
}
