//! `overlay-agent top`: a live view of a node in a terminal. It asks the daemon's API, as
//! everybody does.

mod app;
mod health;
mod history;
#[cfg(test)]
mod samples;
mod tables;
mod view;

use std::{io, time::Duration};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use self::app::{Answer, App};

pub(crate) use self::app::Look;

/// How long a key waits to be seen at most.
const TICK: Duration = Duration::from_millis(40);

/// Shows what `ask` tells, a `pause` apart, until somebody ends it.
///
/// Whatever ends it, a panic too, leaves the terminal as it was.
pub(crate) async fn run(
    ask: impl Fn() -> anyhow::Result<Look>,
    pause: Duration,
) -> anyhow::Result<()> {
    // Not the hangup: it ends the process at once, which has no terminal to restore any more, and
    // would wait for keys of it without end.
    let mut ends = [
        ending(SignalKind::terminate())?,
        ending(SignalKind::interrupt())?,
    ];
    // Before the terminal is changed: whoever cannot ask is told in plain words.
    let mut app = App::new(ask()?);
    let mut terminal = ratatui::try_init().context("use the terminal")?;
    let shown = show(&mut terminal, &mut app, &ask, pause, &mut ends).await;
    ratatui::try_restore().context("restore the terminal")?;
    shown
}

fn ending(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("handle signals")
}

async fn show(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    ask: &impl Fn() -> anyhow::Result<Look>,
    pause: Duration,
    [terminate, interrupt]: &mut [Signal; 2],
) -> anyhow::Result<()> {
    let mut next = Instant::now() + pause;
    let mut changed = true;
    loop {
        if changed {
            terminal
                .draw(|frame| view::draw(frame, app))
                .context("draw")?;
        }
        tokio::select! {
            () = sleep(TICK) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
        changed = false;
        while let Some(event) = pending().context("read the keyboard")? {
            changed = true;
            match event {
                Event::Key(key)
                    if key.kind == KeyEventKind::Press && app.press(key) == Answer::Quit =>
                {
                    return Ok(());
                }
                // Such as another size: it is drawn anew.
                _ => {}
            }
        }
        if Instant::now() >= next {
            next = Instant::now() + pause;
            changed = true;
            // An agent that restarts answers again soon.
            match ask() {
                Ok(next) => app.take(next),
                Err(error) => app.silent(format!("{error:#}")),
            }
        }
    }
}

/// The next event of the terminal, if there is one.
fn pending() -> io::Result<Option<Event>> {
    if event::poll(Duration::ZERO)? {
        event::read().map(Some)
    } else {
        Ok(None)
    }
}
