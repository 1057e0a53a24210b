//! Names, marks and MACs that are derived, so that they are the same after every restart.

use std::net::IpAddr;

use crate::{
    fnv::{START, fnv1a},
    model::{Family, IfName, Mac, Name, Vni},
};

/// The bridge of a network.
pub fn bridge_name(vni: Vni) -> Option<IfName> {
    format!("ovlbr{vni}").parse().ok()
}

/// The VXLAN device of a network for outer addresses of a family.
pub fn vxlan_name(vni: Vni, family: Family) -> Option<IfName> {
    match family {
        Family::V4 => format!("ovl{vni}"),
        Family::V6 => format!("ovl6-{vni}"),
    }
    .parse()
    .ok()
}

/// The `WireGuard` device of a network.
pub fn wireguard_name(vni: Vni) -> Option<IfName> {
    format!("ovlwg{vni}").parse().ok()
}

/// The second one of a network, while a key changes.
pub fn second_wireguard_name(vni: Vni) -> Option<IfName> {
    format!("ovlwgn{vni}").parse().ok()
}

/// The device of a network that asks for headroom.
pub(super) fn headroom_name(vni: Vni) -> Option<IfName> {
    format!("ovlpad{vni}").parse().ok()
}

/// The node's side of an endpoint's veth: the endpoint's name where it fits, else a hash of it.
pub fn veth_name(endpoint: &Name) -> Option<IfName> {
    const PREFIX: &str = "ovl-";
    let name = endpoint.as_str();
    format!("{PREFIX}{name}").parse().ok().or_else(|| {
        let hash = short_hash(name.as_bytes());
        format!("{PREFIX}{hash:011x}").parse().ok()
    })
}

/// 44 bits: short enough for an interface name.
fn short_hash(bytes: &[u8]) -> u64 {
    fnv1a(START, bytes) >> 20
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

/// The instance whose mark a device carries.
pub fn owner(device_alias: &str) -> Option<Name> {
    let rest = device_alias.strip_prefix("overlay:")?;
    rest.split(':').next()?.parse().ok()
}

/// Metric of an instance's routes of last resort, one for each range of its networks.
///
/// Any other route to the same range is preferred to one of them. It is different for instances of
/// one node, but for one pair of names in 65,536, because a route has no other place for a name.
pub fn last_resort_metric(instance: &Name) -> u32 {
    // Where the last letter of a name makes a difference, too.
    let [.., high, low, _, _] = short_hash(instance.as_str().as_bytes()).to_be_bytes();
    u32::MAX - u32::from(u16::from_be_bytes([high, low]))
}

/// MAC of a bridge: `02:47:` and the gateway's address, so that containers' neighbour
/// entries stay right when the bridge is made anew.
pub(super) fn gateway_mac(gateway: IpAddr) -> Option<Mac> {
    local_mac(0x47, gateway)
}

/// MAC of an endpoint: `02:45:` and its address.
pub(super) fn endpoint_mac(address: IpAddr) -> Option<Mac> {
    local_mac(0x45, address)
}

/// Locally administered; of an IPv6 address it has 32 bits of the hash, and another mark.
fn local_mac(kind: u8, address: IpAddr) -> Option<Mac> {
    let (kind, [a, b, c, d]) = match address {
        IpAddr::V4(address) => (kind, address.octets()),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = short_hash(&address.octets()).to_be_bytes();
            (kind | 0x20, [a, b, c, d])
        }
    };
    Mac::unicast([0x02, kind, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        endpoint_mac, gateway_mac, is_ours, last_resort_metric, owner, veth_name, vxlan_name,
    };
    use crate::model::{Family, Vni};

    #[test]
    fn the_longest_vni_has_names_for_both_families() {
        let vni = Vni::try_from(16_777_215).unwrap();
        let name = |family| vxlan_name(vni, family).unwrap().to_string();
        assert_eq!(name(Family::V4), "ovl16777215");
        assert_eq!(name(Family::V6), "ovl6-16777215");
    }

    #[test]
    fn macs_tell_kind_and_family() {
        let mac = |of: fn(std::net::IpAddr) -> Option<crate::model::Mac>, address: &str| {
            of(address.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(mac(endpoint_mac, "10.244.1.2"), "02:45:0a:f4:01:02");
        assert_eq!(mac(gateway_mac, "10.244.1.1"), "02:47:0a:f4:01:01");
        assert!(mac(endpoint_mac, "fd00::2").starts_with("02:65:"));
        assert!(mac(gateway_mac, "fd00::1").starts_with("02:67:"));
        assert_ne!(mac(endpoint_mac, "fd00::2"), mac(endpoint_mac, "fd00::3"));
    }

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
    fn routes_of_last_resort_tell_instances_apart() {
        let metric = |name: &str| last_resort_metric(&name.parse().unwrap());
        let alike: BTreeSet<u32> = (1..=99)
            .map(|number| metric(&format!("lab-n{number}")))
            .collect();
        assert_eq!(alike.len(), 99);
        assert!(metric("lab-n1") > u32::MAX - (1 << 16));
    }

    #[test]
    fn a_mark_names_the_whole_instance() {
        let instance = "node01".parse().unwrap();
        assert_eq!(owner("overlay:node02:web"), "node02".parse().ok());
        assert_eq!(owner("overlay of mine"), None);
        assert!(is_ours(&instance, "overlay:node01"));
        assert!(is_ours(&instance, "overlay:node01:web"));
        assert!(!is_ours(&instance, "overlay:node011"));
        assert!(!is_ours(&instance, "flannel"));
    }
}
