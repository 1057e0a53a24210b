//! Waiting for something that happens when it happens.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::error::{self, Error};

/// Far beyond what anything here takes, so that only "never" fails a test.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is as expected, and returns it; the error tells the last one.
pub fn until<T: fmt::Debug, E: fmt::Debug>(
    mut ask: impl FnMut() -> Result<T, E>,
    is_expected: impl Fn(&T) -> bool,
) -> error::Result<T> {
    let mut expected = None;
    let outcome = until_well(|| match ask() {
        Ok(answer) if is_expected(&answer) => {
            expected = Some(answer);
            None
        }
        other => Some(format!("{other:?}")),
    });
    match (expected, outcome) {
        (Some(answer), _) => Ok(answer),
        (None, outcome) => Err(Error::Never(outcome.err().unwrap_or_default())),
    }
}

/// Repeats what fails until it succeeds, and returns its outcome; in the end, the last error.
pub fn until_ok<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Err(_) if Instant::now() <= deadline => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Asks until the answer is `None`; returns the last complaint when it never is.
pub fn until_well<C: fmt::Display>(ask: impl FnMut() -> Option<C>) -> Result<(), String> {
    until_well_within(DEADLINE, ask)
}

/// [`until_well`], for what takes longer on some machines.
pub fn until_well_within<C: fmt::Display>(
    limit: Duration,
    mut ask: impl FnMut() -> Option<C>,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while let Some(complaint) = ask() {
        if Instant::now() > deadline {
            return Err(format!("still after {} s: {complaint}", limit.as_secs()));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
