//! Messages of the programs, in the agent's log under the target `overlay`.

use aya::Ebpf;
use aya_log::{EbpfLogger, Error, Level};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    task::AbortHandle,
};
use tracing::{enabled, warn};

use super::failure::failed;
use crate::kernel::{KernelError, Result};

/// The task that reads them.
pub(super) struct Logs(AbortHandle);

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The level that programs are loaded with. It is fixed then: a message above it
/// costs nothing, one below it costs every packet that causes it.
pub(super) fn level() -> u8 {
    if enabled!(target: "overlay", tracing::Level::TRACE) {
        Level::Trace as u8
    } else if enabled!(target: "overlay", tracing::Level::DEBUG) {
        Level::Debug as u8
    } else {
        0
    }
}

/// Starts reading, when there is something to read, and a runtime to do it in.
pub(super) fn start(ebpf: &mut Ebpf) -> Result<Option<Logs>> {
    let Ok(runtime) = Handle::try_current() else {
        return Ok(None);
    };
    if level() == 0 {
        return Ok(None);
    }
    let operation = "read the messages of the programs";
    let logger = match EbpfLogger::init(ebpf) {
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
            match logger.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => {
                    warn!("{}", KernelError::io(operation, &error));
                    return;
                }
            }
        }
    });
    Ok(Some(Logs(task.abort_handle())))
}
