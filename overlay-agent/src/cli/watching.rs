//! Who looks at packets just now: for people who wonder why other programs are attached.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    api::{
        Status,
        capture::{CaptureStatus, Wanted},
    },
    model::LogLevel,
    stats::ago,
};

/// A line for a capture, and one for messages in the log; nothing without them.
pub(super) fn print(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    if let Some(capture) = &status.capture {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        writeln!(out, "{}", line(capture, now))?;
    }
    if status.log_level != LogLevel::Off {
        writeln!(
            out,
            "log level {}  the programs tell the agent's log of packets",
            status.log_level
        )?;
    }
    Ok(())
}

fn line(capture: &CaptureStatus, now_ms: u64) -> String {
    let by = match capture.by.process {
        Some(process) => format!("process {process} of user {}", capture.by.user),
        None => format!("user {}", capture.by.user),
    };
    let since = ago(now_ms.saturating_sub(capture.since_ms));
    format!(
        "capture by {by}  started {since}  of {}",
        filter(&capture.wanted)
    )
}

fn filter(wanted: &Wanted) -> String {
    let mut parts = Vec::new();
    let mut add = |what: &str, names: &[String]| {
        if !names.is_empty() {
            parts.push(format!("{what} {}", names.join(",")));
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
    use super::*;
    use crate::api::Caller;

    #[test]
    fn who_watches_what_is_told() {
        let mut capture = CaptureStatus {
            by: Caller {
                user: 0,
                process: Some(4711),
            },
            since_ms: 1_000,
            wanted: Wanted::default(),
        };
        assert_eq!(
            line(&capture, 13_500),
            "capture by process 4711 of user 0  started 12 s ago  of all packets"
        );
        capture.by.process = None;
        capture.wanted.endpoint = Some("web".to_owned());
        capture.wanted.reasons = vec!["dropped".to_owned(), "no_route".to_owned()];
        // Clocks of people may be set back.
        assert_eq!(
            line(&capture, 0),
            "capture by user 0  started 0 s ago  of endpoint web  reason dropped,no_route"
        );
    }
}
