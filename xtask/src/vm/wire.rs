//! Two machines on one wire: virtio network cards that meet at a bridge.
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

use crate::setup;

/// Queues of each card: one for the machine's processor, and one for what XDP sends there.
const QUEUES: u8 = 2;
/// Makes the wire, `$1` and `$2` being its ends.
const LAY: &str = "\
ip link add wire type bridge
ip link set wire up
for end in one two; do
    ip tuntap add dev $end mode tap multi_queue vnet_hdr
    ip link set $end master wire up
done
";

/// A machine on the wire.
pub(super) struct Node {
    number: u8,
    addresses: [String; 2],
    other: String,
}

/// The two machines, numbered and addressed like the nodes of a lab.
pub(super) fn nodes() -> Result<[Node; 2]> {
    let shape = Shape::new("vm".parse()?, Scenario::Overlay, Some(2), Some(1))?
        .speaking(Families::Both, Families::Both)?;
    let topology = Topology::new(shape);
    let [one, two] = topology.nodes.as_slice() else {
        anyhow::bail!("two nodes were asked for");
    };
    Ok([(one, two), (two, one)].map(|(node, other)| Node {
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
            "NODE={} UNDERLAY={UNDERLAY} ADDRESS4={four} ADDRESS6={six} OTHER={}",
            self.number, self.other
        )
    }

    /// Its network card.
    pub(super) fn arguments(&self) -> [String; 4] {
        let (number, end) = (self.number, if self.number == 1 { "one" } else { "two" });
        [
            "-netdev".to_owned(),
            format!("tap,id=wire,ifname={end},script=no,downscript=no,vhost=off,queues={QUEUES}"),
            "-device".to_owned(),
            format!(
                "virtio-net-pci,netdev=wire,mq=on,vectors={},romfile=,mac=02:00:00:00:00:0{number}",
                2 * QUEUES + 2
            ),
        ]
    }
}

/// The command that runs both, until the first one ends.
pub(super) fn join(machines: &[Vec<String>; 2], second_log: &Path) -> Command {
    let [first, second] = machines;
    let script = format!(
        "{LAY}{} >'{}' 2>&1 &\n{}\n",
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
