//! Common parts of `capture` and `monitor`: the choice of packets, and the output of one.

use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::anyhow;
use clap_complete::ArgValueCompleter;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use overlay_control::{
    Reply, SCHEMA,
    capture::{Captured, Seen},
    explain::Action,
    rfc3339,
};
use overlay_insight::explain::{
    flow::{Flows, verdict},
    rule_of,
    select::Choice,
};
use serde_json::{Value, json};

use super::{Failure, client, completing};

/// Bytes of each packet that its flow is read from: the headers of a tunnel over IPv6 and of what is
/// in it.
pub(super) const HEADERS: u32 = 192;

/// Which packets are wanted, and how long.
#[derive(Debug, clap::Args)]
pub(super) struct Part {
    /// Only what this endpoint sends or gets
    #[arg(long, add = ArgValueCompleter::new(completing::endpoints))]
    pub(super) endpoint: Option<String>,
    /// Only what is for this peer, or from it
    #[arg(long, add = ArgValueCompleter::new(completing::peers))]
    pub(super) peer: Option<String>,
    /// End after so many packets
    #[arg(short, long)]
    pub(super) count: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    pub(super) seconds: Option<u64>,
    /// Only packets of such a flow, inside or outside the tunnel, as tcpdump's filters have it: [src|dst]
    /// host ADDRESS, net PREFIX or port NUMBER; arp, ip, ip6, icmp, icmp6, tcp, udp; and, or, not
    #[arg(value_name = "FILTER")]
    pub(super) filter: Vec<String>,
}

impl Part {
    /// The choice among the packets that come.
    pub(super) fn choice(&self) -> Result<Choice, Failure> {
        Choice::of(&self.filter).map_err(|error| Failure::BadInput(error.into()))
    }

    /// When it is over.
    pub(super) fn end(&self) -> Option<Instant> {
        let seconds = self.seconds.map(Duration::from_secs);
        seconds.map(|seconds| Instant::now() + seconds)
    }
}

pub(super) fn captured(reply: Reply) -> Result<Captured, Failure> {
    match reply {
        Reply::Captured(captured) => Ok(captured),
        _ => Err(client::unexpected()),
    }
}

/// Ctrl-C and its like, to be asked for between two reads.
pub(super) fn signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()
        .map_err(|errno| anyhow!("handle signals: {errno}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| anyhow!("handle signals: {errno}"))
}

pub(super) fn was_told_to_end(signals: &SignalFd) -> bool {
    matches!(signals.read_signal(), Ok(Some(_)))
}

/// When a packet came, as RFC 3339 writes it.
pub(super) fn time(seen: &Seen) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_nanos(seen.time_ns))
}

/// A packet as a line of JSON has it.
pub(super) fn object(seen: &Seen, flows: &Flows) -> Value {
    let is_dropped = seen.action == Action::Dropped;
    let dropped_for = seen.reason.as_deref().filter(|_| is_dropped);
    json!({
        "schema": SCHEMA,
        "event": "packet",
        "time": time(seen),
        "verdict": verdict(seen.action),
        "reason": seen.reason,
        // A reason to leave it to the kernel may have the same name.
        "rule": dropped_for.and_then(rule_of),
        "text": seen.text,
        "endpoint": seen.endpoint,
        "peer": seen.peer,
        "flow": flows.inner,
        "outer": flows.outer,
        "vni": flows.vni,
        "bytes": seen.before.length,
        "program": seen.program,
        "device": seen.device,
    })
}

/// How many packets there are besides, as a line of JSON has it.
pub(super) fn left_out(packets: u64) -> Value {
    json!({ "schema": SCHEMA, "event": "left_out", "packets": packets })
}
