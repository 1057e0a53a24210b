//! Peers of the kernel's VXLAN device, as flannel makes them.

use std::{fmt::Write as _, io::Write as _, ops::Range, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use overlay_common::wire;
use overlay_tests::{
    run::{self, command},
    script::words,
    topology::Node,
};

use super::peers;
use crate::bench::labs::Way;

/// All VTEPs are behind the other node.
pub(super) fn prepare(node: &str, peer: &Node) -> Result<()> {
    let (vteps, via) = (peers::VTEPS, peer.underlay);
    run::checked(format!("ip -n {node} route add {vteps} via {via}"))?;
    Ok(())
}

/// A neighbour, a forwarding entry and a route for each.
pub(super) fn add(way: &Way, new: Range<u32>) -> Result<()> {
    let device = way.tunnel().context("this subject has no tunnel")?;
    let (mut ip, mut bridge) = (String::new(), String::new());
    for peer in new {
        let (gateway, vtep) = (peers::subnet(peer), peers::vtep(peer));
        let mac = wire::vtep_mac(vtep.octets()).map(|byte| format!("{byte:02x}"));
        let mac = mac.join(":");
        // The metric is nothing to a packet. But the kernel looks for a like next hop among
        // all with the same device and metric, so that 100,000 of one take it three minutes.
        writeln!(
            ip,
            "neigh add {gateway} lladdr {mac} dev {device} nud permanent\n\
             route add {gateway}/{length} via {gateway} dev {device} onlink metric {metric}",
            length = peers::LENGTH,
            metric = peer + 1
        )?;
        writeln!(bridge, "fdb append {mac} dev {device} dst {vtep}")?;
    }
    batch("ip", way, &ip)?;
    batch("bridge", way, &bridge)
}

/// Runs the lines of a tool's command language.
fn batch(tool: &str, way: &Way, lines: &str) -> Result<()> {
    let line = format!("{tool} -n {} -batch -", way.client_node);
    let mut child = command(&words(&line))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run `{line}`"))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(lines.as_bytes()),
        None => Ok(()),
    };
    let out = child
        .wait_with_output()
        .with_context(|| format!("wait for `{line}`"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "`{line}` failed: {}", said.trim());
    written.with_context(|| format!("write to `{line}`"))
}
