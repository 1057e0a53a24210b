//! The command line of the agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    overlay_agent::cli::main()
}
