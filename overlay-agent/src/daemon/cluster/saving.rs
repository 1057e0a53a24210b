//! Puts the helper's news into force, and saves it.

use std::io;

use overlay_core::trouble::{Trouble, ids};
use tokio::time::Instant;

use super::{Behind, ConfigFile, Helper, Outcome, RESTART, Unsaved};
use crate::daemon::files::replace_told;

impl Helper {
    /// Has a network come into force, if it can stand beside the configuration.
    pub(super) fn accept(&mut self, text: String, config: &mut ConfigFile) -> Outcome {
        self.refused = None;
        if let Some(faults) = config.files().cluster_faults(&text) {
            self.fail(
                ids::CLUSTER_REFUSED,
                format!("what the cluster's store says is refused, the network before stays in force: {faults}"),
                "correct the configuration file if that is in the way, or the store",
            );
            self.refused = Some(text);
            // What has changed of the one before is still to be written.
            self.unsaved
                .take_if(|(unsaved, _)| matches!(unsaved, Unsaved::Whole(_)));
            return Outcome::Nothing;
        }
        self.unsaved = None;
        self.save(text, config)
    }

    /// Writes a network down, which has it come into force.
    pub(super) fn save(&mut self, text: String, config: &mut ConfigFile) -> Outcome {
        self.saved();
        match replace_told(&self.file, &text) {
            Ok(()) => {
                self.failure = None;
                config.files().accept_cluster();
                Outcome::Read
            }
            Err(cause) => {
                self.not_written(&cause, "the network before stays in force");
                // The helper tells it no second time.
                self.unsaved = Some((Unsaved::Whole(text), Instant::now() + RESTART));
                Outcome::Nothing
            }
        }
    }

    /// Begins to write down what has changed of the network in force.
    pub(super) fn save_changes(&mut self, config: &ConfigFile) -> Outcome {
        self.saved();
        if let Some(text) = config.cluster_text() {
            match Behind::start(self.file.clone(), text) {
                Ok(behind) => self.behind = Some(behind),
                Err(cause) => self.not_saved(&cause),
            }
        }
        Outcome::Nothing
    }

    /// Takes in what has come of that.
    pub(super) fn saved(&mut self) {
        let Some(behind) = self.behind.take() else {
            return;
        };
        let of_file = |failure: &Trouble| failure.id == ids::CLUSTER_REFUSED;
        match behind.finish() {
            Err(cause) => self.not_saved(&cause),
            Ok(()) if self.refused.is_none() && self.failure.as_ref().is_some_and(of_file) => {
                self.failure = None;
            }
            Ok(()) => {}
        }
    }

    fn not_saved(&mut self, cause: &io::Error) {
        self.not_written(cause, "an agent that starts now would not know all peers");
        let again = Instant::now() + RESTART;
        self.unsaved.get_or_insert((Unsaved::Changes, again));
    }

    /// Writes down what is not written yet, before the agent ends.
    pub(in super::super) fn finish(&mut self, config: &ConfigFile) {
        if let Some((Unsaved::Changes, _)) = self.unsaved.take() {
            self.save_changes(config);
        }
        self.saved();
    }

    fn not_written(&mut self, cause: &io::Error, so: &str) {
        let file = self.file.display();
        let what = format!("write {file}: {cause}; {so}");
        self.fail(
            ids::CLUSTER_REFUSED,
            what,
            "see that the disk has room and lets the agent write there",
        );
    }
}
