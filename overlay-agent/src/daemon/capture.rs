//! Captures: while one runs, the attached programs are those that tell.

mod told;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use overlay_common::{
    journal::{MAX_SNAP, NONE, Watch},
    programs::Program,
    reasons::{DropReason, PassReason},
};
use overlay_control::{
    Caller, Reply,
    capture::{CaptureStatus, Captured, Wanted},
    rfc3339,
};
use overlay_core::objects::KERNEL_REASONS;
use overlay_insight::explain::{Names, device_of};
use overlay_kernel::bpf::{Events, Variant};
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use self::told::captured;
use super::Reconciler;

pub(super) use self::told::{boot, packet};

/// A capture that nobody has read for so long is over.
const LEASE: Duration = Duration::from_secs(3);
/// How long a reader waits for packets.
const WAIT: Duration = Duration::from_secs(1);
/// Packets that are handed over at a time.
const BATCH: usize = 256;
/// Packets that each CPU may tell of in each window of the programs: 5,000 a second.
const BUDGET: u32 = 50;

/// A capture under way.
pub(super) struct Capture {
    /// `None` while the programs are not there that would tell.
    session: Option<Session>,
    begun: Instant,
    read: Instant,
    names: Arc<Names>,
    status: CaptureStatus,
}

impl Capture {
    /// For those who wonder why other programs are attached.
    pub(super) fn status(&self) -> CaptureStatus {
        CaptureStatus {
            age_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..self.status.clone()
        }
    }
}

#[derive(Clone)]
struct Session(Arc<Mutex<Events>>);

impl Reconciler {
    /// Puts programs that tell in the place of those that are attached.
    pub(super) async fn capture_start(&mut self, wanted: Wanted, by: Caller) -> Reply {
        if let Some(capture) = &self.capture {
            let CaptureStatus {
                by, wanted: other, ..
            } = &capture.status;
            return Reply::Exists(format!(
                "start a {}: a {} by {by} is under way, and one at a time can be; end that one first",
                wanted.called(),
                other.called(),
            ));
        }
        let watch = match self.watch_for(&wanted) {
            Ok(watch) => watch,
            Err(refusal) => return refusal,
        };
        self.capture = Some(Capture {
            session: None,
            begun: Instant::now(),
            read: Instant::now(),
            names: Arc::new(Names::of(&self.scene())),
            status: CaptureStatus {
                by,
                since: rfc3339(SystemTime::now()),
                age_ms: 0,
                wanted,
            },
        });
        let variant = Variant {
            watch: Some(watch),
            ..self.variant
        };
        if let Err(error) = self.set_variant(variant).await {
            self.capture_end().await;
            return Reply::Failed(format!("start a capture: {error}"));
        }
        match &mut self.capture {
            Some(capture) if capture.session.is_some() => capture.read = Instant::now(),
            _ => {
                self.capture_end().await;
                return Reply::Failed(
                    "start a capture: what the programs tell cannot be read; the log says why"
                        .to_owned(),
                );
            }
        }
        info!("a capture is under way");
        Reply::Done
    }

    /// Hands over what there is, or waits for it, beside the daemon's own work.
    pub(super) fn capture_read(&mut self, to: oneshot::Sender<Reply>) {
        let Some(capture) = &mut self.capture else {
            let over =
                "read a capture: there is none under way; one that is not read ends by itself";
            return super::answer(to, Reply::Failed(over.to_owned()));
        };
        capture.read = Instant::now();
        let names = capture.names.clone();
        let session = capture.session.clone();
        tokio::spawn(async move {
            let captured = match session {
                Some(session) => session.read(&names).await,
                None => Ok(Captured::default()),
            };
            let reply = captured.map_or_else(Reply::Failed, Reply::Captured);
            super::answer(to, reply);
        });
    }

    /// Ends a capture; what was not handed over yet.
    pub(super) async fn capture_stop(&mut self) -> Reply {
        let Some(capture) = &self.capture else {
            return Reply::Failed("end a capture: there is none under way".to_owned());
        };
        let (session, names) = (capture.session.clone(), capture.names.clone());
        self.capture_end().await;
        match session {
            Some(session) => session
                .rest(&names)
                .await
                .map_or_else(Reply::Failed, Reply::Captured),
            None => Reply::Captured(Captured::default()),
        }
    }

    /// Ends a capture that nobody reads any more.
    pub(super) async fn capture_expire(&mut self) {
        let idle = self.capture.as_ref().map(|capture| capture.read.elapsed());
        if idle.is_some_and(|idle| idle > LEASE) {
            info!("nobody reads the capture any more: it ends");
            self.capture_end().await;
        }
    }

    async fn capture_end(&mut self) {
        self.capture = None;
        if self.variant.watch.is_none() {
            return;
        }
        let variant = Variant {
            watch: None,
            ..self.variant
        };
        match self.set_variant(variant).await {
            Ok(()) => info!("the capture is over"),
            Err(error) => {
                warn!("end a capture: {error}");
                // What is wanted all the same: the next round tries again.
                self.variant = variant;
            }
        }
    }

    /// The programs have been loaded: those that tell are listened to.
    pub(super) fn listen(&mut self) {
        self.listen_to_messages();
        let (Some(capture), Some(dataplane)) = (&mut self.capture, &mut self.node.dataplane) else {
            return;
        };
        if dataplane.variant().watch.is_none() {
            return;
        }
        match dataplane.take_events() {
            Ok(events) => capture.session = Some(Session(Arc::new(Mutex::new(events)))),
            Err(error) => warn!("{error}"),
        }
    }

    fn watch_for(&self, wanted: &Wanted) -> Result<Watch, Reply> {
        let most = u32::try_from(MAX_SNAP).unwrap_or(u32::MAX);
        if !(14..=most).contains(&wanted.snap) {
            return Err(bad_input(
                wanted,
                &format!("{} bytes of each packet: choose 14 to {most}", wanted.snap),
            ));
        }
        let endpoint = match &wanted.endpoint {
            None => NONE,
            Some(name) => self
                .index_of(name)
                .map_err(|error| not_found(wanted, &error))?,
        };
        let peer = match &wanted.peer {
            None => NONE,
            Some(name) => self
                .slot_of_peer(name)
                .map_err(|error| not_found(wanted, &error))?,
        };
        let mut programs = 0;
        for hook in &wanted.hooks {
            let mut all = Program::ALL.iter();
            let program = all.find(|program| program.name() == hook);
            let program = program.ok_or_else(|| {
                let all: Vec<&str> = Program::ALL.iter().map(|program| program.name()).collect();
                let all = all.join(", ");
                bad_input(
                    wanted,
                    &format!("there is no program {hook:?}: choose {all}"),
                )
            })?;
            programs |= 1 << *program as u32;
        }
        let mut watch = Watch {
            snap: wanted.snap,
            budget: BUDGET,
            endpoint,
            peer,
            programs: if programs == 0 { u32::MAX } else { programs },
            ..Watch::NOTHING
        };
        if wanted.reasons.is_empty() {
            (watch.sent, watch.passes, watch.drops) = (1, u32::MAX, u32::MAX);
        }
        for reason in &wanted.reasons {
            add_reason(&mut watch, reason).map_err(|error| bad_input(wanted, &error))?;
        }
        Ok(watch)
    }

    fn index_of(&self, name: &str) -> Result<u32, String> {
        let mut endpoints = self.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name.as_str() == name);
        endpoint
            .and_then(|endpoint| device_of(&self.scene(), endpoint))
            .map(|(_, index)| index)
            .ok_or_else(|| {
                format!("there is no endpoint {name} that is attached; see \"overlay-agent endpoint list\"")
            })
    }

    fn slot_of_peer(&self, name: &str) -> Result<u32, String> {
        let vteps = &self.observed.objects.peers.entries.vteps;
        let peers = self.model.networks.iter().flat_map(|network| {
            let peers = network.peers.iter();
            peers.map(|peer| (network.vni, peer))
        });
        let mut named = peers.filter(|(_, peer)| peer.name.as_str() == name);
        named
            .find_map(|(vni, peer)| vteps.get(&(vni, peer.vtep)).copied())
            .ok_or_else(|| format!("there is no peer {name}; see \"overlay-agent status\""))
    }
}

fn bad_input(wanted: &Wanted, reason: &str) -> Reply {
    Reply::BadInput(format!("start a {}: {reason}", wanted.called()))
}

fn not_found(wanted: &Wanted, reason: &str) -> Reply {
    Reply::NotFound(format!("start a {}: {reason}", wanted.called()))
}

/// A reason by its name, or all of a kind.
fn add_reason(watch: &mut Watch, name: &str) -> Result<(), String> {
    let mut known = true;
    match name {
        "forwarded" => watch.sent = 1,
        "passed" => watch.passes = u32::MAX,
        "dropped" => watch.drops = u32::MAX,
        _ => known = false,
    }
    for reason in PassReason::ALL
        .iter()
        .filter(|reason| reason.name() == name)
    {
        watch.passes |= 1 << *reason as u32;
        known = true;
    }
    for reason in DropReason::ALL
        .iter()
        .filter(|reason| reason.name() == name)
    {
        watch.drops |= 1 << *reason as u32;
        known = true;
    }
    if known {
        return Ok(());
    }
    if KERNEL_REASONS.iter().any(|(reason, _)| *reason == name) {
        return Err(format!(
            "what is dropped as {name} the kernel drops, not a program, so no packet of it can be seen here: \
             \"overlay-agent stats\" counts it"
        ));
    }
    let sorted = |names: BTreeSet<&str>| Vec::from_iter(names).join(", ");
    let drops = DropReason::ALL.iter().map(|reason| reason.name());
    let passes = PassReason::ALL.iter().map(|reason| reason.name());
    Err(format!(
        "there is no reason {name:?}: choose forwarded, passed or dropped, or one that is dropped for ({}) \
         or left to the kernel for ({})",
        sorted(drops.collect()),
        sorted(passes.collect())
    ))
}

impl Session {
    async fn read(&self, names: &Names) -> Result<Captured, String> {
        let mut events = self.0.lock().await;
        let seen = match timeout(WAIT, events.next(BATCH)).await {
            Ok(seen) => seen.map_err(|error| error.to_string())?,
            Err(_) => Vec::new(),
        };
        captured(names, &events, &seen)
    }

    async fn rest(&self, names: &Names) -> Result<Captured, String> {
        let mut events = self.0.lock().await;
        let seen = events.rest();
        captured(names, &events, &seen)
    }
}
