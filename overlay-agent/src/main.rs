//! The command line of the agent.

use std::process::ExitCode;

use clap::Parser as _;
use overlay_agent::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
