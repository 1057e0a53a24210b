//! Which core a thread runs on, so that the scheduler's choice changes nothing.

use std::{io, thread};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The cores that this process may use.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let is_set = |&core: &usize| set.is_set(core).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(is_set).collect())
}

/// Runs a function on a thread of its own that stays on one core; threads that it starts do too.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let pinned = || {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
        Ok(work())
    };
    thread::scope(|scope| {
        scope
            .spawn(pinned)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
