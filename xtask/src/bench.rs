//! `cargo xtask bench`: overlay beside what it is to be compared with, on one machine, in
//! one run.
//!
//! All [`subject`]s are up all the time and idle but for one. A round goes through the
//! [`measure`]ments, and each of them through the subjects, so that what is compared was
//! measured within seconds. [`witness`] asks the counters whether the packets took the
//! path under test; [`growth`] comes after the rounds.

mod ceiling;
mod cluster;
mod cores;
mod goals;
mod growth;
mod interrupt;
mod labs;
mod load;
mod machine;
mod measure;
mod metric;
mod offloads;
mod options;
mod plugins;
mod report;
mod results;
mod rounds;
mod scale;
mod stats;
mod subject;
mod tools;
mod uplinks;
mod witness;

use std::{
    env, fs,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use overlay_tests::lab;

pub(crate) use options::Args;

use crate::{build, console::Console, setup, vm::icount, workspace};
use cores::Cores;
use labs::{Agents, Labs};
use machine::Machine;
use measure::{Bench, CpuTime};
use options::Options;
use results::{Context, Results};
use subject::Subject;

/// Measures, and shows what came out.
///
/// # Errors
/// When the machine is busy, or a lab cannot be raised; and when the user interrupts, or
/// measurements fail, though what was measured is written then.
pub(crate) fn run(console: Console, args: &Args) -> Result<()> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => workspace::target()?.join("bench"),
    };
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    if args.icount {
        let agent = env::var_os("OVERLAY_AGENT").map(PathBuf::from);
        let (kernels, baseline) = (args.kernels.clone(), args.baseline.clone());
        return icount::count(console, kernels, agent, baseline, &out);
    }
    lab::require_root()?;
    if args.subjects.contains(&Subject::Baseline) && args.baseline.is_none() {
        bail!("subject baseline is another build of the agent: name it with --baseline AGENT");
    }
    let options = Options::from(args);
    let agents = Agents {
        measured: agent(console)?,
        baseline: args.baseline.clone(),
    };
    let _alone = alone()?;
    interrupt::install()?;
    if args.scale || args.cluster || args.plugins {
        if !args.force {
            machine::wait_until_quiet(|why| console.say("bench", why))?;
        }
        if args.cluster {
            return cluster::run(console, &agents.measured, &out, args.quick);
        }
        if args.plugins {
            return plugins::run(console, &agents.measured, &out, args.quick);
        }
        return scale::run(console, &agents.measured, &out, args.quick);
    }
    let cores = Cores::choose()?;
    let load_before = if args.force {
        machine::load()?
    } else {
        machine::wait_until_quiet(|why| console.say("bench", why))?
    };
    let mut context = Context {
        date: machine::now()?,
        machine: Machine::describe(&agents, cores)?,
        congestion: match &args.congestion {
            Some(name) => name.clone(),
            None => machine::congestion()?,
        },
        complete_rounds: 0,
        interrupted: false,
        load_before,
        load_between: load_before,
        stolen: 0.0,
        options,
    };
    let labs = Labs::raise(&context.options.needed(), &agents, &mut |doing| {
        console.say("bench", doing);
    })?;
    let bench = Bench {
        labs,
        cores,
        times: context.options.times,
        congestion: context.congestion.clone(),
    };

    let (started, before) = (Instant::now(), CpuTime::read()?);
    let mut results = Results::default();
    let measured = rounds::run(console, &bench, &mut context, &mut results, &out);
    console.say("bench", "taking the labs down");
    bench.labs.down()?;
    measured?;
    context.stolen = CpuTime::read()?.stolen_since(&before, started.elapsed());
    context.interrupted = interrupt::requested();

    let written = report::write(&out, &context, &results)?;
    print!("\n{}", report::table(&context, &results));
    for path in written {
        console.say("written", path.display());
    }
    if context.interrupted {
        bail!(
            "interrupted after {} of {} rounds",
            context.complete_rounds,
            context.options.rounds
        );
    }
    if results.failures.is_empty() {
        return Ok(());
    }
    bail!(
        "{} measurements failed or did not take the path under test; they are not in the results",
        results.failures.len()
    )
}

/// The right to measure, which ends with the value: two at once would measure each other,
/// and use the same labs.
fn alone() -> Result<UnixListener> {
    // A name that only one process can have, and that leaves no file behind.
    let name = SocketAddr::from_abstract_name("overlay-bench").context("name a socket")?;
    UnixListener::bind_addr(&name).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!("another benchmark runs on this machine"),
        _ => Error::new(error).context("find out whether another benchmark runs"),
    })
}

/// The agent to measure: `OVERLAY_AGENT`, or what is built now.
fn agent(console: Console) -> Result<PathBuf> {
    setup::run_for_measuring(console)?;
    if env::var_os("OVERLAY_AGENT").is_none() {
        return build::compile(console);
    }
    Ok(lab::agent_program())
}
