//! `capture`: packets as the programs see them, into a file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use clap_complete::ArgValueCompleter;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

use overlay_common::programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD};
use overlay_control::{
    Reply, Request,
    capture::{Captured, Wanted},
};
use overlay_core::{dirs::Dirs, model::Name, plural::count};

use super::{CommandResult, Failure, client, completing, pcapng::Pcapng, watching};

/// The programs, by their names.
const PROGRAMS: [&str; 4] = [FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  overlay-agent capture -w all.pcapng --seconds 10
  overlay-agent capture -w drops.pcapng --reason dropped --count 100
  overlay-agent capture -w - --endpoint web --peer node02 | tshark -r - -T fields -e frame.comment

Each packet is there as it came to a program and, where it was sent, as it went, with what
became of it as a comment. While it runs, the attached programs are ones that tell; they
forward the same packets. Ends with Ctrl-C, or when nobody reads it.")]
pub(super) struct Args {
    /// File to write; "-" is standard output
    #[arg(short = 'w', long = "write")]
    file: PathBuf,
    #[command(flatten)]
    part: Part,
    /// Only packets with this reason, as counters name it, or all that were "sent", "passed" or
    /// "dropped"; can be given several times
    #[arg(long = "reason")]
    reasons: Vec<String>,
    /// Only what this program sees; can be given several times
    #[arg(long = "hook", value_name = "PROGRAM", value_parser = PROGRAMS)]
    hooks: Vec<String>,
    /// Bytes of each packet
    #[arg(long, default_value_t = 256)]
    snap: u32,
}

/// Which packets are wanted, and how long.
#[derive(Debug, clap::Args)]
pub(super) struct Part {
    /// Only what this endpoint sends or gets
    #[arg(long, add = ArgValueCompleter::new(completing::endpoints))]
    pub(super) endpoint: Option<String>,
    /// Only what is for this peer, or from it
    #[arg(long, add = ArgValueCompleter::new(completing::peers))]
    pub(super) peer: Option<String>,
    /// End after so many packets
    #[arg(long)]
    pub(super) count: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    pub(super) seconds: Option<u64>,
}

pub(super) fn capture(dirs: &Dirs, instance: Option<Name>, args: Args) -> CommandResult {
    let instance = client::the_instance(dirs, instance, Dirs::may_listen)?;
    let ask = |request: &Request| client::call(dirs, &instance, request);
    let signals = signals().map_err(Failure::Problem)?;
    let output = Output::open(&args.file)?;
    let wanted = Wanted {
        endpoint: args.part.endpoint,
        peer: args.part.peer,
        reasons: args.reasons,
        hooks: args.hooks,
        snap: args.snap,
        monitor: false,
    };
    let started = ask(&Request::CaptureStart(wanted)).and_then(|reply| client::done(&reply));
    if let Err(refused) = started {
        output.abandon();
        return Err(refused);
    }
    let mut file = output.emptied().map_err(Failure::Problem)?;
    if let Reply::Status(status) = ask(&Request::Status {})? {
        watching::tell_if_blind(&status);
    }
    eprintln!("capturing on {instance}; Ctrl-C ends it");
    let mut writing = Writing {
        file: Pcapng::new(&mut file, args.snap),
        left: args.part.count.unwrap_or(u64::MAX),
        written: 0,
        frames: 0,
    };
    let end = args
        .part
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let written = loop {
        let captured = captured(ask(&Request::CaptureRead {})?)?;
        let goes_on = writing.write(&captured);
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        match goes_on {
            Ok(true) if !is_over && !was_told_to_end(&signals) => {}
            other => break other,
        }
    };
    let rest = captured(ask(&Request::CaptureStop {})?)?;
    let written = written.and_then(|_| writing.write(&rest));
    let packets = writing.written;
    match written {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let file = args.file.display().to_string();
            return Err(Failure::Problem(anyhow!(
                "write to {file}: {error}; what it has so far stays, and {packets} packets may be \
                 in it: give a file on a disk that has room"
            )));
        }
        _ => {}
    }
    eprintln!(
        "{}, in {} of the file: before and behind a program",
        count(packets, "packet"),
        count(writing.frames, "frame")
    );
    if rest.over_budget + rest.ring_full > 0 {
        eprintln!(
            "{} more were not captured: {} over what the programs may tell, {} that nobody read in time; choose fewer with --endpoint, --peer, --reason or --hook",
            rest.over_budget + rest.ring_full,
            rest.over_budget,
            rest.ring_full
        );
    }
    Ok(())
}

pub(super) fn captured(reply: Reply) -> Result<Captured, Failure> {
    match reply {
        Reply::Captured(captured) => Ok(captured),
        _ => Err(client::unexpected()),
    }
}

/// Where packets go. A file that is there keeps its content until there is a capture.
enum Output<'p> {
    Standard,
    File {
        file: File,
        path: &'p Path,
        /// Whether it was not there before.
        new: bool,
    },
}

impl<'p> Output<'p> {
    fn open(path: &'p Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let (file, new) = match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (File::options().write(true).open(path), false)
            }
            file => (file, true),
        };
        let file = file.map_err(|cause| {
            let cure = "give a file that can be written, or \"-\" for standard output";
            let denied = cause.kind() == io::ErrorKind::PermissionDenied;
            let error = anyhow!("write to {}: {cause}; {cure}", path.display());
            if denied {
                Failure::NoRights(error)
            } else {
                Failure::BadInput(error)
            }
        })?;
        Ok(Self::File { file, path, new })
    }

    /// Nothing of an earlier capture stays in it.
    fn emptied(self) -> anyhow::Result<Box<dyn Write>> {
        match self {
            Self::Standard => Ok(Box::new(BufWriter::new(io::stdout()))),
            Self::File { file, path, .. } => {
                // A pipe or a device has no length.
                if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                    let emptied = file.set_len(0);
                    emptied.with_context(|| format!("empty {}", path.display()))?;
                }
                Ok(Box::new(BufWriter::new(file)))
            }
        }
    }

    /// There is no capture: nothing is left of what was made for it.
    fn abandon(self) {
        if let Self::File {
            path, new: true, ..
        } = self
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("remove {}: {error}", path.display());
        }
    }
}

/// The file, and how much more is wanted in it.
struct Writing<'f> {
    file: Pcapng<'f>,
    left: u64,
    written: u64,
    frames: u64,
}

impl Writing<'_> {
    /// Writes packets; whether more are wanted.
    fn write(&mut self, captured: &Captured) -> io::Result<bool> {
        for packet in &captured.packets {
            if self.left == 0 {
                break;
            }
            self.file.packet(packet)?;
            self.left -= 1;
            self.written += 1;
            self.frames += 1 + u64::from(packet.after.is_some());
        }
        self.file.flush()?;
        Ok(self.left > 0)
    }
}

/// Ctrl-C and its like, to be asked for between two reads.
pub(super) fn signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()
        .map_err(|errno| anyhow!("handle signals: {errno}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| anyhow!("handle signals: {errno}"))
}

pub(super) fn was_told_to_end(signals: &SignalFd) -> bool {
    matches!(signals.read_signal(), Ok(Some(_)))
}
