//! From netlink's devices to ours.

use std::collections::BTreeMap;

use overlay_core::{
    model::{IfName, Mac, Vni},
    objects::{Link, LinkId, LinkKind, Objects, Vxlan},
};
use overlay_kernel::netlink::LinkInfo;

use super::endpoints::Inside;

/// Adds the node's devices of ours, and the containers' sides that were found.
pub(super) fn observe(
    ours: &[&LinkInfo],
    names: &BTreeMap<u32, IfName>,
    insides: &BTreeMap<IfName, Inside>,
    objects: &mut Objects,
) {
    for &info in ours {
        let inside = insides.get(&info.name);
        let link = Link {
            kind: kind(info, inside),
            mac: info.mac.and_then(Mac::unicast),
            mtu: info.mtu,
            up: info.up,
            master: info.master.and_then(|index| names.get(&index).copied()),
            alias: info.alias.clone(),
            altered: info.altered,
            oversized: info.oversized,
        };
        objects.links.insert(LinkId::node(info.name), link);
    }
    for inside in insides.values() {
        let link = Link {
            kind: LinkKind::VethPeer { host: inside.host },
            mac: inside.info.mac.and_then(Mac::unicast),
            mtu: inside.info.mtu,
            up: inside.info.up,
            master: None,
            alias: None,
            // Whatever it is a port of in there is not ours.
            altered: false,
            oversized: inside.info.oversized,
        };
        objects.links.insert(inside.id.clone(), link);
    }
}

fn kind(info: &LinkInfo, inside: Option<&Inside>) -> LinkKind {
    match (info.kind.as_deref(), &info.vxlan, inside) {
        (Some("bridge"), _, _) => LinkKind::Bridge,
        (Some("wireguard"), _, _) => LinkKind::Wireguard,
        (Some("veth"), _, Some(inside)) => LinkKind::Veth {
            peer: inside.id.clone(),
        },
        (Some("vxlan"), Some(vxlan), _) => {
            let (Ok(vni), Some(local), false) =
                (Vni::try_from(vxlan.vni), vxlan.local, vxlan.altered)
            else {
                return LinkKind::Other;
            };
            LinkKind::Vxlan(Vxlan {
                vni,
                port: vxlan.port,
                local,
                source_ports: vxlan.source_ports,
                learning: vxlan.learning,
                copies_dscp: vxlan.copies_dscp,
            })
        }
        _ => LinkKind::Other,
    }
}
