//! The cluster's store, as the node sees it.

use overlay_control::ClusterStatus;
use prometheus::proto::{Counter, MetricType};

use super::export::{Page, gauge, labelled};

impl Page {
    /// Nothing of a node that is in no cluster.
    pub(super) fn cluster(&mut self, cluster: Option<&ClusterStatus>) {
        let Some(cluster) = cluster else { return };
        let labels = [("network", cluster.network.as_str())];
        let contact = cluster.contact_age_ms.map(seconds);
        let gauges = [
            (
                "overlay_cluster_connected",
                "1 if the cluster's store is followed, 0 if its last known state counts.",
                Some(f64::from(u8::from(cluster.connected))),
            ),
            (
                "overlay_cluster_contact_age_seconds",
                "Time since a member of the store last answered; 0 while the store is followed.",
                contact,
            ),
            (
                "overlay_cluster_leases",
                "Leases of other nodes that count.",
                Some(whole(cluster.nodes as u64)),
            ),
            (
                "overlay_cluster_doubtful_leases",
                "Those of them that the store does not have any more.",
                Some(whole(cluster.doubtful as u64)),
            ),
            (
                "overlay_cluster_revision",
                "Revision of the store that is known.",
                Some(whole(cluster.revision.unsigned_abs())),
            ),
        ];
        for (name, help, value) in gauges {
            let metrics = value.map(|value| gauge(&labels, value));
            self.family(name, help, MetricType::GAUGE, metrics.into_iter().collect());
        }
        let mut value = Counter::default();
        value.set_value(whole(cluster.connections));
        let mut metric = labelled(&labels);
        metric.set_counter(value);
        self.family(
            "overlay_cluster_connections_total",
            "Connections to members of the store since its helper was started.",
            MetricType::COUNTER,
            vec![metric],
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2⁵³")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of ages")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
