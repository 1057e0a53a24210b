//! `overlay-agent stats`: what has been counted, and with `--watch` how fast.

mod text;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use overlay_control::{Reply, Request, rfc3339, stats::Stats};
use overlay_core::{dirs::Dirs, model::Name};
use overlay_insight::stats::rates;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::{CommandResult, Failure, Format, client, local, output};

/// Shortest time between two looks in seconds.
const FASTEST: f64 = 0.1;
/// Takes the cursor to the upper left corner, and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What to show, and how often.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show peers without traffic, too
    #[arg(long)]
    all: bool,
    /// Show rates per second, again and again until Ctrl-C, this many seconds apart
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,
}

/// A time between two looks.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "it is not a number of seconds, such as 1 or 0.5".to_owned())?;
    if seconds < FASTEST {
        return Err(format!("the interval must be at least {FASTEST} s"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

pub(super) fn stats(
    dirs: &Dirs,
    instance: Option<&Name>,
    format: Format,
    args: &Args,
) -> CommandResult {
    let ask = || ask(dirs, instance, args.all);
    match args.watch {
        None => show(&ask()?, format, args.all),
        Some(pause) => local::block_on(watch(ask, pause, format, args.all))?,
    }
}

/// Asks the agent.
pub(super) fn ask(dirs: &Dirs, instance: Option<&Name>, all: bool) -> Result<Stats, Failure> {
    match client::ask(dirs, instance.cloned(), &Request::Stats { all })? {
        Reply::Stats(stats) => Ok(*stats),
        _ => Err(client::unexpected()),
    }
}

fn show(stats: &Stats, format: Format, all: bool) -> CommandResult {
    output::print(|out| match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(stats)?),
        Format::Text => out.write_all(text::totals(stats, all).as_bytes()),
    })
    .map_err(Failure::Problem)
}

/// Shows rates until somebody ends it.
async fn watch(
    ask: impl Fn() -> Result<Stats, Failure>,
    pause: Duration,
    format: Format,
    all: bool,
) -> CommandResult {
    let mut interrupt = signal(SignalKind::interrupt())
        .context("handle signals")
        .map_err(Failure::Problem)?;
    let mut terminate = signal(SignalKind::terminate())
        .context("handle signals")
        .map_err(Failure::Problem)?;
    let clears = format == Format::Text && io::stdout().is_terminal();
    let mut before = ask()?;
    let mut next = Instant::now();
    loop {
        next += pause;
        tokio::select! {
            () = sleep_until(next) => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        let now = ask()?;
        let rates = rates(&before, &now);
        let shown = match format {
            // A line each, totals alone: whoever reads them subtracts as they like.
            Format::Json => serde_json::to_string(&now).map_err(|error| anyhow!(error)),
            Format::Text => Ok(text::rates(&rates, all, &rfc3339(SystemTime::now()))),
        };
        let shown = shown.map_err(Failure::Problem)?;
        let mut out = io::stdout().lock();
        let clear = if clears { CLEAR } else { "" };
        let written = writeln!(out, "{clear}{}", shown.trim_end()).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other
                .context("write to standard output")
                .map_err(Failure::Problem)?,
        }
        before = now;
    }
}
