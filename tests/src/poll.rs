//! Waiting for something that happens when it happens.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

/// Far beyond what anything here takes, so that only "never" fails a test.
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks until the answer is `None`; returns the last complaint when it never is.
pub fn until_well<C: fmt::Display>(mut ask: impl FnMut() -> Option<C>) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    while let Some(complaint) = ask() {
        if Instant::now() > deadline {
            return Err(format!("still after {} s: {complaint}", DEADLINE.as_secs()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
