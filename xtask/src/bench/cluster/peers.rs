//! The nodes that exist in etcd alone, and those whose address somebody has.

use std::net::Ipv4Addr;

/// Where flannel's keys begin.
pub(super) const PREFIX: &str = "/coreos.com/network";
/// Parameters that all nodes share.
pub(super) const CONFIG: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;
/// Nodes from this one on are looked after: what is sent to them arrives.
pub(super) const LIVE: u32 = 20_000;

/// A node, by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) u32);

impl Peer {
    /// Its outer address: on the underlay's network.
    pub(super) fn vtep(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + self.0)
    }

    fn subnet(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + (self.0 << 8))
    }

    /// Somebody behind it.
    pub(super) fn container(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet().to_bits() + 10)
    }

    pub(super) fn key(self) -> String {
        format!("{PREFIX}/subnets/{}-24", self.subnet())
    }

    /// As an overlay node writes it.
    pub(super) fn lease(self) -> String {
        let vtep = self.vtep();
        let [a, b, c, d] = vtep.octets();
        format!(
            r#"{{"PublicIP":"{vtep}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:4f:{a:02x}:{b:02x}:{c:02x}:{d:02x}"}},"Overlay":{{"Node":"node{}"}}}}"#,
            self.0
        )
    }
}
