//! `ping`: whether packets of a container arrive, how long they take and how large they may be.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap_complete::ArgValueCompleter;
use overlay_control::{
    Reply, Request, SCHEMA,
    ping::{Outcome, Ping, Pinged},
};
use overlay_core::{
    dirs::Dirs,
    model::{Endpoint, Name},
};
use serde_json::{Value, json};

use super::{
    CommandResult, Failure, Format, client, completing, examples, output,
    packets::{signals, was_told_to_end},
};

/// A kernel says once a second that nobody listens: who is asked more often does not answer.
const PACE: Duration = Duration::from_millis(1100);
/// The smallest MTU that anything has that carries IP (RFC 791 §3.2: 576 bytes can be taken in).
const SMALLEST: u16 = 576;

#[derive(Debug, clap::Args)]
#[command(after_help = examples::PING)]
pub(super) struct Args {
    /// Who is to answer: a peer, an endpoint of this node, or any container's address
    #[arg(value_name = "PEER|ENDPOINT|ADDRESS", add = ArgValueCompleter::new(completing::peers))]
    to: String,
    /// Who asks: an endpoint of this node, or "node" [default: an endpoint of the network]
    #[arg(long, add = ArgValueCompleter::new(completing::endpoints))]
    from: Option<String>,
    /// Ask by IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// Packets to send
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Bytes of the IP packet, which is not fragmented [default: the smallest]
    #[arg(short, long)]
    size: Option<u16>,
    /// Seconds to wait for each answer, up to 10
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    timeout: u32,
    /// Do not look for the largest packet that arrives
    #[arg(long)]
    no_mtu: bool,
}

pub(super) fn ping(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    args: &Args,
) -> CommandResult {
    let instance = client::the_instance(dirs, instance, Dirs::may_listen)?;
    let signals = signals().map_err(Failure::Problem)?;
    let ask = |size: u16| {
        let request = Request::Ping(Ping {
            to: args.to.clone(),
            from: args.from.clone(),
            ipv6: args.ipv6,
            size,
            patience_ms: args.timeout * 1000,
        });
        match client::call(dirs, &instance, &request)? {
            Reply::Pinged(pinged) => Ok(*pinged),
            _ => Err(client::unexpected()),
        }
    };
    let mut all = Vec::new();
    for number in 1..=args.count {
        let start = Instant::now();
        let pinged = ask(args.size.unwrap_or_default())?;
        if format == Format::Text {
            let line = line(number, &pinged);
            output::print(|out| writeln!(out, "{line}")).map_err(Failure::Problem)?;
        }
        all.push(pinged);
        if was_told_to_end(&signals) {
            break;
        }
        thread::sleep(PACE.saturating_sub(start.elapsed()));
    }
    let mut summary = Summary::of(&all);
    if summary.answered > 0 && !args.no_mtu {
        let mtu = all.first().and_then(|pinged| pinged.mtu);
        summary.path_mtu = mtu.map_or(Ok(None), |mtu| largest(mtu, &ask))?;
    }
    output::print(|out| match format {
        Format::Text => writeln!(out, "{}", summary.text()),
        Format::Json => writeln!(out, "{:#}", summary.value(&all)),
    })
    .map_err(Failure::Problem)?;
    if summary.answered > 0 {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

/// The largest packet that is answered, of those that the network's devices take: nearly always
/// the first that is tried.
fn largest(
    mtu: u16,
    ask: &impl Fn(u16) -> Result<Pinged, Failure>,
) -> Result<Option<u16>, Failure> {
    let answered = |size: u16| -> Result<bool, Failure> {
        let arrives = ask(size)?.outcome == Outcome::Answered;
        thread::sleep(PACE);
        Ok(arrives)
    };
    if answered(mtu)? {
        return Ok(Some(mtu));
    }
    if mtu <= SMALLEST || !answered(SMALLEST)? {
        return Ok(None);
    }
    let (mut good, mut bad) = (SMALLEST, mtu);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if answered(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::TooBig => "too big for a link on the way",
        Outcome::Silent => "no answer",
        Outcome::Unsent => "not sent: the sender has no way, or its own filter",
    }
}

fn milliseconds(ns: u64) -> String {
    // Microseconds are enough: the scheduler of either end takes more.
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}

fn sender(pinged: &Pinged) -> &str {
    let endpoint = pinged.endpoint.as_ref();
    endpoint.map_or(Endpoint::NODE, Name::as_str)
}

fn line(number: u32, pinged: &Pinged) -> String {
    let came = match pinged.rtt_ns {
        Some(ns) => milliseconds(ns),
        None => word(pinged.outcome).to_owned(),
    };
    format!(
        "{number}: {} ({}) → {} in {}: {came}",
        sender(pinged),
        pinged.from,
        pinged.to,
        pinged.network
    )
}

/// The summary of all pings.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    sent: usize,
    answered: usize,
    /// Shortest, mean and longest round trip, in nanoseconds.
    rtt: Option<[u64; 3]>,
    path_mtu: Option<u16>,
}

impl Summary {
    fn of(all: &[Pinged]) -> Self {
        let times: Vec<u64> = all.iter().filter_map(|pinged| pinged.rtt_ns).collect();
        let number = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let mean = times.iter().sum::<u64>().checked_div(number);
        let ends = times.iter().min().zip(times.iter().max());
        Self {
            sent: all.len(),
            answered: times.len(),
            rtt: ends
                .zip(mean)
                .map(|((shortest, longest), mean)| [*shortest, mean, *longest]),
            path_mtu: None,
        }
    }

    fn text(&self) -> String {
        let lost = self.sent - self.answered;
        let percent = (lost * 100).checked_div(self.sent).unwrap_or_default();
        let mut parts = vec![format!(
            "{} sent, {} answered, {percent} % lost",
            self.sent, self.answered
        )];
        if let Some(times) = self.rtt {
            let [shortest, mean, longest] = times.map(milliseconds);
            parts.push(format!(
                "round trip {shortest} min, {mean} mean, {longest} max"
            ));
        }
        if let Some(mtu) = self.path_mtu {
            parts.push(format!("packets of {mtu} bytes arrive"));
        }
        parts.join("; ")
    }

    fn value(&self, all: &[Pinged]) -> Value {
        let answers = all
            .iter()
            .map(|pinged| json!({ "outcome": pinged.outcome, "rtt_ns": pinged.rtt_ns }));
        let first = all.first();
        json!({
            "schema": SCHEMA,
            "endpoint": first.and_then(|pinged| pinged.endpoint.clone()),
            "from": first.map(|pinged| pinged.from),
            "to": first.map(|pinged| pinged.to),
            "network": first.map(|pinged| pinged.network.clone()),
            "answers": answers.collect::<Vec<_>>(),
            "sent": self.sent,
            "answered": self.answered,
            "lost": self.sent - self.answered,
            "rtt": self.rtt.map(|[min, mean, max]| {
                json!({ "min_ns": min, "mean_ns": mean, "max_ns": max })
            }),
            "path_mtu": self.path_mtu,
        })
    }
}

#[cfg(test)]
mod tests {
    use overlay_control::ping::{Outcome, Pinged};

    use super::Summary;

    fn pinged(rtt_ns: Option<u64>) -> Pinged {
        Pinged {
            endpoint: None,
            from: [10, 0, 1, 1].into(),
            to: [10, 0, 2, 1].into(),
            network: "lab".parse().unwrap(),
            mtu: Some(1450),
            outcome: rtt_ns.map_or(Outcome::Silent, |_| Outcome::Answered),
            rtt_ns,
        }
    }

    #[test]
    fn what_was_lost_is_no_round_trip() {
        let all = [
            pinged(Some(1_000_000)),
            pinged(None),
            pinged(Some(3_000_000)),
        ];
        let mut summary = Summary::of(&all);
        summary.path_mtu = Some(1450);
        assert_eq!(summary.rtt, Some([1_000_000, 2_000_000, 3_000_000]));
        assert_eq!(
            summary.text(),
            "3 sent, 2 answered, 33 % lost; round trip 1.000 ms min, 2.000 ms mean, 3.000 ms max; \
             packets of 1450 bytes arrive"
        );
        assert_eq!(summary.value(&all)["lost"], 1);
        let nothing = Summary::of(&[pinged(None)]);
        assert_eq!(nothing.text(), "1 sent, 0 answered, 100 % lost");
        assert!(nothing.value(&[])["rtt"].is_null());
    }
}
