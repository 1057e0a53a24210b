//! `monitor`: a line for each packet that is dropped or left to the kernel.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use overlay_common::reasons::PassReason;
use overlay_control::{
    Reply, Request,
    capture::{Captured, Wanted},
    explain::Action,
};
use overlay_core::{dirs::Dirs, model::Name};
use overlay_insight::explain::{
    flow::{Flows, line},
    select::Choice,
};

use super::{
    CommandResult, Failure, Format, client, examples,
    packets::{HEADERS, Part, captured, left_out, object, signals, time, was_told_to_end},
    watching,
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = examples::MONITOR)]
pub(super) struct Args {
    #[command(flatten)]
    part: Part,
    /// Only packets with this reason, as counters name it, or all that were "forwarded", "passed"
    /// or "dropped"; can be given several times [default: dropped, and what was left to the kernel of
    /// tunnels and endpoints]
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Also the agents' own probes, which are left out unless they are dropped
    #[arg(long)]
    probes: bool,
    /// Packets that are printed in a second at most; 0: all
    #[arg(long, default_value_t = 200, value_name = "PACKETS")]
    rate: u64,
}

pub(super) fn monitor(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    args: Args,
) -> CommandResult {
    let choice = args.part.choice()?;
    let instance = client::the_instance(dirs, instance, Dirs::may_listen)?;
    let ask = |request: &Request| client::call(dirs, &instance, request);
    let signals = signals().map_err(Failure::Problem)?;
    let Reply::Status(status) = ask(&Request::Status {})? else {
        return Err(client::unexpected());
    };
    if format == Format::Text {
        watching::tell_if_blind(&status);
    }
    let end = args.part.end();
    let ports = status.networks.iter().map(|network| network.port).collect();
    let wanted = Wanted {
        endpoint: args.part.endpoint,
        peer: args.part.peer,
        reasons: reasons(args.reasons),
        hooks: Vec::new(),
        snap: HEADERS,
        monitor: true,
    };
    client::done(&ask(&Request::CaptureStart(wanted))?)?;
    if format == Format::Text {
        eprintln!("monitoring {instance}; Ctrl-C ends it");
    }
    let mut lines = Lines {
        format,
        ports,
        choice,
        probes: args.probes,
        left: args.part.count.unwrap_or(u64::MAX),
        rate: if args.rate == 0 { u64::MAX } else { args.rate },
        since: Instant::now(),
        printed: 0,
        left_out: 0,
        untold: 0,
    };
    let printed = loop {
        let captured = captured(ask(&Request::CaptureRead {})?)?;
        let goes_on = lines.print(&mut io::stdout().lock(), &captured);
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        match goes_on {
            Ok(true) if !is_over && !was_told_to_end(&signals) => {}
            other => break other,
        }
    };
    let rest = captured(ask(&Request::CaptureStop {})?)?;
    let out = &mut io::stdout().lock();
    let printed = printed
        .and_then(|_| lines.print(out, &rest))
        .and_then(|_| lines.settle(out));
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Problem(
            anyhow::Error::new(error).context("write to standard output"),
        )),
        _ => Ok(()),
    }
}

/// The reasons to ask for: most packets of the underlay are nobody's business here.
fn reasons(named: Vec<String>) -> Vec<String> {
    if !named.is_empty() {
        return named;
    }
    let passed = PassReason::ALL.iter();
    let passed = passed.filter(|reason| **reason != PassReason::NotOurs);
    let passed = passed.map(|reason| reason.name().to_owned());
    std::iter::once("dropped".to_owned())
        .chain(passed)
        .collect()
}

/// The lines that are printed, and their counts.
struct Lines {
    format: Format,
    /// The networks' UDP ports.
    ports: Vec<u16>,
    choice: Choice,
    /// Whether probes that arrive are printed.
    probes: bool,
    /// Packets that are still wanted.
    left: u64,
    /// Packets of a second.
    rate: u64,
    /// When the present second began.
    since: Instant,
    /// Lines that were printed.
    printed: u64,
    /// Lines that were not.
    left_out: u64,
    /// Events that the agent has missed since the beginning.
    untold: u64,
}

impl Lines {
    /// Whether more are wanted.
    fn print(&mut self, out: &mut impl Write, captured: &Captured) -> io::Result<bool> {
        if self.since.elapsed() >= SECOND {
            self.settle(out)?;
        }
        for packet in &captured.packets {
            if self.left == 0 {
                break;
            }
            let frame = hex::decode(&packet.before.hex).map_err(io::Error::other)?;
            let flows = Flows::of(&frame, &self.ports);
            let is_noise = !self.probes && packet.action != Action::Dropped && flows.are_probes();
            if is_noise || !self.choice.takes(&flows) {
                continue;
            }
            if self.printed >= self.rate {
                self.left_out += 1;
                continue;
            }
            match self.format {
                Format::Text => writeln!(out, "{} {}", time(packet), line(packet, &flows))?,
                Format::Json => writeln!(out, "{}", object(packet, &flows))?,
            }
            self.printed += 1;
            self.left -= 1;
        }
        let untold = captured.over_budget + captured.ring_full;
        self.left_out += untold.saturating_sub(self.untold);
        self.untold = untold;
        out.flush()?;
        Ok(self.left > 0)
    }

    /// Begins another second, and tells what was left out of the one before.
    fn settle(&mut self, out: &mut impl Write) -> io::Result<()> {
        (self.since, self.printed) = (Instant::now(), 0);
        let untold = std::mem::take(&mut self.left_out);
        if untold == 0 {
            return Ok(());
        }
        match self.format {
            Format::Text => writeln!(out, "{untold} more packets are not shown")?,
            Format::Json => writeln!(out, "{}", left_out(untold))?,
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use overlay_control::{
        capture::{Bytes, Captured, Seen},
        explain::Action,
    };

    use super::{Choice, Format, Lines, reasons};

    fn seen() -> Seen {
        Seen {
            time_ns: 1_000_000,
            program: "from_endpoint".to_owned(),
            device: "ovl-web".to_owned(),
            action: Action::Dropped,
            reason: Some("spoofed_source".to_owned()),
            text: "a text".to_owned(),
            peer: None,
            endpoint: Some("web".parse().unwrap()),
            handed_to: None,
            before: Bytes {
                length: 60,
                hex: String::new(),
            },
            after: None,
        }
    }

    fn usual() -> Lines {
        Lines {
            format: Format::Text,
            ports: Vec::new(),
            choice: Choice::of(&[]).unwrap(),
            probes: false,
            left: u64::MAX,
            rate: 2,
            since: Instant::now(),
            printed: 0,
            left_out: 0,
            untold: 0,
        }
    }

    #[test]
    fn a_flood_becomes_as_many_lines_as_were_asked_for() {
        let mut lines = usual();
        let flood = Captured {
            packets: vec![seen(); 5],
            over_budget: 3,
            ring_full: 4,
        };
        let mut out = Vec::new();
        assert!(lines.print(&mut out, &flood).unwrap());
        lines.settle(&mut out).unwrap();
        // The agent counts what it was not told from the beginning.
        assert!(
            lines
                .print(
                    &mut out,
                    &Captured {
                        packets: vec![],
                        ..flood
                    }
                )
                .unwrap()
        );
        lines.settle(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = "1970-01-01T00:00:00.001Z dropped spoofed_source  endpoint web  unreadable  \
                    bytes 60  at from_endpoint ovl-web";
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [line, line, "10 more packets are not shown"]
        );
    }

    #[test]
    fn probes_are_left_out_unless_they_are_dropped_or_asked_for() {
        use etherparse::PacketBuilder;
        let frame = |port: u16| {
            let headers = PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 0, 1, 1], [10, 0, 2, 1], 64)
                .udp(port, overlay_node::probe::PORT);
            let mut frame = Vec::new();
            headers.write(&mut frame, &[]).unwrap();
            hex::encode(frame)
        };
        let seen = |action, port| Seen {
            action,
            before: Bytes {
                length: 42,
                hex: frame(port),
            },
            ..seen()
        };
        let probe = overlay_node::probe::PORT;
        for (packet, probes, printed) in [
            (seen(Action::Passed, probe), false, 0),
            (seen(Action::Passed, probe), true, 1),
            (seen(Action::Dropped, probe), false, 1),
            (seen(Action::Passed, 999), false, 1),
        ] {
            let mut lines = Lines { probes, ..usual() };
            let captured = Captured {
                packets: vec![packet],
                ..Captured::default()
            };
            let mut out = Vec::new();
            lines.print(&mut out, &captured).unwrap();
            assert_eq!(String::from_utf8(out).unwrap().lines().count(), printed);
        }
    }

    #[test]
    fn what_is_forwarded_and_others_traffic_must_be_asked_for() {
        let usual = reasons(Vec::new());
        assert!(usual.iter().any(|name| name == "dropped"));
        assert!(usual.iter().any(|name| name == "no_route"));
        assert!(
            !usual
                .iter()
                .any(|name| name == "not_ours" || name == "forwarded")
        );
        assert_eq!(reasons(vec!["forwarded".to_owned()]), ["forwarded"]);
    }
}
