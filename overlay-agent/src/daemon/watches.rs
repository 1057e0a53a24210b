//! Sources of events besides netlink.

use std::future::pending;

use overlay_kernel::{self as kernel, bpf::PinWatch, nft, xfrm};
use overlay_node::node::Node;
use tracing::error;

/// Changes of rules and pins that the kernel announces; the
/// [`patrol`](super::patrol) looks for the others.
pub(super) struct Watches {
    filter: Option<nft::Watch>,
    pins: Option<PinWatch>,
    policies: Option<xfrm::Watch>,
}

impl Watches {
    /// Listens from now on. A kernel without nftables has no table to watch.
    pub(super) fn open(node: &Node) -> Self {
        Self {
            filter: kept(nft::Watch::open()),
            pins: kept(PinWatch::open(&node.pins)),
            policies: kept(xfrm::Watch::open()).flatten(),
        }
    }

    /// Waits for a change. Nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) -> Changed {
        tokio::select! {
            told = one(&mut self.filter, nft::Watch::changed) => Changed::Rules(told),
            () = one(&mut self.pins, PinWatch::changed) => Changed::Pins,
            () = one(&mut self.policies, xfrm::Watch::changed) => Changed::Policies,
        }
    }

    /// Takes in what a round has made.
    pub(super) fn renew(&self) {
        if let Some(Err(error)) = self.pins.as_ref().map(PinWatch::renew) {
            error!("{error}; what is removed there is found later");
        }
    }
}

fn kept<T>(opened: kernel::Result<T>) -> Option<T> {
    opened
        .inspect_err(|error| error!("{error}; changes are found later"))
        .ok()
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The packet filter.
    Rules(nft::Told),
    Pins,
    /// Policies of `IPsec`.
    Policies,
}

/// A watch that fails is given up: the looks at longer intervals find what it would have told.
async fn one<T, C>(
    watch: &mut Option<T>,
    changed: impl AsyncFnOnce(&mut T) -> kernel::Result<C>,
) -> C {
    if let Some(open) = watch {
        match changed(open).await {
            Ok(what) => return what,
            Err(error) => {
                error!("{error}; changes are found later");
                *watch = None;
            }
        }
    }
    pending().await
}
