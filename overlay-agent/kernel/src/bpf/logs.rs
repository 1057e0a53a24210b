//! Messages of the programs: what they have to say of packets, for the agent's log.
//!
//! A flood of packets must not become a flood of lines: the log gets so many a second, and is
//! told how many it did not get.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::Ebpf;
use aya_log::{EbpfLogger, Error};
use log::{Log, Metadata, Record};
use overlay_core::model::LogLevel;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{enabled, warn};

use super::{Event, failure::failed};
use crate::{KernelError, Result};

/// Lines a second: fewer than the ring holds, which is 39 messages of the programs'. So a ring that was
/// full, where others found no room, is told of.
const LINES: u32 = 30;
const SECOND: Duration = Duration::from_secs(1);
/// How long messages gather before they are read: the ring of a flood is not worth a core.
const REST: Duration = Duration::from_millis(50);

/// The task that reads them, and what it has read.
pub(super) struct Logs {
    task: AbortHandle,
    read: Option<UnboundedReceiver<Event>>,
}

impl Logs {
    /// The messages from now on; can be taken once, and ends when other programs take the place of these.
    pub(super) fn take(&mut self) -> Option<UnboundedReceiver<Event>> {
        self.read.take()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The level that the agent's own log asks for.
pub(super) fn level() -> LogLevel {
    if enabled!(target: "overlay", tracing::Level::TRACE) {
        LogLevel::Debug
    } else if enabled!(target: "overlay", tracing::Level::DEBUG) {
        LogLevel::Warn
    } else {
        LogLevel::Off
    }
}

/// Starts reading, when there is something to read, and a runtime to do it in.
pub(super) fn start(ebpf: &mut Ebpf, level: LogLevel) -> Result<Option<Logs>> {
    let Ok(runtime) = Handle::try_current() else {
        return Ok(None);
    };
    if level == LogLevel::Off {
        return Ok(None);
    }
    let operation = "read the messages of the programs";
    let allowance = Arc::<Mutex<Allowance>>::default();
    let (sender, read) = unbounded_channel();
    let relay = Relay {
        allowance: allowance.clone(),
        to: sender,
    };
    let logger = match EbpfLogger::init_with_logger(ebpf, relay) {
        Ok(logger) => logger,
        // Without messages in them, programs have no such map.
        Err(Error::MapNotFound) => return Ok(None),
        Err(error) => return Err(failed(operation, &error)),
    };
    // SAFETY: the logger owns the descriptor of its ring buffer from here until it is
    // dropped, and `as_raw_fd` returns no other.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = logger.map_err(|error| KernelError::io(operation, &error.into_parts().1))?;
    let task = runtime.spawn(async move {
        loop {
            // What was left out is told also when nothing follows it.
            match timeout(SECOND, logger.readable_mut()).await {
                Ok(Ok(mut ready)) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                    sleep(REST).await;
                }
                Ok(Err(error)) => {
                    warn!("{}", KernelError::io(operation, &error));
                    return;
                }
                Err(_) => {}
            }
            lock(&allowance).settle(Instant::now());
        }
    });
    Ok(Some(Logs {
        task: task.abort_handle(),
        read: Some(read),
    }))
}

/// Hands on what it gets, as long as that is not too much.
struct Relay {
    allowance: Arc<Mutex<Allowance>>,
    // Bounded by the allowance.
    to: UnboundedSender<Event>,
}

impl Log for Relay {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if !lock(&self.allowance).takes(Instant::now()) {
            return;
        }
        let text = record.args().to_string();
        let sighting = hex::decode(&text).ok();
        if let Some(event) = sighting.and_then(|sighting| Event::of_message(&sighting)) {
            // Nobody listens when other programs are taking the place of these.
            drop(self.to.send(event));
        } else {
            warn!(target: "overlay", "{text}");
        }
    }

    fn flush(&self) {}
}

fn lock(allowance: &Mutex<Allowance>) -> MutexGuard<'_, Allowance> {
    // Whoever panicked with it has left numbers, all of which are good.
    allowance.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many lines the present second has had.
#[derive(Default)]
struct Allowance {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Allowance {
    /// Whether there is room for one more.
    fn takes(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.since.get_or_insert(now);
        if self.written < LINES {
            self.written += 1;
            return true;
        }
        self.left_out += 1;
        false
    }

    /// Begins another second when one is over, and tells what it has left out.
    fn settle(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now < since + SECOND) {
            return;
        }
        let Self { left_out, .. } = std::mem::take(self);
        if left_out > 0 {
            warn!(
                target: "overlay",
                "{left_out} more messages of the programs in a second were left out, and maybe others before"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Allowance, LINES, SECOND};

    #[test]
    fn a_flood_becomes_few_lines_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        let taken = |allowance: &mut Allowance, at: Instant| {
            (0..10_000).filter(|_| allowance.takes(at)).count()
        };
        assert_eq!(taken(&mut allowance, start), LINES as usize);
        let later = start + Duration::from_millis(999);
        assert_eq!(taken(&mut allowance, later), 0);
        assert_eq!(allowance.left_out, 20_000 - u64::from(LINES));
        assert_eq!(taken(&mut allowance, start + SECOND), LINES as usize);
        assert_eq!(allowance.left_out, 10_000 - u64::from(LINES));
        allowance.settle(start + SECOND + SECOND);
        assert_eq!((allowance.left_out, allowance.written), (0, 0));
    }
}
