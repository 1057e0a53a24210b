//! The agent's life: look, plan, apply, wait until something changes; and again.

mod config_file;
mod lock;
mod reconcile;
mod requests;
mod start;
mod status;

use std::time::{Duration, Instant};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, sleep_until},
};
use tracing::{error, info};

use crate::{
    api::{Call, Reply, Request},
    kernel::netlink::Watch,
};

pub use lock::{InstanceLock, LockError};
pub use reconcile::{Preview, Reconciler, TeardownError, teardown};
pub use start::{Options, StartError, preview};

/// Changes come in bursts: a look is worth while once they have calmed down.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// What netlink does not announce, such as a detached program, is found by looking.
const RESYNC: Duration = Duration::from_millis(500);
/// A look may take this part of the time at most, so that a large node does not keep a core busy.
const RESYNC_SHARE: u32 = 50;

/// Runs until a signal ends it, which changes no forwarding, or `down`, which removes all.
pub async fn run(options: Options) -> Result<(), StartError> {
    let started = start::start(&options).await?;
    let start::Started {
        mut reconciler,
        mut watch,
        mut config,
        mut calls,
        server,
        lock,
    } = started;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signal)?;
    let mut resync = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = changed(&mut watch) => { sleep(DEBOUNCE).await; }
            () = sleep_until(resync) => {}
            text = config.changed() => config_changed(&mut reconciler, text),
            Some(call) = calls.recv() => {
                if call.request == Request::Down {
                    let done = reconciler.down().await;
                    drop((server, lock));
                    let reply = done.map_or_else(|error| Reply::Failed(error.to_string()), |()| Reply::Done);
                    answer(call.reply, reply);
                    // The server's task still has to write the reply.
                    sleep(DEBOUNCE).await;
                    return Ok(());
                }
                answer_call(&mut reconciler, call).await;
                continue;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let before = Instant::now();
        reconciler.reconcile().await;
        resync = tokio::time::Instant::now() + RESYNC.max(before.elapsed() * RESYNC_SHARE);
    }
    info!("ending; forwarding goes on, \"overlay-agent down\" removes it");
    Ok(())
}

/// Waits for a change that netlink announces; a dead socket is left to the timer.
async fn changed(watch: &mut Option<Watch>) {
    if let Some(open) = watch {
        match open.changed().await {
            Ok(()) => return,
            Err(error) => {
                error!("{error}; changes are found by the timer alone");
                *watch = None;
            }
        }
    }
    std::future::pending::<()>().await;
}

fn config_changed(reconciler: &mut Reconciler, text: config_file::Reading) {
    match text {
        Ok(model) => {
            info!("the configuration has changed");
            reconciler.set_config(model);
        }
        Err(refused) => {
            error!("the configuration is refused, the running one stays: {refused}");
            reconciler.config_refused(refused.to_string());
        }
    }
}

async fn answer_call(reconciler: &mut Reconciler, call: Call) {
    let reply = match call.request {
        Request::Status => Reply::Status(Box::new(reconciler.status())),
        Request::EndpointAdd(spec) => reconciler.endpoint_add(&spec).await,
        Request::EndpointDel { name } => reconciler.endpoint_del(&name).await,
        Request::Fastpath { on } => reconciler.fastpath(on).await,
        // `run` handles it: it ends the loop.
        Request::Down => Reply::Done,
    };
    answer(call.reply, reply);
}

fn answer(to: tokio::sync::oneshot::Sender<Reply>, reply: Reply) {
    if to.send(reply).is_err() {
        info!("an API client did not wait for its reply");
    }
}

/// Calls that wait for the daemon.
type Calls = mpsc::Receiver<Call>;
