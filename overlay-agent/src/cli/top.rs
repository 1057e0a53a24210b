//! `overlay-agent top`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::anyhow;
use overlay_control::{Mesh, Reply, Request};
use overlay_core::{dirs::Dirs, model::Name};

use super::{CommandResult, Failure, client, local, stats};
use crate::top::{self, Look};

/// Peers whose health is asked for: with very many, the worst are worth looking at.
const MOST: usize = 500;

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
            "draw on standard output: it is not a terminal; use \"overlay-agent stats --watch\""
        )));
    }
    let ask = || {
        let stats = stats::ask(dirs, instance, false).map_err(Failure::into_error)?;
        // An agent of another version may not know the question; it has counted all the same.
        let mesh = mesh(dirs, instance).map_err(|failure| format!("{:#}", failure.into_error()));
        Ok(Look { stats, mesh })
    };
    local::block_on(top::run(ask, args.interval))?.map_err(Failure::Problem)
}

fn mesh(dirs: &Dirs, instance: Option<&Name>) -> Result<Mesh, Failure> {
    match client::ask(dirs, instance.cloned(), &Request::Mesh { most: MOST })? {
        Reply::Mesh(mesh) => Ok(*mesh),
        _ => Err(client::unexpected()),
    }
}
