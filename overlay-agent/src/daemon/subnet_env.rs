//! What flannel's CNI plugin reads of a network.

use super::Reconciler;
use crate::model::Cluster;

/// flannel's `subnet.env`: its lines, in its order.
pub(super) fn subnet_env(reconciler: &Reconciler, cluster: &Cluster) -> Option<String> {
    let network = reconciler.config.network(&cluster.network)?;
    let mtu = reconciler.facts.mtus.get(&cluster.network)?;
    let families = network.ranges.iter().map(|range| {
        let family = if range.cidr.addr().is_ipv4() {
            ""
        } else {
            "IPV6_"
        };
        format!(
            "FLANNEL_{family}NETWORK={}\nFLANNEL_{family}SUBNET={}/{}\n",
            range.cidr,
            range.gateway(),
            range.subnet.prefix_len()
        )
    });
    Some(format!(
        "{}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={}\n",
        families.collect::<String>(),
        network.masquerade
    ))
}
