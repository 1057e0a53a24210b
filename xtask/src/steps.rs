//! The time of each step of a long command, told at its end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};

use crate::console::Console;

/// Steps in the order in which they ended.
pub(crate) struct Steps {
    console: Console,
    done: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    /// The processors' time of all programs that ended meanwhile.
    busy: Duration,
}

impl Steps {
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            done: Vec::new(),
        }
    }

    /// Takes a step, whose time counts whether or not it ends well.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let (began, before) = (Instant::now(), busy()?);
        let outcome = step();
        self.done.push(Step {
            name,
            took: began.elapsed(),
            busy: busy()?.saturating_sub(before),
        });
        outcome
    }

    /// Says where the time went.
    pub(crate) fn tell(&self) {
        let sum = |of: fn(&Step) -> Duration| self.done.iter().map(of).sum();
        let all = Step {
            name: "all",
            took: sum(|step| step.took),
            busy: sum(|step| step.busy),
        };
        for step in self.done.iter().chain([&all]) {
            self.console.say(
                "time",
                format_args!(
                    "{:>5} s, processors {:>5} s: {}",
                    step.took.as_secs(),
                    step.busy.as_secs(),
                    step.name
                ),
            );
        }
    }
}

/// What all programs that this one has started, and waited for, have taken of processors.
fn busy() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask what programs took")?;
    let times = [usage.user_time(), usage.system_time()];
    let micros = times
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum::<i64>();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, ensure};

    use super::Steps;
    use crate::console::Console;

    #[test]
    fn a_step_that_fails_counts_too() -> Result<()> {
        let mut steps = Steps::new(Console::default());
        assert_eq!(steps.take("one", || Ok(1))?, 1);
        let failed = steps.take("two", || {
            ensure!(1 > 2, "no");
            Ok(())
        });
        assert!(failed.is_err());
        let names: Vec<&str> = steps.done.iter().map(|step| step.name).collect();
        assert_eq!(names, ["one", "two"]);
        Ok(())
    }
}
