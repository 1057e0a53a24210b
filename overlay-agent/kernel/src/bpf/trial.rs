//! Copies of the programs to run packets through: what they look up is the instance's own,
//! what they count is nobody's.

use std::{path::Path, time::Duration};

use aya::{
    Ebpf, TestRun as _,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{ProgramInfo, SchedClassifier, TestRunOptions, TestRunResult, Xdp, loaded_programs},
};
use overlay_common::{
    journal::Watch,
    maps::{FLOWS, FLOWS_IN_USE, FlowKey, PEER_STATS},
};
use overlay_core::{
    model::{LogLevel, Rx},
    objects::Hook,
};

use super::{
    Event, Variant,
    events::Ring,
    failure::failed,
    load::{self, Globals},
    pins::Pins,
    specs,
};
use crate::{KernelError, Result};

/// The identity of a program's build: the same instructions before the kernel has
/// verified them, and as many left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The kernel's hash of the instructions.
    pub tag: u64,
    /// Instructions that the verifier has left.
    pub instructions: u32,
}

impl Build {
    fn of(info: &ProgramInfo) -> Self {
        const INSTRUCTION: u32 = 8;
        Self {
            tag: info.tag(),
            instructions: info.size_translated().unwrap_or_default() / INSTRUCTION,
        }
    }

    /// That of a loaded program; `None` when it is gone.
    pub fn of_program(id: u32) -> Option<Self> {
        let mut programs = loaded_programs().filter_map(Result::ok);
        programs
            .find(|info| info.id() == id)
            .map(|info| Self::of(&info))
    }
}

/// The outcome of a packet.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The returned action.
    pub action: u32,
    /// The packet as it was left.
    pub bytes: Vec<u8>,
    /// The program's events, if it is watched.
    pub events: Vec<Event>,
}

/// Gives the copies what the programs have learned of flows; what they learn themselves is
/// nobody's.
fn copy_flows(pins: &Pins, ebpf: &mut Ebpf) -> Result<(), MapError> {
    let pinned = |name| MapData::from_pin(pins.map(name));
    let in_use: Array<_, u32> = Map::Array(pinned(FLOWS_IN_USE)?).try_into()?;
    if let Some(map) = ebpf.map_mut(FLOWS_IN_USE) {
        Array::<_, u32>::try_from(map)?.set(0, in_use.get(&0, 0)?, 0)?;
    }
    let flows: HashMap<_, FlowKey, u32> = Map::LruHashMap(pinned(FLOWS)?).try_into()?;
    if let Some(map) = ebpf.map_mut(FLOWS) {
        let mut copy: HashMap<_, FlowKey, u32> = map.try_into()?;
        // One that goes meanwhile ends the walk, or starts it again: those seen so far are enough.
        for (key, translated) in flows.iter().map_while(Result::ok) {
            copy.insert(key, translated, 0)?;
        }
    }
    Ok(())
}

/// A program that is attached nowhere.
pub struct Trial {
    ebpf: Ebpf,
    hook: Hook,
    ring: Option<Ring>,
}

impl Trial {
    /// Loads the hook's program onto the maps of the instance that are pinned in `dir`, with
    /// counters of its own.
    pub fn load(
        dir: &Path,
        object: &[u8],
        rx: Rx,
        hook: Hook,
        watch: Option<Watch>,
    ) -> Result<Self> {
        let operation = "load a copy of the programs";
        let pins = Pins::new(dir);
        let variant = Variant {
            log: LogLevel::Off,
            watch,
        };
        let globals = Globals::of(rx, &variant);
        let mut loader = globals.loader();
        for map in specs::MAPS.iter().filter(|map| !map.is_theirs()) {
            let pin = pins.map(map.name);
            // The loader would make it, where it is missing.
            if !map.is_pinned(&pins)? {
                return Err(
                    KernelError::new(operation, format!("map {} is not there", map.name))
                        .with_cure("switch the fast path on: overlay-agent fastpath on"),
                );
            }
            loader.map_max_entries(map.name, u32::try_from(map.entries()).unwrap_or(u32::MAX));
            loader.map_pin_path(map.name, pin);
        }
        // Nobody reads them.
        loader.map_max_entries(PEER_STATS, 1);
        let mut ebpf = loader
            .load(object)
            .map_err(|error| failed(operation, &error))?;
        copy_flows(&pins, &mut ebpf).map_err(|error| failed(operation, &error))?;
        if hook.is_xdp() {
            load::load_xdp(&mut ebpf, hook)?;
        } else {
            load::load_tc(&mut ebpf, hook)?;
        }
        let ring = watch.map(|_| Ring::of(&mut ebpf)).transpose()?;
        Ok(Self { ebpf, hook, ring })
    }

    /// Which build it is.
    pub fn build(&mut self) -> Result<Build> {
        let info = if self.hook.is_xdp() {
            load::xdp_program(&mut self.ebpf, self.hook)?.info()
        } else {
            load::program(&mut self.ebpf, self.hook)?.info()
        };
        let info = info.map_err(|error| failed("look at a copy of the programs", &error))?;
        Ok(Build::of(&info))
    }

    /// Runs it on a frame that comes to the device with this index of the thread's namespace.
    pub fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Ran> {
        /// Room for what a program puts before a packet.
        const ROOM: usize = 256;
        let mut bytes = vec![0; frame.len() + ROOM];
        let result = self.once(frame, ifindex, Some(&mut bytes))?;
        bytes.truncate(result.data_size_out as usize);
        let ring = self.ring.as_mut();
        let events = ring.map(|ring| std::iter::from_fn(|| ring.next()).collect());
        Ok(Ran {
            action: result.return_value,
            bytes,
            events: events.unwrap_or_default(),
        })
    }

    /// How long a run takes, the caches warm: the median of so many.
    pub fn time(&mut self, frame: &[u8], ifindex: u32, runs: usize) -> Result<Duration> {
        let mut times = Vec::with_capacity(runs);
        // One by one: another run of the same call would get what the first has made of it.
        for _ in 0..runs {
            times.push(self.once(frame, ifindex, None)?.duration);
        }
        times.sort_unstable();
        Ok(times.get(runs / 2).copied().unwrap_or_default())
    }

    fn once(
        &mut self,
        frame: &[u8],
        ifindex: u32,
        bytes: Option<&mut [u8]>,
    ) -> Result<TestRunResult> {
        /// Where `struct __sk_buff` has `ifindex`; what follows it may be left out.
        const IFINDEX: usize = 40;
        let operation = || format!("run a frame of {} bytes through a program", frame.len());
        let mut context = [0; IFINDEX + 4];
        context[IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
        let mut options = TestRunOptions {
            data_in: Some(frame),
            data_out: bytes,
            ..TestRunOptions::default()
        };
        let result = if self.hook.is_xdp() {
            let program: &Xdp = load::xdp_program(&mut self.ebpf, self.hook)?;
            program.test_run(options)
        } else {
            options.ctx_in = Some(&context);
            let program: &SchedClassifier = load::program(&mut self.ebpf, self.hook)?;
            program.test_run(options)
        };
        result.map_err(|error| failed(operation(), &error))
    }
}
