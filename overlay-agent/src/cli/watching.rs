//! The present captures: for people who wonder why other programs are attached.

use std::io::{self, Write};

use overlay_control::{
    FastPathState, Status,
    capture::{CaptureStatus, Wanted},
};
use overlay_core::{model::LogLevel, trouble::for_instance};
use overlay_insight::stats::ago;

use super::called;

/// A line for a capture, one for messages in the log, and one for names; nothing without them.
pub(super) fn print(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    if let Some(capture) = &status.capture {
        writeln!(out, "{}", line(capture))?;
    }
    if status.log_level != LogLevel::Off {
        writeln!(out, "packet log: {}", status.log_level)?;
    }
    if let Some(names) = &status.names {
        let at: Vec<String> = names.at.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "names {}  answered at {}  own {}  of peers {}  forwarded {}  failed {}",
            names.zone,
            if at.is_empty() {
                "-".to_owned()
            } else {
                at.join(",")
            },
            names.answered,
            names.asked_of_peers,
            names.forwarded,
            names.failed,
        )?;
    }
    Ok(())
}

/// Tells whoever looks at packets why there are none to see, where the programs are not attached.
pub(super) fn tell_if_blind(status: &Status) {
    let why = match status.fastpath.state {
        FastPathState::On => return,
        FastPathState::Off => {
            "the fast path is off; switch it on with \"overlay-agent fastpath on\""
        }
        FastPathState::Unavailable => {
            "the fast path is unavailable; \"overlay-agent status\" says why"
        }
    };
    let why = for_instance(why, &status.instance);
    let why = called::pasteable(&why);
    eprintln!("overlay-agent: the programs see no packet now: {why}");
}

fn line(capture: &CaptureStatus) -> String {
    let by = capture.by;
    let since = ago(capture.age_ms);
    let what = capture.wanted.called();
    format!(
        "{what} by {by}  started {since}  of {}",
        filter(&capture.wanted)
    )
}

/// Names of a kind that a line has room for.
const MOST: usize = 4;

fn filter(wanted: &Wanted) -> String {
    let mut parts = Vec::new();
    let mut add = |what: &str, names: &[String]| {
        if !names.is_empty() {
            let (shown, more) = if names.len() > MOST {
                (&names[..2], format!(" and {} more", names.len() - 2))
            } else {
                (names, String::new())
            };
            parts.push(format!("{what} {}{more}", shown.join(",")));
        }
    };
    add("endpoint", wanted.endpoint.as_slice());
    add("peer", wanted.peer.as_slice());
    add("reason", &wanted.reasons);
    add("program", &wanted.hooks);
    if parts.is_empty() {
        parts.push("all packets".to_owned());
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use overlay_control::Caller;

    use super::*;

    #[test]
    fn who_watches_what_is_told() {
        let mut capture = CaptureStatus {
            by: Caller {
                user: 0,
                process: Some(4711),
            },
            since: "2026-11-29T10:00:00.000Z".to_owned(),
            age_ms: 12_500,
            wanted: Wanted::default(),
        };
        assert_eq!(
            line(&capture),
            "capture by process 4711 of user 0  started 12 s ago  of all packets"
        );
        capture.by.process = None;
        capture.wanted.endpoint = Some("web".to_owned());
        capture.wanted.reasons = vec!["dropped".to_owned(), "no_route".to_owned()];
        assert_eq!(
            line(&capture),
            "capture by a process of user 0  started 12 s ago  of endpoint web  reason dropped,no_route"
        );
        capture.wanted.monitor = true;
        assert!(line(&capture).starts_with("monitor by a process of user 0  started"));
        capture.wanted.monitor = false;
        let more = ["ttl_expired", "too_big", "fragment"].map(str::to_owned);
        capture.wanted.reasons.extend(more);
        assert_eq!(
            line(&capture),
            "capture by a process of user 0  started 12 s ago  of endpoint web  reason dropped,no_route and 3 more"
        );
    }
}
