//! Turns off the offloads of devices.

use crate::{error::Result, run, script::inside, topology::UNDERLAY};

/// Has a node make the checksums of what it sends itself, as behind a card that makes none: the
/// receiver has nothing else to tell whether they are right.
pub fn without_checksums(node: &str) -> Result<()> {
    let command = format!("ethtool -K {UNDERLAY} tx-checksum-ip-generic off");
    run::checked(inside(node, &command)).map(|_| ())
}
