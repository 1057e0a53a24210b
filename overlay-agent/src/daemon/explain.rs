//! Explaining packets beside the daemon's own work: it takes a moment, and changes nothing.

use overlay_control::{
    Reply,
    explain::{Question, Received},
};
use overlay_insight::explain::{Case, Refusal, Scene};
use tokio::sync::oneshot;

use super::Reconciler;

impl Reconciler {
    /// A packet of this node's.
    pub(super) async fn leaving(&self, question: &Question) -> Result<Case, Reply> {
        let case = Case::leaving(self.scene(), question).await;
        case.map_err(|refusal| match refusal {
            Refusal::Nobody(why) => Reply::NotFound(why),
            Refusal::Other(why) => Reply::BadInput(why),
        })
    }

    /// A packet of another node's.
    pub(super) async fn arriving(&self, received: &Received) -> Result<Case, Reply> {
        let case = Case::arriving(self.scene(), received).await;
        case.map_err(Reply::BadInput)
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
pub(super) fn answer(case: Result<Case, Reply>, to: oneshot::Sender<Reply>) {
    let case = match case {
        Ok(case) => case,
        Err(refusal) => return super::answer(to, refusal),
    };
    tokio::spawn(async move {
        let reply = match case.hop().await {
            Ok(hop) => Reply::Hop(Box::new(hop)),
            Err(error) => Reply::Failed(error),
        };
        super::answer(to, reply);
    });
}
