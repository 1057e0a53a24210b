//! `overlay-agent top`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::anyhow;

use super::{CommandResult, Failure, local, stats};
use crate::{dirs::Dirs, model::Name, top};

/// How often to look.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = stats::seconds)]
    interval: Duration,
}

pub(super) fn top(dirs: &Dirs, instance: Option<&Name>, args: &Args) -> CommandResult {
    if !io::stdout().is_terminal() {
        return Err(Failure::BadInput(anyhow!(
            "draw on standard output: it is no terminal; use \"overlay-agent stats --watch\""
        )));
    }
    let ask = || stats::ask(dirs, instance, false).map_err(Failure::into_error);
    local::block_on(top::run(ask, args.interval))?.map_err(Failure::Problem)
}
