//! A program that the agent starts for what it must not do itself: it may do nothing but speak.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    libc,
    sys::{prctl, signal::Signal},
    unistd,
};

/// User and group without any rights.
const NOBODY: u32 = 65_534;

/// A command that runs as nobody, with no environment, without capabilities and the means to get
/// one; of open files it has its standard ones alone, because all others are closed by `exec`.
///
/// An agent that is not root cannot be somebody else: its helper is the same user then, and has no
/// capability either.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if unistd::geteuid().is_root() {
        // Also leaves all groups.
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: between fork and exec it makes system calls alone, and takes no lock or memory.
    unsafe { command.pre_exec(give_up) };
    command
}

/// Gives up what a change of the user does not take away.
fn give_up() -> std::io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the option takes numbers and touches no memory.
    Errno::result(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
            none,
            none,
            none,
        )
    })?;
    prctl::set_no_new_privs()?;
    // So it does not outlive an agent that is killed.
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    Ok(())
}
