//! From what the programs have counted, slot by slot, to whose it is.

mod build;
mod kernel_path;
mod rates;
mod units;

use std::collections::BTreeMap;

use overlay_common::{
    maps::{Count, EndpointStats, PassedKey, PeerStats, SenderKey},
    programs::Program,
    reasons::{Drops, Passes},
};
use overlay_kernel::{self as kernel, bpf::Counters};

pub use build::Owners;
pub use kernel_path::{with_drops_of_kernel, with_kernel};
pub use rates::rates;
pub use units::{ago, bytes, count, milliseconds};

/// The content of the maps of counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub(crate) peers: BTreeMap<u32, PeerStats>,
    pub(crate) endpoints: BTreeMap<u32, EndpointStats>,
    pub(crate) drops: Vec<(Program, Drops)>,
    pub(crate) passes: Vec<(Program, Passes)>,
    pub(crate) senders: BTreeMap<SenderKey, Count>,
    pub(crate) passed: BTreeMap<PassedKey, Count>,
}

impl Counted {
    /// Reads all of it; not at one moment, traffic goes on meanwhile.
    pub fn read(counters: &Counters) -> kernel::Result<Self> {
        Ok(Self {
            // Before the sums, so that no part is larger than its sum.
            senders: counters.drops_by_sender()?,
            passed: counters.passes_by_peer()?,
            peers: counters.peers()?,
            endpoints: counters.endpoints()?,
            drops: of_programs(|program| counters.drops(program))?,
            passes: of_programs(|program| counters.passes(program))?,
        })
    }
}

fn of_programs<T>(
    read: impl Fn(Program) -> kernel::Result<T>,
) -> kernel::Result<Vec<(Program, T)>> {
    let programs = Program::ALL.into_iter();
    programs
        .map(|program| Ok((program, read(program)?)))
        .collect()
}
