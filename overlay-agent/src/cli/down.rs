//! Removes an instance: through its daemon, or, when that is gone, from what it left.

use std::{
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use overlay_api::Spool;
use overlay_control::{self as api, ClientError, Reply, Request, SCHEMA, progress::Activity};
use overlay_core::{dirs::Dirs, model::Name};
use overlay_kernel::{bpf, capability};
use overlay_node::{key::KeyFile, node::Node, store::Store};
use serde_json::json;

use super::{CommandResult, Failure, Format, client, local, output, progress};
use crate::daemon::{self, InstanceLock, LockError};

/// How long an agent that has just been started may take until it can be asked.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// So many agents may end while they are asked: those that somebody starts again and again are not followed.
const TRIES: usize = 5;

pub(super) fn down(dirs: &Dirs, instance: Option<Name>, format: Format) -> CommandResult {
    let removed = take_down(dirs, instance)?;
    output::print(|out| match (format, &removed) {
        (Format::Json, removed) => writeln!(out, "{:#}", value(removed)),
        (Format::Text, Removed::Nothing(why)) => writeln!(out, "nothing to remove: {why}"),
        (Format::Text, Removed::Instance { left, .. }) => left
            .iter()
            .try_for_each(|sentence| writeln!(out, "{sentence}")),
    })
    .map_err(Failure::Problem)
}

/// The outcome of `down`.
enum Removed {
    /// There was nothing, and why.
    Nothing(String),
    /// The instance is gone.
    Instance {
        name: Name,
        /// Settings that were left alone although it once changed them.
        left: Vec<String>,
    },
}

fn value(removed: &Removed) -> serde_json::Value {
    let (instance, nothing, left) = match removed {
        Removed::Nothing(why) => (None, Some(why), &[][..]),
        Removed::Instance { name, left } => (Some(name), None, &left[..]),
    };
    json!({ "schema": SCHEMA, "removed": instance, "nothing": nothing, "left": left })
}

fn take_down(dirs: &Dirs, instance: Option<Name>) -> Result<Removed, Failure> {
    let there = dirs.instances().map_err(Failure::bad_input)?;
    if instance.is_none() && there.is_empty() {
        let why = "there is no instance on this machine";
        return Ok(Removed::Nothing(why.to_owned()));
    }
    let instance = client::the_instance(dirs, instance, |_, _| true)?;
    for _ in 0..TRIES {
        match take(dirs, &instance) {
            Ok(lock) => {
                let removed = remove(dirs, &instance);
                drop(lock);
                return removed;
            }
            Err(LockError::Running(_)) => {
                let socket = dirs.socket(&instance);
                let call = || api::call(&socket, &Request::Down {});
                let reply = progress::while_waiting(&socket, call);
                if reply.as_ref().is_err_and(is_gone) {
                    continue;
                }
                return match client::answered(dirs, &instance, reply)? {
                    Reply::Removed(left) => Ok(Removed::Instance {
                        name: instance.clone(),
                        left,
                    }),
                    _ => Err(client::unexpected()),
                };
            }
            Err(error) => return Err(Failure::bad_input(error)),
        }
    }
    Err(Failure::Problem(anyhow!(
        "take down instance {instance}: each of its agents ended before it had answered; keep whoever starts \
         them from that, and run it again"
    )))
}

/// Takes the instance, unless an agent has it that can be asked.
fn take(dirs: &Dirs, instance: &Name) -> Result<InstanceLock, LockError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match InstanceLock::take(dirs, instance) {
            Err(LockError::Running(_)) if !listens(dirs, instance) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            taken => return taken,
        }
    }
}

/// Whether the agent was ended by somebody else, another `down` perhaps, before it took the request.
fn is_gone(error: &ClientError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    match error {
        ClientError::Ended { .. } => true,
        ClientError::Connect { cause, .. } => matches!(cause.kind(), NotFound | ConnectionRefused),
        _ => false,
    }
}

/// Whether an agent can be asked. One that is just starting has its lock before its socket.
fn listens(dirs: &Dirs, instance: &Name) -> bool {
    UnixStream::connect(dirs.socket(instance)).is_ok()
}

/// Whether there is anything of an instance. Its folder is made before its state file, and
/// goes after it.
fn is_left_behind(dirs: &Dirs, instance: &Name) -> bool {
    dirs.state_dir.join(instance.as_str()).exists() || bpf::is_pinned(&dirs.pins(instance))
}

/// Those that there are: a name that was mistyped is found among them.
fn others(dirs: &Dirs, instance: &Name) -> String {
    let mut there = dirs.instances().unwrap_or_default();
    there.retain(|other| other != instance);
    let there: Vec<&str> = there.iter().map(Name::as_str).collect();
    if there.is_empty() {
        String::new()
    } else {
        format!(" (there are: {})", there.join(", "))
    }
}

fn remove(dirs: &Dirs, instance: &Name) -> Result<Removed, Failure> {
    if !is_left_behind(dirs, instance) {
        let others = others(dirs, instance);
        let why = format!("there is no instance {instance}{others}");
        return Ok(Removed::Nothing(why));
    }
    capability::check_privileges().map_err(Failure::bad_input)?;
    // To open it may write what is in the journal.
    let has_state = dirs.state(instance).exists();
    let store = Store::open(dirs, instance).map_err(Failure::bad_input)?;
    let has_run = bpf::is_pinned(&dirs.pins(instance));
    let is_lost = has_run && !has_state && store.content().netns.is_none();
    let lost = is_lost.then(|| {
        format!(
            "{} was not there, and it alone says in which network namespace the node was: what the instance made in \
             another one than this stays, devices with the alias overlay:{instance} among it; to remove it, start \
             the instance there once more, and take it down then",
            dirs.state(instance).display()
        )
    });
    // What was to be detached goes with all the rest.
    Spool::of(&dirs.runtime(instance))
        .clear()
        .map_err(Failure::problem)?;
    if let Some(netns) = &store.content().netns {
        local::enter_remembered(netns, instance)?;
    }
    let key = KeyFile::at(dirs.private_key(instance));
    local::block_on(async {
        let node = Node::open(dirs.pins(instance), key).map_err(Failure::problem)?;
        let progress = node.progress.clone();
        let removed = async {
            node.progress.tell(Activity::Looking).await;
            daemon::teardown(node, store).await
        };
        let removed = progress::shown(&progress, Box::pin(removed)).await;
        removed
            .map(|left| Removed::Instance {
                name: instance.clone(),
                left: left.into_iter().chain(lost).collect(),
            })
            .map_err(Failure::problem)
    })?
}
