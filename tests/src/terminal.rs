//! A terminal that tests can type into and read.

use std::time::Duration;

use crate::{Error, Result, poll, run};

/// Its size in columns and rows, until it is given another one.
pub const USUAL: (usize, usize) = (80, 24);
/// A peer is missed after a few seconds, and a loaded machine is slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// A terminal that goes when the value goes. Its server is nobody else's.
#[derive(Debug)]
pub struct Terminal {
    name: String,
}

impl Terminal {
    /// Opens one with a program in it, which a shell starts.
    ///
    /// # Errors
    /// When there is no tmux, or it cannot start.
    pub fn open(name: &str, program: &str) -> Result<Self> {
        let terminal = Self {
            name: name.to_owned(),
        };
        let (columns, rows) = USUAL;
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            program,
        ])?;
        Ok(terminal)
    }

    /// Runs a command of tmux's.
    ///
    /// # Errors
    /// When it fails, or there is no tmux: `cargo xtask setup` brings it.
    pub fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let own = ["tmux", "-L", &self.name];
        let argv: Vec<String> = own
            .iter()
            .chain(arguments)
            .map(|&word| word.to_owned())
            .collect();
        run::checked(&argv)
    }

    /// Types a line, and Enter.
    ///
    /// # Errors
    /// As [`Self::tmux`].
    pub fn enter(&self, line: &str) -> Result<()> {
        self.write(line)?;
        self.press("Enter")
    }

    /// Types some text.
    ///
    /// # Errors
    /// As [`Self::tmux`].
    pub fn write(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Presses a key, by tmux's name for it.
    ///
    /// # Errors
    /// As [`Self::tmux`].
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// As [`Self::tmux`].
    pub fn resize(&self, (columns, rows): (usize, usize)) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows])
            .map(drop)
    }

    /// The screen's text.
    ///
    /// # Errors
    /// As [`Self::tmux`].
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until nothing is missing on the screen.
    ///
    /// # Errors
    /// When something is missing for ever, with what there is.
    pub fn until(&self, missing: impl Fn(&str) -> Option<String>) -> Result<String> {
        let mut last = String::new();
        let shown = poll::until_well_within(PATIENCE, || {
            last = self.screen().unwrap_or_else(|error| error.to_string());
            missing(&last).map(|what| format!("no {what:?} in\n{last}"))
        });
        shown.map_err(Error::Screen)?;
        Ok(last)
    }

    /// Waits until all of some texts are on the screen.
    ///
    /// # Errors
    /// When something is missing for ever, with what there is.
    pub fn shows(&self, marks: &[&str]) -> Result<String> {
        self.until(|screen| missing(screen, marks))
    }

    /// Waits until all of some texts are in the line that has a name.
    ///
    /// # Errors
    /// When something is missing for ever, with what there is.
    pub fn shows_of(&self, name: &str, marks: &[&str]) -> Result<String> {
        self.until(|screen| {
            let line = screen.lines().find(|line| line.contains(name));
            line.map_or_else(|| Some(name.to_owned()), |line| missing(line, marks))
        })
    }
}

fn missing(text: &str, marks: &[&str]) -> Option<String> {
    let missing = marks.iter().find(|mark| !text.contains(**mark));
    missing.map(|mark| (*mark).to_owned())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = self.tmux(&["kill-server"]) {
            eprintln!("terminal {} was not closed: {error:#}", self.name);
        }
    }
}
