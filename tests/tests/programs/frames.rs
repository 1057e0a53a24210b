//! The lab's frames, with the names and habits of these tests.

pub(crate) use overlay_tests::frames::{
    Ip, Mac, ethernet,
    ethertype::{ARP, IPV4, IPV6, VLAN},
    header_of,
    protocol::{ICMP, ICMPV6, TCP, UDP},
    udp,
};

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

/// A VXLAN header with any flags and VNI, reserved byte 0.
pub(crate) fn vxlan(flags: u32, vni: u32, frame: &[u8]) -> Vec<u8> {
    overlay_tests::frames::vxlan(flags, vni << 8, frame)
}
