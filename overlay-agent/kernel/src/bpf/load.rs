//! Loading the programs.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use nix::{
    errno::Errno,
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
};
use overlay_common::{
    globals,
    journal::{EVENTS, WATCH, Watch},
    maps::PEER_STATS,
};
use overlay_core::{model::Rx, objects::Hook};
use tracing::{debug, warn};

use super::{
    Maps, Variant, counters, events,
    failure::failed,
    logs::{self, Logs},
    made::{Notes, in_the_way},
    pins::Pins,
    specs,
};
use crate::{KernelError, Result, capability, hooks::abi};

/// How many of the verifier's last lines an error has: the reason is in the last of
/// them, the instruction in those before.
const VERIFIER_LINES: usize = 12;

pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) programs: BTreeMap<&'static str, u32>,
    pub(super) maps: Maps,
    pub(super) logs: Option<Logs>,
}

pub(super) fn load(
    pins: &Pins,
    object: &[u8],
    rx: Rx,
    peers: usize,
    variant: &Variant,
) -> Result<Loaded> {
    let operation = "load the eBPF programs";
    // Before its verifier says the same in words that nobody understands.
    capability::check_kernel_release()?;
    raise_memory_limit();
    let mut made = Made::default();
    made.folder(&pins.maps())?;

    let globals = Globals::of(rx, variant);
    let mut loader = globals.loader();
    let replaced = counters::set_aside(pins, peers)?;
    for map in &specs::MAPS {
        let pin = pins.map(map.name);
        if !map.is_pinned(pins)? {
            made.folder(&Notes(pins).announcement(abi(), map.name))?;
            made.0.push(pin.clone());
        }
        let entries = match map.name {
            PEER_STATS => counters::slots(peers),
            _ => map.entries(),
        };
        loader.map_max_entries(map.name, u32::try_from(entries).unwrap_or(u32::MAX));
        loader.map_pin_path(map.name, pin);
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|error| failed(operation, &error))?;

    let mut programs = BTreeMap::new();
    for hook in Hook::ALL.into_iter().filter(|hook| !hook.is_xdp()) {
        programs.insert(hook.program(), load_tc(&mut ebpf, hook)?);
    }
    let mut maps = Maps::open_in(pins)?
        .ok_or_else(|| KernelError::new(operation, "the object has none of the ABI's maps"))?;
    // After the programs, which refer to the map of messages that this takes.
    let logs = logs::start(&mut ebpf, variant.log)?;
    if let Some(replaced) = replaced {
        replaced.carry_over(maps.counters_mut())?;
    } else if made.0.contains(&pins.map(PEER_STATS)) {
        maps.counters_mut().are_new();
    }
    Notes(pins).note(map_ids(pins)?.into_values())?;
    made.0.clear();
    Ok(Loaded {
        ebpf,
        programs,
        maps,
        logs,
    })
}

/// Values of the programs' globals.
pub(super) struct Globals {
    level: u8,
    strip: u32,
    watch: Option<Watch>,
}

impl Globals {
    pub(super) fn of(rx: Rx, variant: &Variant) -> Self {
        Self {
            level: variant.log.number(),
            strip: u32::from(rx == Rx::Xdp),
            watch: variant.watch(),
        }
    }

    /// Sets them; only an object that is built to be watched has the last one.
    pub(super) fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader.override_global(aya_log::LEVEL, &self.level, false);
        loader.override_global(globals::STRIP, &self.strip, true);
        if let Some(watch) = &self.watch {
            loader.override_global(WATCH, watch, true);
            loader.map_max_entries(EVENTS, events::RING);
        }
        loader
    }
}

/// Ids of the maps that are pinned, by name.
pub(super) fn map_ids(pins: &Pins) -> Result<BTreeMap<&'static str, u32>> {
    let mut ids = BTreeMap::new();
    for spec in &specs::MAPS {
        match MapInfo::from_pin(pins.map(spec.name)) {
            Ok(info) => drop(ids.insert(spec.name, info.id())),
            Err(error) => {
                let error = failed(format!("look at map {}", spec.name), &error);
                if !error.not_there() {
                    return Err(error);
                }
            }
        }
    }
    Ok(ids)
}

/// Pins a loaded map, which has this `id`, in the place of another one of ours.
pub(super) fn pin_again(ebpf: &Ebpf, pins: &Pins, map: &str, id: Option<u32>) -> Result<()> {
    let operation = || format!("pin map {map}");
    let pin = pins.map(map);
    let loaded = ebpf
        .map(map)
        .ok_or_else(|| KernelError::new(operation(), "the object has none of this name"))?;
    // Whatever has become of the notes: the programs are loaded onto this one.
    Notes(pins).note(id)?;
    let there = Notes(pins).pinned(abi(), map);
    if there.is_some() && there == id {
        return Ok(());
    }
    if fs::symlink_metadata(&pin).is_ok() && there.is_none() {
        return Err(in_the_way(operation(), pins, &pin));
    }
    let removed = fs::create_dir_all(pins.maps()).and_then(|()| match fs::remove_file(&pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    });
    removed.map_err(|error| KernelError::io(operation(), &error))?;
    loaded
        .pin(&pin)
        .map_err(|error| failed(operation(), &error))
}

/// Loads the program of a hook of TC; its id.
pub(super) fn load_tc(ebpf: &mut Ebpf, hook: Hook) -> Result<u32> {
    let program = program(ebpf, hook)?;
    program.load().map_err(|error| refused(hook, &error))?;
    let info = program.info();
    let info = info.map_err(|error| failed(format!("load program {}", hook.program()), &error))?;
    Ok(info.id())
}

/// Loads the program of a hook of XDP; its id.
///
/// Only when it is wanted: it is an extra, and must not keep the others from being loaded.
pub(super) fn load_xdp(ebpf: &mut Ebpf, hook: Hook) -> Result<u32> {
    let program = xdp_program(ebpf, hook)?;
    program.load().map_err(|error| refused(hook, &error))?;
    let info = program.info();
    let info = info.map_err(|error| failed(format!("load program {}", hook.program()), &error))?;
    Ok(info.id())
}

/// The program of a hook of TC.
pub(super) fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier> {
    program_of_type(ebpf, hook)
}

/// The program of a hook of XDP.
pub(super) fn xdp_program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Xdp> {
    program_of_type(ebpf, hook)
}

fn program_of_type<'a, P>(ebpf: &'a mut Ebpf, hook: Hook) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let operation = || format!("use program {}", hook.program());
    ebpf.program_mut(hook.program())
        .ok_or_else(|| KernelError::new(operation(), "the object has none of this name"))?
        .try_into()
        .map_err(|error: ProgramError| failed(operation(), &error))
}

fn refused(hook: Hook, error: &ProgramError) -> KernelError {
    let operation = format!("load program {}", hook.program());
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => KernelError::io(operation, io_error).because(tail(&verifier_log.to_string())),
        error => failed(operation, error),
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n")
}

/// Before 5.11, maps count as locked memory.
fn raise_memory_limit() {
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        // Newer kernels do not mind; on an older one, making the maps fails and says so.
        debug!("raise the limit of locked memory: {errno}");
    }
}

/// Pins that were made, or are about to be, in this order; removed again unless it is cleared.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a folder and those above it.
    fn folder(&mut self, path: &Path) -> Result<()> {
        let mut created = fs::create_dir(path);
        if let (Err(error), Some(parent)) = (&created, path.parent())
            && error.kind() == io::ErrorKind::NotFound
        {
            self.folder(parent)?;
            created = fs::create_dir(path);
        }
        match created {
            Ok(()) => self.0.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let error = KernelError::io(format!("make folder {}", path.display()), &error);
                return Err(if error.errno() == Some(Errno::EPERM as i32) {
                    // The sysfs folder that a bpffs belongs on refuses all.
                    error.with_cure("mount -t bpf bpf /sys/fs/bpf")
                } else {
                    error
                });
            }
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let removed = if path.is_dir() {
                fs::remove_dir(path)
            } else {
                fs::remove_file(path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(
                        "{}",
                        KernelError::io(format!("remove {}", path.display()), &error)
                    );
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{VERIFIER_LINES, tail};

    #[test]
    fn the_end_of_a_verifier_s_log_is_kept() {
        let lines: Vec<String> = (0..100).map(|line| format!("line {line}\n")).collect();
        let tail = tail(&lines.join("\n"));
        assert_eq!(tail.lines().count(), VERIFIER_LINES);
        assert!(tail.ends_with("line 99"));
        assert_eq!(super::tail("one line"), "one line");
        assert_eq!(super::tail(""), "");
    }
}
