//! Waiting for something that happens when it happens.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

/// Far beyond what anything here takes, so that only "never" fails a test.
const DEADLINE: Duration = Duration::from_secs(30);

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
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
