//! The daemon's interface: one JSON request a line over a unix socket, one JSON reply a line.
//!
//! The command line is its first client; it never touches the kernel itself.

pub mod capture;
mod client;
mod doctor;
pub mod explain;
mod health;
pub mod ping;
mod problem;
pub mod progress;
mod server;
pub mod stats;
mod status;

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use overlay_api::{Attached, Believed, Hold, Key, Offer, Refusal, Unwanted, Wanted};
use overlay_core::model::LogLevel;
use serde::{Deserialize, Serialize};

use crate::progress::Activity;

pub use client::{ClientError, call, speaks};
pub use doctor::{Cure, Diagnosis, DiagnosisNote, DoctorSpec, Finding, Severity, Skipped};
pub use health::{
    Mesh, MeshPeer, PeerAgent, PeerHealth, PeerState, ProbeMessages, ProbeStatus, RoundTrip,
};
pub use problem::Problem;
pub use problem::rfc3339;
pub use server::{Call, Caller, Replies, Server, ServerError};
pub use status::{
    Carried, ClusterStatus, EncryptionStatus, EndpointStatus, FastPathState, FastPathStatus,
    GuardTableStatus, HookStatus, NamesStatus, NetworkStatus, NextHopStatus, PeerEncryption,
    PeerStatus, RangeStatus, Status, Traffic,
};

/// Number of the layout of all that `--output json` prints, as `docs/schema/v1.json` describes it:
/// fields may be added to it, but none changes its name or its meaning.
pub const SCHEMA: u32 = 1;

/// Requests of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The node's state.
    // Braces, here and below: serde takes any field for a variant without them.
    Status {},
    /// Attaches a container.
    EndpointAdd(EndpointSpec),
    /// Detaches a container that was attached by [`Request::EndpointAdd`].
    EndpointDel {
        /// Its name.
        name: String,
    },
    /// Attaches a container for its runtime; can be repeated.
    AttachmentAdd(Wanted),
    /// Detaches it.
    AttachmentDel(Unwanted),
    /// Tells whether it is as believed.
    AttachmentCheck(Believed),
    /// Tells which there are of a source.
    AttachmentList {
        /// The source.
        source: String,
    },
    /// Tells whether one could be added.
    AttachmentReady {
        /// The network; the only one when it is left out.
        network: Option<String>,
    },
    /// Tells which networks there are.
    AttachmentNetworks {},
    /// Keeps an address for a container that is about to come.
    AddressHold(Hold),
    /// Gives it back.
    AddressRelease {
        /// The address.
        address: IpAddr,
    },
    /// Attaches or detaches the programs.
    Fastpath {
        /// Which of the two.
        on: bool,
    },
    /// Removes all that is the instance's, and ends the daemon.
    Down {},
    /// The counters.
    Stats {
        /// Whether peers without traffic are to be told, too.
        #[serde(default)]
        all: bool,
    },
    /// Looks for what is wrong on the node.
    Doctor(DoctorSpec),
    /// Tells what becomes of a packet that an endpoint or the node sends.
    Explain(explain::Question),
    /// Tells what becomes of a frame that another node has sent.
    ExplainReceived(explain::Received),
    /// Sets what the programs tell the log, until the daemon ends.
    LogLevel {
        /// How much.
        level: LogLevel,
    },
    /// Starts a capture.
    CaptureStart(capture::Wanted),
    /// Reads what it has seen, or waits a moment for it.
    CaptureRead {},
    /// Ends it.
    CaptureStop {},
    /// Sends a packet as a container does, and waits for its answer.
    Ping(ping::Ping),
    /// How the peers are.
    Mesh {
        /// Peers that are told at most.
        most: usize,
    },
    /// The figures for Prometheus.
    Export {},
    /// The configuration that is in force, with what was added at run time.
    Config {},
    /// The daemon's current work. It is answered at once, whatever that is.
    Activity {},
}

/// An endpoint as it is asked for; validated like one of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// Its name, unique on the node.
    pub name: String,
    /// The network to attach it to.
    pub network: String,
    /// Name of, or path to, its network namespace.
    pub netns: Option<PathBuf>,
    /// Or a process in it.
    pub pid: Option<u32>,
    /// Its addresses, at most one of a family; the next free one of each that is left out.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its interface in the container; `eth0` when left out.
    pub interface: Option<String>,
    /// Whether it forwards packets to others behind it.
    #[serde(default)]
    pub forwarding: bool,
    /// Where those others are.
    #[serde(default)]
    pub allowed_sources: Vec<String>,
}

/// The daemon's replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::EndpointAdd`].
    Endpoint(Box<EndpointStatus>),
    /// To [`Request::Down`]: what was left alone although the instance once changed it, a sentence
    /// each.
    Removed(Vec<String>),
    /// To everything else.
    Done,
    /// The request cannot be carried out; nothing was changed.
    BadInput(String),
    /// The named object does not exist.
    NotFound(String),
    /// The object to be made exists already.
    Exists(String),
    /// It was tried and has failed.
    Failed(String),
    /// To [`Request::AttachmentAdd`].
    Attached(Box<Attached>),
    /// To [`Request::AttachmentList`].
    Attachments(Vec<Key>),
    /// To [`Request::AttachmentNetworks`].
    Offers(Vec<Offer>),
    /// To [`Request::AddressHold`].
    Held(IpNet),
    /// To requests about attachments: why nothing was changed.
    Refused(Refusal),
    /// To [`Request::Stats`].
    Stats(Box<stats::Stats>),
    /// To [`Request::Doctor`].
    Diagnosis(Box<Diagnosis>),
    /// To [`Request::Explain`] and [`Request::ExplainReceived`].
    Hop(Box<explain::Hop>),
    /// To [`Request::CaptureRead`] and [`Request::CaptureStop`].
    Captured(capture::Captured),
    /// To [`Request::Ping`].
    Pinged(Box<ping::Pinged>),
    /// To [`Request::Mesh`].
    Mesh(Box<Mesh>),
    /// To [`Request::Export`].
    Export(Box<stats::Export>),
    /// To [`Request::Config`]: a file that would lead to it.
    Config(String),
    /// To [`Request::Activity`].
    Activity(Activity),
}
