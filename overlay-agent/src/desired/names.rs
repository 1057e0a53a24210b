//! Names, marks and MACs that are derived, so that they are the same after every restart.

use std::net::Ipv4Addr;

use crate::model::{IfName, Mac, Name, Vni};

/// The bridge of a network.
pub fn bridge_name(vni: Vni) -> Option<IfName> {
    format!("ovlbr{vni}").parse().ok()
}

/// The VXLAN device of a network.
pub fn vxlan_name(vni: Vni) -> Option<IfName> {
    format!("ovl{vni}").parse().ok()
}

/// The device of a network that asks for headroom.
pub(super) fn headroom_name(vni: Vni) -> Option<IfName> {
    format!("ovlpad{vni}").parse().ok()
}

/// The node's side of an endpoint's veth: the endpoint's name where it fits, else a hash of it.
pub(super) fn veth_name(endpoint: &Name) -> Option<IfName> {
    const PREFIX: &str = "ovl-";
    let name = endpoint.as_str();
    format!("{PREFIX}{name}").parse().ok().or_else(|| {
        let hash = fnv1a(name.as_bytes());
        format!("{PREFIX}{hash:011x}").parse().ok()
    })
}

/// 44 bits of FNV-1a: short enough for an interface name, and the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 20
}

/// The mark that proves a device to be ours: `IFLA_IFALIAS`, shown by `ip link`.
pub fn alias(instance: &Name) -> String {
    format!("overlay:{instance}")
}

/// The mark of an endpoint's veth.
pub(super) fn endpoint_alias(instance: &Name, endpoint: &Name) -> String {
    format!("overlay:{instance}:{endpoint}")
}

/// Whether a device's alias is a mark of this instance.
pub fn is_ours(instance: &Name, device_alias: &str) -> bool {
    device_alias
        .strip_prefix(&alias(instance))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// MAC of a bridge: `02:47:` and the gateway's address, so that containers' ARP
/// entries stay right when the bridge is made anew.
pub(super) fn gateway_mac(gateway: Ipv4Addr) -> Option<Mac> {
    local_mac(0x47, gateway)
}

/// MAC of an endpoint: `02:45:` and its address.
pub(super) fn endpoint_mac(address: Ipv4Addr) -> Option<Mac> {
    local_mac(0x45, address)
}

fn local_mac(kind: u8, address: Ipv4Addr) -> Option<Mac> {
    let [a, b, c, d] = address.octets();
    Mac::unicast([0x02, kind, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::{is_ours, veth_name};

    #[test]
    fn veth_names_fit_and_differ() {
        let name = |text: &str| {
            veth_name(&text.parse().unwrap())
                .unwrap()
                .as_str()
                .to_owned()
        };
        assert_eq!(name("web"), "ovl-web");
        assert_eq!(name("elevenchars"), "ovl-elevenchars");
        let (one, two) = (name("a-long-endpoint-1"), name("a-long-endpoint-2"));
        assert_eq!(one.len(), 15);
        assert_ne!(one, two);
    }

    #[test]
    fn a_mark_names_the_whole_instance() {
        let instance = "node01".parse().unwrap();
        assert!(is_ours(&instance, "overlay:node01"));
        assert!(is_ours(&instance, "overlay:node01:web"));
        assert!(!is_ours(&instance, "overlay:node011"));
        assert!(!is_ours(&instance, "flannel"));
    }
}
