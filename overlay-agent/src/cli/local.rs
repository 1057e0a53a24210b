//! Commands that need no daemon: they are it, or work on the file alone.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use overlay_control::progress::Progress;
use overlay_core::{config::Files, dirs::Dirs, model::Name};
use overlay_kernel::{netns, privileges};

use super::{CommandResult, Failure, Format, NodeArgs, log, output, progress};
use crate::daemon::{self, LockError, Options, StartError};

pub(super) fn run(args: NodeArgs, instance: Option<Name>, dirs: Dirs) -> CommandResult {
    log::start()?;
    // While this is the only thread.
    privileges::keep(&privileges::STARTING).map_err(Failure::bad_input)?;
    let options = options(args, instance, dirs)?;
    let (progress, netns) = (options.progress.clone(), options.netns.clone());
    let ended = block_on(progress::shown(&progress, daemon::run(options)))?;
    ended.map_err(|error| {
        let failure = match error {
            StartError::Signal(_) => Failure::problem(error),
            StartError::Lock(LockError::Running(_)) => Failure::Exists(error.into()),
            _ => Failure::bad_input(error),
        };
        failure.cured_on(netns.as_deref())
    })
}

pub(super) fn check(path: &Path, format: Format) -> CommandResult {
    let loaded = Files::new(path).load().map_err(Failure::bad_input)?;
    if loaded.refused_fragments.is_empty() {
        let print = |out: &mut dyn io::Write| output::checked(out, path, &loaded, format);
        return output::print(print).map_err(Failure::Problem);
    }
    let refused = loaded.refused_fragments.iter().map(ToString::to_string);
    let refused: Vec<String> = refused.collect();
    Err(Failure::BadInput(anyhow::anyhow!(refused.join("\n"))))
}

pub(super) fn plan(
    args: NodeArgs,
    instance: Option<Name>,
    dirs: Dirs,
    format: Format,
) -> CommandResult {
    let options = options(args, instance, dirs)?;
    let preview = progress::shown(&options.progress, daemon::preview(&options));
    let netns = options.netns.as_deref();
    let preview = block_on(preview)?.map_err(Failure::bad_input);
    let mut preview = preview.map_err(|failure| failure.cured_on(netns))?;
    for problem in &mut preview.problems {
        problem.cure_on(None, netns);
    }
    output::print(|out| output::plan(out, &preview, format)).map_err(Failure::Problem)
}

/// Enters the node's namespace, before any thread is started that would stay outside.
fn options(args: NodeArgs, instance: Option<Name>, dirs: Dirs) -> Result<Options, Failure> {
    let netns = args.netns.map(netns_path);
    if let Some(path) = &netns {
        enter(path)?;
    }
    Ok(Options {
        config: args.config,
        instance,
        netns,
        dirs,
        progress: Progress::default(),
    })
}

/// The file of a namespace that is given by its name or its path.
pub(super) fn netns_path(netns: PathBuf) -> PathBuf {
    if netns.is_absolute() {
        netns
    } else {
        Path::new("/run/netns").join(netns)
    }
}

/// Enters the namespace that somebody names by an option.
pub(super) fn enter(path: &Path) -> Result<(), Failure> {
    enter_or(path, Failure::NotFound, || {
        let name = path.strip_prefix("/run/netns").unwrap_or(Path::new("NAME"));
        format!(
            "make it with \"ip netns add {}\", or correct --netns",
            name.display()
        )
    })
}

/// Enters the one that an instance remembers. What it had there is gone with it.
pub(super) fn enter_remembered(path: &Path, instance: &Name) -> Result<(), Failure> {
    enter_or(path, Failure::BadInput, || {
        format!(
            "instance {instance} ran there, and what it made there is gone; make one at this path (\"ip netns add \
             NAME\") and run \"overlay-agent down --instance {instance}\", which removes its maps and state file, too"
        )
    })
}

fn enter_or(
    path: &Path,
    missing: fn(anyhow::Error) -> Failure,
    cure: impl Fn() -> String,
) -> Result<(), Failure> {
    match netns::id(path) {
        Ok(Some(_)) => netns::enter(path).map_err(Failure::bad_input),
        Ok(None) => Err(missing(anyhow::anyhow!(
            "enter network namespace {}: there is none; {}",
            path.display(),
            cure()
        ))),
        Err(error) => Err(Failure::bad_input(error)),
    }
}

/// One thread: the agent waits nearly always, and every thread must be in the node's namespace.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::Problem)?;
    Ok(runtime.block_on(future))
}
