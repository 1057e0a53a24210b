//! Request and reply of `doctor`.

use overlay_core::model::Name;
use serde::{Deserialize, Serialize};

/// How a node is to be examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoctorSpec {
    /// How long counters are watched and answers are waited for, in milliseconds.
    pub sample_ms: u32,
}

/// The result of an examination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// [`crate::SCHEMA`].
    pub schema: u32,
    /// Version of the agent that has looked.
    pub version: String,
    /// The instance's name.
    pub instance: Name,
    /// The node's name.
    pub node: Name,
    /// Whether the instance's agent runs; it is asked unless a file was given, and without it less can be seen.
    pub agent_running: bool,
    /// Findings, the worst first, each behind its cause.
    pub findings: Vec<Finding>,
    /// Names of the checks that have found nothing.
    pub passed: Vec<String>,
    /// Checks that could not be made.
    pub skipped: Vec<Skipped>,
    /// Notes besides.
    #[serde(default)]
    pub notes: Vec<DiagnosisNote>,
}

/// A note that no check makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosisNote {
    /// Stable: `no-agent`.
    pub id: String,
    /// Its subject: the instance.
    pub object: String,
    /// The fact.
    pub what: String,
    /// The cure.
    pub cure: Cure,
}

impl Diagnosis {
    /// Whether there is nothing that somebody should do.
    pub fn is_healthy(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity == Severity::Note)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check; it does not change between versions.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// Its subject: a device, a peer, an endpoint, a setting.
    pub object: String,
    /// The observation, with numbers.
    pub what: String,
    /// Why it matters, in one sentence.
    pub why: String,
    /// Check of a finding before it from which this one follows, where that is proven: the cure of
    /// that one is the cure of both.
    #[serde(default)]
    pub follows_from: Option<String>,
    /// The cure.
    pub cure: Cure,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packets are lost, or cannot be sent.
    Problem,
    /// It works, but not as it should, or not for everything.
    Warning,
    /// Worth knowing, and nothing to be done.
    Note,
}

/// The cure for a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cure {
    /// In words.
    pub text: String,
    /// As root, on the machine that was examined, in this order; none when there is no command
    /// that is right without a decision.
    pub commands: Vec<String>,
}

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub check: String,
    /// Why.
    pub because: String,
}
