//! Numbers of the wire format, and what both ends derive by rule.

/// UDP destination port that IANA assigned to VXLAN (RFC 7348 §5).
pub const IANA_PORT: u16 = 4789;
/// Bytes that the tunnel adds to an inner IP packet on an IPv4 underlay:
/// IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14.
pub const OVERHEAD_V4: u16 = 50;
/// Bytes that the tunnel adds to an inner IP packet on an IPv6 underlay:
/// IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14.
pub const OVERHEAD_V6: u16 = 70;
/// First VXLAN word, host order: the I flag alone (RFC 7348 §5).
pub const VXLAN_FLAGS: u32 = 0x0800_0000;
/// Largest VNI: 24 bits.
pub const MAX_VNI: u32 = 0x00ff_ffff;
/// TTL or hop limit of the outer header, as Linux's VXLAN device sends it.
pub const OUTER_TTL: u8 = 64;

/// Lowest UDP source port, inclusive: the dynamic range that RFC 7348 §5 recommends.
pub const SOURCE_PORT_MIN: u16 = 49_152;
/// Highest UDP source port, exclusive in the hash's arithmetic (`udp_flow_src_port`).
pub const SOURCE_PORT_MAX: u16 = 65_535;

/// UDP source port of a flow, host order, from the kernel's flow hash.
///
/// The same arithmetic as `udp_flow_src_port` in `include/net/udp.h`, so that a
/// flow keeps its path through the underlay when it changes between the fast path
/// and the kernel's device.
pub const fn source_port(flow_hash: u32) -> u16 {
    let folded = flow_hash ^ (flow_hash << 16);
    let span = (SOURCE_PORT_MAX - SOURCE_PORT_MIN) as u64;
    let offset = ((folded as u64) * span) >> 32;
    // The product is below 2^32 * span, so the offset is below span, which fits 16 bits.
    #[expect(clippy::cast_possible_truncation, reason = "below span")]
    let offset = offset as u16;
    SOURCE_PORT_MIN + offset
}

/// MAC of the VXLAN device of the node with this outer address: `02:4f:` and its four bytes.
///
/// Locally administered and unicast. Each node derives its peers' from their VTEP
/// addresses, so no MAC has to be configured or learned.
pub const fn vtep_mac(vtep: [u8; 4]) -> [u8; 6] {
    [0x02, 0x4f, vtep[0], vtep[1], vtep[2], vtep[3]]
}

/// MAC of the VXLAN device of the node with this outer IPv6 address: `02:36:` and a 32-bit
/// FNV-1a hash of its sixteen bytes.
pub const fn vtep6_mac(vtep: [u8; 16]) -> [u8; 6] {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let mut hash = OFFSET_BASIS;
    let mut place = 0;
    while place < vtep.len() {
        hash = (hash ^ vtep[place] as u32).wrapping_mul(PRIME);
        place += 1;
    }
    let [a, b, c, d] = hash.to_be_bytes();
    [0x02, 0x36, a, b, c, d]
}

/// The part of the flows to a peer that a flow is in, by its UDP source port. All bits of the
/// port decide.
pub const fn bucket(source_port: u16) -> usize {
    let folded = source_port ^ (source_port >> 8);
    let folded = folded ^ (folded >> 4);
    folded as usize & (crate::maps::BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::{SOURCE_PORT_MAX, SOURCE_PORT_MIN, source_port, vtep_mac, vtep6_mac};

    #[test]
    fn source_ports_stay_in_the_range() {
        assert_eq!(source_port(0), SOURCE_PORT_MIN);
        assert_eq!(source_port(u32::MAX), SOURCE_PORT_MIN);
        assert_eq!(source_port(0xffff_0000), SOURCE_PORT_MAX - 1);
        for hash in (0..u32::MAX).step_by(65_521) {
            assert!((SOURCE_PORT_MIN..SOURCE_PORT_MAX).contains(&source_port(hash)));
        }
    }

    #[test]
    fn a_vtep_mac_is_local_and_unicast() {
        let mac = vtep_mac([192, 168, 56, 12]);
        assert_eq!(mac, [0x02, 0x4f, 192, 168, 56, 12]);
        assert_eq!(mac[0] & 0b11, 0b10);
    }

    #[test]
    fn a_vtep6_mac_is_local_unicast_and_differs_between_neighbours() {
        let mut vtep = [0; 16];
        vtep[0] = 0xfd;
        let mut macs: Vec<_> = (0..=255)
            .map(|last| {
                vtep[15] = last;
                vtep6_mac(vtep)
            })
            .collect();
        macs.sort_unstable();
        macs.dedup();
        assert_eq!(macs.len(), 256);
        assert!(macs.iter().all(|mac| mac[0] & 0b11 == 0b10));
    }
}
