//! Explaining packets beside the daemon's own work: it takes a moment, and changes nothing.

use tokio::sync::oneshot;

use super::Reconciler;
use crate::{
    api::{
        Reply,
        explain::{Question, Received},
    },
    explain::{Case, Scene},
};

impl Reconciler {
    /// A packet of this node's.
    pub(super) async fn leaving(&self, question: &Question) -> Result<Case, String> {
        Case::leaving(self.scene(), question).await
    }

    /// A packet of another node's.
    pub(super) async fn arriving(&self, received: &Received) -> Result<Case, String> {
        Case::arriving(self.scene(), received).await
    }

    pub(super) fn scene(&self) -> Scene<'_> {
        Scene {
            model: &self.model,
            store: self.store.content(),
            facts: &self.facts,
            observed: &self.observed,
            netlink: &self.node.netlink,
            pins: &self.node.pins,
        }
    }
}

/// Follows the packet, and answers when it has come to its end.
pub(super) fn answer(case: Result<Case, String>, to: oneshot::Sender<Reply>) {
    let case = match case {
        Ok(case) => case,
        Err(error) => return super::answer(to, Reply::BadInput(error)),
    };
    tokio::spawn(async move {
        let reply = match case.hop().await {
            Ok(hop) => Reply::Hop(Box::new(hop)),
            Err(error) => Reply::Failed(error),
        };
        super::answer(to, reply);
    });
}
