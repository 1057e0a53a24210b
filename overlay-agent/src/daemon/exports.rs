//! The door for Prometheus: open where the configuration wants it.

use std::path::PathBuf;

use overlay_control::Call;
use overlay_core::{
    model::Metrics,
    trouble::{Trouble, ids},
};
use overlay_insight::metrics::Exporter;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// The open listeners, and those that there should be.
pub(super) struct Exports {
    calls: mpsc::Sender<Call>,
    /// The node's namespace, where that is not the machine's.
    netns: Option<PathBuf>,
    open: Option<(Metrics, Exporter)>,
    /// Why it is not, as it was told last.
    told: Option<Trouble>,
}

impl Exports {
    pub(super) fn new(calls: mpsc::Sender<Call>, netns: Option<PathBuf>) -> Self {
        Self {
            calls,
            netns,
            open: None,
            told: None,
        }
    }

    /// Opens or closes it; a problem if it was asked for and cannot be. The usual address can be
    /// another instance's: that is told in the log alone.
    pub(super) async fn follow(&mut self, wanted: Metrics) -> Option<Trouble> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == wanted) {
            return None;
        }
        self.open = None;
        let Some(address) = wanted.address() else {
            self.told = None;
            return None;
        };
        match Exporter::open(address, self.calls.clone()).await {
            Ok(exporter) => {
                let within = self.netns.as_deref();
                let within =
                    within.map(|path| format!(", in network namespace {}", path.display()));
                info!(
                    "counters for Prometheus are at http://{address}/metrics{}",
                    within.unwrap_or_default()
                );
                self.open = Some((wanted, exporter));
                self.told = None;
                None
            }
            Err(error) => {
                let cure = "choose another address with node.metrics, or \"off\"";
                let problem = Trouble::new(ids::METRICS_CLOSED, address, error.to_string(), cure)
                    .during(format!("export counters at {address}"));
                if self.told.as_ref() != Some(&problem) {
                    warn!("{problem}");
                }
                self.told = Some(problem.clone());
                (wanted != Metrics::Usual).then_some(problem)
            }
        }
    }
}
