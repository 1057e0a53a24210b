//! Two machines on one wire: network cards that meet at a bridge.
//!
//! The bridge is in a network namespace of its own, which ends with the machines: nothing of
//! it is seen on this machine's network. Between the cards packets travel as they do between
//! cards that segment and checksum: large ones stay large, and sums may be left to the other
//! side, which sockets between two emulators would not do.

use std::{path::Path, process::Command};

use anyhow::Result;
use overlay_tests::{
    families::Families,
    script::shell,
    shape::{Scenario, Shape},
    topology::{self, Topology, UNDERLAY},
};

use super::nic::Nic;
use crate::setup;

/// Makes the wire, with ends of one queue or of several.
fn lay(nic: Nic) -> String {
    let queues = if nic.queues() > 1 { "multi_queue " } else { "" };
    format!(
        "\
ip link add wire type bridge
ip link set wire up
for end in one two; do
    ip tuntap add dev $end mode tap {queues}vnet_hdr
    ip link set $end master wire up
done
"
    )
}

/// A machine on the wire.
pub(super) struct Node {
    nic: Nic,
    number: u8,
    addresses: [String; 2],
    other: String,
}

/// The two machines, numbered and addressed like the nodes of a lab.
pub(super) fn nodes(nic: Nic) -> Result<[Node; 2]> {
    let shape =
        Shape::of("vm", Scenario::Overlay, 2, 1)?.speaking(Families::Both, Families::Both)?;
    let topology = Topology::new(shape);
    let [one, two] = topology.two_nodes();
    Ok([(one, two), (two, one)].map(|(node, other)| Node {
        nic,
        number: node.number,
        addresses: [
            format!("{}/{}", node.underlay, topology.underlay_length),
            format!("{}/{}", node.underlay6, topology::UNDERLAY6_LENGTH),
        ],
        other: other.underlay.to_string(),
    }))
}

impl Node {
    /// What its first program is told.
    pub(super) fn parameters(&self) -> String {
        let [four, six] = &self.addresses;
        format!(
            "NODE={} NIC={} UNDERLAY={UNDERLAY} ADDRESS4={four} ADDRESS6={six} OTHER={}",
            self.number,
            self.nic.driver(),
            self.other
        )
    }

    /// Its network card.
    pub(super) fn arguments(&self) -> [String; 4] {
        let queues = match self.nic.queues() {
            1 => String::new(),
            several => format!(",queues={several}"),
        };
        let (number, end) = (self.number, if self.number == 1 { "one" } else { "two" });
        [
            "-netdev".to_owned(),
            format!("tap,id=wire,ifname={end},script=no,downscript=no,vhost=off{queues}"),
            "-device".to_owned(),
            format!(
                "{},netdev=wire,romfile=,mac=02:00:00:00:00:0{number}",
                self.nic.device()
            ),
        ]
    }
}

/// The command that runs both, until the first one ends.
pub(super) fn join(nic: Nic, machines: &[Vec<String>; 2], second_log: &Path) -> Command {
    let [first, second] = machines;
    let script = format!(
        "{}{} >'{}' 2>&1 &\n{}\n",
        lay(nic),
        shell(second),
        second_log.display(),
        shell(first)
    );
    let mut command = Command::new("unshare");
    if !setup::is_root() {
        command.arg("--map-root-user");
    }
    // Whoever ends this command ends the machines, and with them the wire.
    command.args(["--net", "--pid", "--fork", "--kill-child", "sh", "-euc"]);
    command.arg(script);
    command
}
