//! Nodes of flannel's that are in the store alone.

use anyhow::Result;
use overlay_tests::agent::Agent;

use crate::lab::{has_peer, until};

/// A node of flannel's that does not run.
pub(crate) fn lease(host: u8, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.168.56.{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"d2:cf:28:5c:{mac:02x}:{host:02x}"}}}}"#
    )
}

/// Whether an agent has the one with that subnet for a peer.
pub(crate) fn there(agent: &Agent, number: u8, host: u8, mac: u8) -> Result<()> {
    let subnet = format!("10.244.{number}.0/24");
    let mac = format!("d2:cf:28:5c:{mac:02x}:{host:02x}");
    has_peer(agent, &subnet, &mac, &format!("192.168.56.{host}"))
}

/// Waits until it has.
pub(crate) fn until_there(agent: &Agent, number: u8, host: u8, mac: u8) -> Result<()> {
    until("a peer", || there(agent, number, host, mac))
}
