//! Logs the programs' messages about packets: the lines that `monitor` prints.

use std::sync::Arc;

use overlay_control::explain::Action;
use overlay_insight::explain::{
    Names,
    flow::{Flows, line},
};
use overlay_kernel::bpf::{DataPlane, Event};
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tracing::{info, warn};

use super::{
    Reconciler,
    capture::{boot, packet},
};

/// Those who write the log know the names of the last round by this.
pub(super) struct Messages(watch::Sender<Known>);

/// The names for the lines.
#[derive(Clone, Default)]
struct Known {
    names: Arc<Names>,
    /// The networks' UDP ports.
    ports: Vec<u16>,
}

impl Reconciler {
    /// The programs have been loaded: what they say is written down, until others take their place.
    pub(super) fn listen_to_messages(&mut self) {
        let dataplane = self.node.dataplane.as_mut();
        let from = dataplane.and_then(DataPlane::take_messages);
        self.messages = from.map(|from| {
            let (sender, known) = watch::channel(Known::default());
            tokio::spawn(write(from, known));
            Messages(sender)
        });
        self.name_messages();
    }

    /// There are other devices, or peers, than there were.
    pub(super) fn name_messages(&self) {
        if let Some(messages) = &self.messages {
            let networks = self.model.networks.iter();
            messages.0.send_replace(Known {
                names: Arc::new(Names::of(&self.scene())),
                ports: networks.map(|network| network.port).collect(),
            });
        }
    }
}

async fn write(mut from: UnboundedReceiver<Event>, known: watch::Receiver<Known>) {
    while let Some(event) = from.recv().await {
        let Event::Packet {
            sighting, before, ..
        } = event
        else {
            continue;
        };
        let Known { names, ports } = known.borrow().clone();
        let seen = packet(&names, boot(), &sighting, &before, &[]);
        let line = line(&seen, &Flows::of(&before, &ports));
        // Whoever asked the programs to say it wants to read it: whatever the level of the log.
        if seen.action == Action::Dropped {
            warn!(target: "overlay", "{line}");
        } else {
            info!(target: "overlay", "{line}");
        }
    }
}
