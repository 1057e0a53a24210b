//! `capture`: packets as the programs see them, into a file or as lines.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use overlay_api::files;
use overlay_common::{
    journal::MAX_SNAP,
    programs::{FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD},
};
use overlay_control::{
    Reply, Request,
    capture::{Captured, Seen, Wanted},
};
use overlay_core::{dirs::Dirs, model::Name, plural::count};
use overlay_insight::explain::{
    flow::{Flows, line},
    select::Choice,
};
use serde_json::{Value, json};

use super::{
    CommandResult, Failure, Format, client, examples,
    packets::{HEADERS, Part, captured, left_out, object, signals, time, was_told_to_end},
    pcapng::Pcapng,
    watching,
};

/// The programs, by their names.
const PROGRAMS: [&str; 4] = [FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, UNDERLAY_GUARD];

#[derive(Debug, clap::Args)]
#[command(after_help = examples::CAPTURE)]
pub(super) struct Args {
    /// File to write, in pcapng; "-" is standard output [default: none; a line for each packet is printed]
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    part: Part,
    /// Only packets with this reason, as counters name it, or all that were "forwarded", "passed" or
    /// "dropped"; can be given several times
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only what this program sees; can be given several times
    #[arg(long = "hook", value_name = "PROGRAM", value_parser = PROGRAMS)]
    hooks: Vec<String>,
    /// Bytes of each packet; 0: as many as can be, 2048
    #[arg(short, long, default_value_t = 256, value_name = "BYTES")]
    snap: u32,
}

impl Args {
    /// Two things cannot be written to one place.
    fn refuse_two_outputs(&self, format: Format) -> CommandResult {
        let to_standard = self.file.as_deref() == Some(Path::new("-"));
        if to_standard && format == Format::Json {
            return Err(Failure::BadInput(anyhow!(
                "write pcapng and JSON to standard output: one of them at a time; give -w a file, \
                 or leave out -w or --output json"
            )));
        }
        Ok(())
    }

    /// Bytes of each packet.
    fn snap(&self) -> u32 {
        match self.snap {
            0 => u32::try_from(MAX_SNAP).unwrap_or(u32::MAX),
            some => some,
        }
    }
}

pub(super) fn capture(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    args: Args,
) -> CommandResult {
    let choice = args.part.choice()?;
    args.refuse_two_outputs(format)?;
    let instance = client::the_instance(dirs, instance, Dirs::may_listen)?;
    let ask = |request: &Request| client::call(dirs, &instance, request);
    let signals = signals().map_err(Failure::Problem)?;
    let output = args.file.as_deref().map(Output::open).transpose()?;
    let snap = args.snap();
    let end = args.part.end();
    let wanted = Wanted {
        endpoint: args.part.endpoint,
        peer: args.part.peer,
        reasons: args.reasons,
        hooks: args.hooks,
        // What is shorter than its headers cannot be chosen: it is cut here.
        snap: snap.max(HEADERS),
        monitor: false,
    };
    let started = ask(&Request::CaptureStart(wanted)).and_then(|reply| client::done(&reply));
    if let Err(refused) = started {
        if let Some(output) = output {
            output.abandon();
        }
        return Err(refused);
    }
    let mut file = output
        .map(Output::emptied)
        .transpose()
        .map_err(Failure::Problem)?;
    let Reply::Status(status) = ask(&Request::Status {})? else {
        return Err(client::unexpected());
    };
    if format == Format::Text {
        watching::tell_if_blind(&status);
        eprintln!("capturing on {instance}; Ctrl-C ends it");
    }
    let is_file = file.is_some();
    let mut writing = Writing {
        file: file.as_mut().map(|file| Pcapng::new(file, snap)),
        // Beside a file, people read what it holds; programs read what is printed.
        lines: (!is_file || format == Format::Json).then_some(format),
        ports: status.networks.iter().map(|network| network.port).collect(),
        choice,
        snap: usize::try_from(snap).unwrap_or(usize::MAX),
        left: args.part.count.unwrap_or(u64::MAX),
        written: 0,
        frames: 0,
    };
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
    match written {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(unwritten(args.file.as_deref(), &error, writing.written))
        }
        _ => {
            writing.tell(format, is_file, &rest);
            Ok(())
        }
    }
}

fn unwritten(file: Option<&Path>, error: &io::Error, packets: u64) -> Failure {
    Failure::Problem(match file {
        Some(file) => anyhow!(
            "write to {}: {error}; what it has so far stays, and {packets} packets may be in it: \
             give a file on a disk that has room",
            file.display()
        ),
        None => anyhow!("write to standard output: {error}"),
    })
}

/// Where packets go. A file that is there keeps its content until there is a capture.
enum Output<'p> {
    Standard,
    File {
        file: File,
        path: &'p Path,
        /// Its inode, if it was not there before.
        new: Option<u64>,
    },
}

impl<'p> Output<'p> {
    fn open(path: &'p Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let opened = match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_existing(path).map(|file| (file, None))
            }
            file => file.and_then(|file| {
                let inode = file.metadata()?.ino();
                Ok((file, Some(inode)))
            }),
        };
        let (file, new) = opened.map_err(|cause| {
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
            path, new: Some(inode), ..
        } = self
            // What has taken its place is somebody else's.
            && fs::symlink_metadata(path).is_ok_and(|there| there.ino() == inode)
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("remove {}: {error}", path.display());
        }
    }
}

/// A file that is there. Where others can put a link, they choose what is written to: it is not followed.
fn open_existing(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let is_link = fs::symlink_metadata(path)?.is_symlink();
    if is_link && !files::is_private(folder.unwrap_or(Path::new(".")))? {
        return Err(io::Error::other(
            "it is a symbolic link in a folder that others can write to",
        ));
    }
    File::options().write(true).open(path)
}

/// Where packets are written, and how many more are wanted.
struct Writing<'f> {
    file: Option<Pcapng<'f>>,
    /// How a line for each is printed, if one is.
    lines: Option<Format>,
    /// The networks' UDP ports.
    ports: Vec<u16>,
    choice: Choice,
    /// Bytes of each packet.
    snap: usize,
    left: u64,
    written: u64,
    frames: u64,
}

impl Writing<'_> {
    /// Writes packets; whether more are wanted.
    fn write(&mut self, captured: &Captured) -> io::Result<bool> {
        let mut out = io::stdout().lock();
        for packet in &captured.packets {
            if self.left == 0 {
                break;
            }
            let frame = hex::decode(&packet.before.hex).map_err(io::Error::other)?;
            let flows = Flows::of(&frame, &self.ports);
            if !self.choice.takes(&flows) {
                continue;
            }
            let packet = &cut(packet.clone(), self.snap);
            if let Some(file) = &mut self.file {
                file.packet(packet)?;
            }
            match self.lines {
                Some(Format::Text) => writeln!(out, "{} {}", time(packet), line(packet, &flows))?,
                Some(Format::Json) => writeln!(out, "{}", with_frames(packet, &flows))?,
                None => {}
            }
            self.left -= 1;
            self.written += 1;
            self.frames += 1 + u64::from(packet.after.is_some());
        }
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        out.flush()?;
        Ok(self.left > 0)
    }

    /// Says how many packets there were, and how many more.
    fn tell(&self, format: Format, is_file: bool, rest: &Captured) {
        let more = rest.over_budget + rest.ring_full;
        if format == Format::Json {
            if more > 0 {
                // Nobody reads it any more, if that fails.
                let _told = writeln!(io::stdout(), "{}", left_out(more));
            }
            return;
        }
        let packets = count(self.written, "packet");
        if is_file {
            let frames = count(self.frames, "frame");
            eprintln!("{packets}, in {frames} of the file: before and behind a program");
        } else {
            eprintln!("{packets}");
        }
        if more > 0 {
            eprintln!(
                "{more} more were not captured: {} over what the programs may tell, {} that nobody read in time; choose fewer with --endpoint, --peer, --reason or --hook",
                rest.over_budget, rest.ring_full
            );
        }
    }
}

/// A packet with no more of its bytes than these.
fn cut(mut seen: Seen, bytes: usize) -> Seen {
    for frame in std::iter::once(&mut seen.before).chain(&mut seen.after) {
        // Two digits a byte.
        frame.hex.truncate(bytes.saturating_mul(2));
    }
    seen
}

/// A packet with where it went, and its first bytes as it came and as it went.
fn with_frames(seen: &Seen, flows: &Flows) -> Value {
    let mut object = object(seen, flows);
    object["handed_to"] = json!(seen.handed_to);
    object["before"] = json!(seen.before);
    object["after"] = json!(seen.after);
    object
}
