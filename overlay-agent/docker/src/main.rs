//! Attaches Docker's containers to overlay networks.
//!
//! dockerd asks by HTTP on a socket in `/run/docker/plugins`, whose name is the driver's name
//! (`docs/extend/plugins_network.md` of docker/cli, `libnetwork/docs/remote.md` and `ipam.md` of moby/moby).
//! Each question ends as a request on the agent's socket: the agent gives the address, makes the interface
//! and keeps it. What Docker says of a network or an endpoint once, and never repeats, is remembered in
//! files, so that this program can be ended and started at any time.

mod door;
mod driver;
mod ipam;
mod memory;
mod protocol;
mod trouble;

use std::{env, path::PathBuf, process::ExitCode, sync::Arc};

use driver::Driver;

/// Where dockerd looks for drivers; the file's name is the driver's.
const SOCKET: &str = "/run/docker/plugins/overlay-agent.sock";

const USAGE: &str = "\
Network driver of the overlay agent for Docker 28 and later.

Usage: overlay-docker [SOCKET]

SOCKET is /run/docker/plugins/overlay-agent.sock unless it is given; its name is the name of the driver.
Started by systemd for a socket, it listens at that one.

  docker network create -d overlay-agent --ipam-driver overlay-agent NAME
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let socket = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => PathBuf::from(SOCKET),
        (Some("--help" | "-h"), None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        (Some("--version" | "-V"), None) => {
            println!("overlay-docker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        (Some(socket), None) if !socket.starts_with('-') => PathBuf::from(socket),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay-docker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: PathBuf) -> Result<(), door::DoorError> {
    let driver = Arc::new(Driver::of_environment());
    // Few ask, and what takes time is the agent's answer, for which a thread of its own waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(door::DoorError::Runtime)?
        .block_on(door::open(socket, driver))
}
