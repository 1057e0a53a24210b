//! Ends what was started when whoever started it ends.

use std::{
    io,
    os::unix::process::{CommandExt as _, parent_id},
    process::{self, Command},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

/// Has the kernel kill a command's process as soon as the thread that starts it is gone, however
/// that ends: a signal to this program alone leaves nothing behind.
///
/// So the thread has to wait for the command.
pub(super) fn tie(command: &mut Command) {
    let parent = process::id();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Whoever has ended before will not end again.
        if parent_id() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec, in the child of a process with threads, only what is
    // async-signal-safe may be called. `tie` calls prctl and getppid, which are system calls alone,
    // and touches nothing but a number of its own: an error's kind or number is kept in place, so
    // nothing is allocated, and no lock is taken.
    unsafe { command.pre_exec(tie) };
}

#[cfg(test)]
mod tests {
    use std::{io, os::unix::process::ExitStatusExt as _, process::Command, thread};

    use nix::libc::SIGKILL;

    use super::tie;

    #[test]
    fn a_command_ends_with_the_thread_that_started_it() -> io::Result<()> {
        let mut hour = Command::new("sleep");
        tie(hour.arg("3600"));
        let started = thread::spawn(move || hour.spawn()).join();
        let mut child = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        assert_eq!(child.wait()?.signal(), Some(SIGKILL));
        Ok(())
    }
}
