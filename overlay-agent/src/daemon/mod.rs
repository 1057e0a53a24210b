//! The agent's life: look, plan, apply, wait until something changes; and again.

pub(crate) mod access;
mod announce;
mod attach;
mod attachments;
mod capture;
pub(crate) mod cluster;
mod config_file;
mod doctor;
mod encryption;
mod explain;
mod exports;
mod files;
mod flows;
mod following;
mod late;
mod lock;
mod mesh;
mod messages;
mod names;
mod neighbour_refresh;
mod next_hops;
mod patrol;
mod peers;
mod ping;
mod probing;
mod programs;
mod reconcile;
mod repairs;
mod requests;
mod round;
mod since;
mod start;
mod stats;
mod status;
mod subnet_env;
mod supervisor;
mod teardown;
mod watches;

use std::time::Duration;

use overlay_control::{
    Call, Caller, Reply, Request, Server,
    progress::{Activity, Progress},
};
use overlay_core::config::Loaded;
use overlay_kernel::effort;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info};

use self::{
    cluster::{Helper, Outcome},
    config_file::ConfigFile,
    neighbour_refresh::NeighbourRefresher,
    supervisor::Supervisor,
};

pub use lock::{InstanceLock, LockError};
pub use reconcile::Reconciler;
pub(crate) use start::short;
pub use start::{Options, StartError, preview};
pub use teardown::{TeardownError, teardown};

/// Changes come in bursts: a look is worth while once they have calmed down.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Interval of the patrol, which finds changes without events, such as a detached program.
const PATROL: Duration = Duration::from_millis(500);
/// Interval of rounds without a cause, which find all other changes without events.
const RESYNC: Duration = Duration::from_secs(30);
/// While a key of a node changes: what others have agreed on is announced by nobody.
const KEYS: Duration = Duration::from_secs(1);
/// Failed steps are tried again: others may have removed the obstacle.
const RETRY: Duration = Duration::from_millis(500);
/// After a round the agent rests this many times as long as it worked before it looks on its
/// own, so that a large node does not keep a core busy,
const RESYNC_SHARE: u32 = 200;
/// and this many times before it follows a change of others. What lists of their rules take is not counted:
/// they have rests of their own.
const REST_SHARE: u32 = 4;

/// How long after a round the next one begins by itself.
fn pause(reconciler: &Reconciler, has_changed: bool, effort: Duration) -> Duration {
    if reconciler.unfinished || has_changed {
        return Duration::ZERO;
    }
    if reconciler.is_well() && reconciler.changes_keys() {
        return KEYS.max(effort * REST_SHARE);
    }
    let resync = if reconciler.is_well() { RESYNC } else { RETRY };
    resync.max(effort * RESYNC_SHARE)
}

/// Runs until a signal ends it, which changes no forwarding, or `down`, which removes all.
pub async fn run(options: Options) -> Result<(), StartError> {
    let start = Box::pin(start::start(&options));
    let started = options
        .progress
        .followed(announce::teller("starting"), start)
        .await?;
    let start::Started {
        mut reconciler,
        mut watches,
        mut config,
        mut calls,
        mut exports,
        mut helper,
        server,
        lock,
    } = started;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signal)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signal)?;
    let mut refresher = NeighbourRefresher::default();
    refresher.round(&reconciler);
    let mut supervisor = Supervisor::find();
    supervisor.round(&reconciler);
    // The next round, and the earliest one that a change can bring about.
    let mut wake = Instant::now();
    let mut rested = wake;
    let mut patrol = wake;
    loop {
        reconciler.instruct_patrol().await;
        let late = reconciler.late.due();
        tokio::select! {
            calm = reconciler.changed() => {
                wake = wake.min(rested.max(Instant::now() + calm));
                continue;
            }
            changed = watches.changed() => {
                if let Some(due) = reconciler.heed(changed) { wake = wake.min(rested.max(due).max(Instant::now() + DEBOUNCE)); }
                continue;
            }
            () = sleep_until(wake) => {}
            () = sleep_until(patrol) => {
                patrol = Instant::now() + PATROL;
                reconciler.capture_expire().await;
                if reconciler.keep_flows().await | reconciler.patrol().await | reconciler.has_other_keys() {
                    wake = wake.min(rested);
                }
                continue;
            }
            () = sleep_until(late.unwrap_or(wake)), if late.is_some() => { reconciler.attach_late().await; continue }
            () = config.changed() => {
                // A writer that is not done yet makes another event.
                sleep(DEBOUNCE).await;
                if !read_again(&mut reconciler, &mut config) { continue }
            }
            told = helper.changed() => {
                if !heed(told, &mut helper, &mut reconciler, &mut config).await { continue }
            }
            () = supervisor.wants_to_hear() => { supervisor.alive(); continue }
            _ = hangup.recv() => {
                supervisor.reloading();
                read_again(&mut reconciler, &mut config);
                reconciler.distrust();
            }
            Some(call) = calls.recv() => {
                if !still_waits(&call) { continue }
                if call.request == (Request::Down {}) {
                    let reply = Box::pin(remove(reconciler, &options.progress, call.caller)).await;
                    let replies = server.replies();
                    drop((server, lock, calls));
                    answer(call.reply, reply);
                    replies.delivered().await;
                    return Ok(());
                }
                answer_call(&mut reconciler, call).await;
                continue;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let before = effort();
        reconciler.reconcile().await;
        let has_changed = reconciler.keep_flows().await;
        refresher.round(&reconciler);
        supervisor.round(&reconciler);
        let (end, effort) = (Instant::now(), effort().saturating_sub(before));
        watches.renew();
        helper.round(&mut reconciler, &mut config).await;
        reconciler.closed_to_metrics = exports.follow(reconciler.metrics()).await;
        rested = end + effort.saturating_sub(reconciler.effort_for_rules()) * REST_SHARE;
        wake = end + pause(&reconciler, has_changed, effort);
        if let Some(due) = reconciler.rules_due() {
            wake = wake.min(rested.max(due));
        }
        patrol = end + PATROL;
    }
    close(reconciler, &mut helper, &config);
    last_words(calls, &server).await;
    // Nobody else may have the instance before its state is on the disk.
    drop((server, lock));
    info!("ending; forwarding goes on, \"overlay-agent down\" removes it");
    Ok(())
}

/// What has been done somebody is told; whoever is still to be heard asks the next agent.
async fn last_words(calls: mpsc::Receiver<Call>, server: &Server) {
    drop(calls);
    server.replies().delivered().await;
}

/// Brings what is remembered to the disk; what forwards stays.
fn close(reconciler: Reconciler, helper: &mut Helper, config: &ConfigFile) {
    supervisor::stopping("ended; forwarding goes on");
    helper.finish(config);
    if let Err(error) = reconciler.close() {
        error!("{error}");
    }
}

/// Whether a client is still there: what nobody waits for is not begun.
fn still_waits(call: &Call) -> bool {
    let gone = call.reply.is_closed();
    if gone {
        info!("{} has gone before its request was begun", call.caller);
    }
    !gone
}

/// Removes all that is the instance's, and tells meanwhile what has been done of it.
async fn remove(reconciler: Reconciler, progress: &Progress, by: Caller) -> Reply {
    info!("taken down, as {by} asks");
    supervisor::stopping("removing everything");
    progress.tell(Activity::Looking).await;
    let down = Box::pin(reconciler.down());
    let done = progress.followed(announce::teller("removing"), down).await;
    done.map_or_else(|error| Reply::Failed(error.to_string()), Reply::Removed)
}

/// Takes in what the cluster's helper has told; whether a round is to follow from it.
async fn heed(
    told: std::io::Result<cluster::Told>,
    helper: &mut Helper,
    reconciler: &mut Reconciler,
    config: &mut ConfigFile,
) -> bool {
    let again = match helper.take(told, config) {
        Outcome::Nothing => false,
        Outcome::Read => read_again(reconciler, config),
        Outcome::Peers(change) => reconciler.change_peers(&change).await,
    };
    helper.round(reconciler, config).await;
    again
}

/// Reads the configuration again; whether it differs.
fn read_again(reconciler: &mut Reconciler, config: &mut ConfigFile) -> bool {
    let Some(loaded) = config.read() else {
        return false;
    };
    config_changed(reconciler, loaded);
    true
}

fn config_changed(reconciler: &mut Reconciler, loaded: Loaded) {
    info!("the configuration has changed");
    if let Some(refused) = &loaded.refused {
        error!("the configuration is refused, the running one stays: {refused}");
    }
    for refused in &loaded.refused_fragments {
        error!("a file of peers is refused, what was good of it stays: {refused}");
    }
    reconciler.set_config(loaded);
    reconciler.tell_new_name();
}

async fn answer_call(reconciler: &mut Reconciler, call: Call) {
    let reply = match call.request {
        Request::Explain(question) => {
            return explain::answer(reconciler.leaving(&question).await, call.reply);
        }
        Request::ExplainReceived(received) => {
            return explain::answer(reconciler.arriving(&received).await, call.reply);
        }
        Request::LogLevel { level } => reconciler.log_level(level).await,
        Request::CaptureStart(wanted) => reconciler.capture_start(wanted, call.caller).await,
        Request::CaptureRead {} => return reconciler.capture_read(call.reply),
        Request::Ping(ping) => return reconciler.ping(&ping, call.reply),
        Request::CaptureStop {} => reconciler.capture_stop().await,
        Request::Status {} => Reply::Status(Box::new(reconciler.status())),
        Request::EndpointAdd(spec) => reconciler.endpoint_add(&spec).await,
        Request::EndpointDel { name } => reconciler.endpoint_del(&name).await,
        Request::AttachmentAdd(wanted) => reconciler.attachment_add(&wanted).await,
        Request::AttachmentDel(unwanted) => reconciler.attachment_del(&unwanted).await,
        Request::AttachmentCheck(believed) => reconciler.attachment_check(&believed).await,
        Request::AttachmentList { source } => reconciler.attachment_list(&source),
        Request::AttachmentReady { network } => reconciler.attachment_ready(network.as_deref()),
        Request::AttachmentNetworks {} => reconciler.attachment_networks(),
        Request::AddressHold(hold) => reconciler.address_hold(&hold),
        Request::AddressRelease { address } => reconciler.address_release(address),
        Request::Fastpath { on } => reconciler.fastpath(on).await,
        // Answered when it is done; the node is looked after meanwhile.
        Request::Doctor(spec) => return reconciler.doctor(spec, call.reply),
        // `run` handles it: it ends the loop.
        Request::Down {} => Reply::Done,
        Request::Stats { all } => reconciler.stats(all),
        Request::Config {} => Reply::Config(overlay_core::config::text(&reconciler.model)),
        Request::Export {} => reconciler.export(),
        Request::Mesh { most } => Reply::Mesh(Box::new(reconciler.mesh(most))),
        // The server answers it; at this place, nothing else is being done.
        Request::Activity {} => Reply::Activity(Activity::Waiting),
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
