//! `doctor`: asks the agent to examine its node, or, where there is none, examines it itself.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use overlay_control::{
    Cure, Diagnosis, DiagnosisNote, DoctorSpec, Finding, Reply, Request, Severity,
};
use overlay_core::{config::Files, dirs::Dirs, model::Name, plural::count_of};
use overlay_insight::doctor::{ExamineError, Patient, examine};
use overlay_node::{key::KeyFile, store::Store};

use super::{CommandResult, Failure, Format, client, local, output};

/// What is examined, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Examine the node of this configuration without asking an agent
    #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
    config: Option<PathBuf>,
    /// With --config: network namespace that is the node: a name under /run/netns, or a path
    /// [default: that of the instance's last agent, else the caller's]
    #[arg(long, requires = "config")]
    netns: Option<PathBuf>,
    /// How long counters are watched and answers are waited for
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    sample: Duration,
    /// List the checks that have found nothing, too
    #[arg(long, short)]
    verbose: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f32(seconds) {
        Ok(duration) if (0.1..=60.0).contains(&seconds) => Ok(duration),
        _ => Err("use 0.1 to 60".to_owned()),
    }
}

pub(super) fn doctor(
    args: Args,
    instance: Option<Name>,
    dirs: &Dirs,
    format: Format,
) -> CommandResult {
    let verbose = args.verbose;
    let mut diagnosis = match args.config {
        Some(config) => alone(&config, args.netns, instance, dirs, args.sample)?,
        None => by_agent(instance, dirs, args.sample)?,
    };
    note_if_alone(&mut diagnosis, dirs);
    output::print(|out| match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&diagnosis)?),
        Format::Text => print(out, &diagnosis, verbose),
    })
    .map_err(Failure::Problem)?;
    if diagnosis.is_healthy() {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

fn by_agent(instance: Option<Name>, dirs: &Dirs, sample: Duration) -> Result<Diagnosis, Failure> {
    let sample_ms = u32::try_from(sample.as_millis()).unwrap_or(u32::MAX);
    let request = Request::Doctor(DoctorSpec { sample_ms });
    match client::ask(dirs, instance, &request) {
        Ok(Reply::Diagnosis(diagnosis)) => Ok(*diagnosis),
        Ok(_) => Err(client::unexpected()),
        Err(Failure::NoAgent(error)) => Err(Failure::NoAgent(anyhow!(
            "{error:#}; \"overlay-agent doctor --config FILE\" examines the node without it"
        ))),
        Err(failure) => Err(failure),
    }
}

fn alone(
    path: &std::path::Path,
    netns: Option<PathBuf>,
    instance: Option<Name>,
    dirs: &Dirs,
    sample: Duration,
) -> Result<Diagnosis, Failure> {
    let mut files = Files::new(path);
    let loaded = files.load().map_err(Failure::bad_input)?;
    let instance = instance.unwrap_or_else(|| loaded.model.node.name.clone());
    let mut files = files.with_cluster(dirs.cluster(&instance));
    let model = files.load().map_err(Failure::bad_input)?.model;
    let store = Store::open(dirs, &instance).map_err(Failure::bad_input)?;
    let named = netns.map(local::netns_path);
    let remembered = store.content().netns.clone();
    match (&named, &remembered) {
        (Some(netns), _) => local::enter(netns)?,
        (None, Some(netns)) => local::enter_remembered(netns, &instance)?,
        (None, None) => {}
    }
    let netns = named.or(remembered);
    let patient = Patient {
        content: store.content().clone(),
        pins: dirs.pins(&instance),
        key: KeyFile::at(dirs.private_key(&instance)),
        model,
        netns,
        sample,
        agent: None,
    };
    examine(&patient).map_err(|error| match error {
        ExamineError::Kernel(error) if error.is_denied() => {
            Failure::NoRights(anyhow!("examine the node: {error}; run it as root"))
        }
        error => Failure::problem(error),
    })
}

/// Says so where no agent runs: what is well now nobody keeps so.
fn note_if_alone(diagnosis: &mut Diagnosis, dirs: &Dirs) {
    let instance = &diagnosis.instance;
    // With a file it is not asked, and runs all the same.
    diagnosis.agent_running |= UnixStream::connect(dirs.socket(instance)).is_ok();
    if diagnosis.agent_running {
        return;
    }
    let start = client::last_start(dirs, instance);
    let (text, commands) = match start {
        Some(start) => ("start it", vec![start]),
        None => (
            "start it with \"overlay-agent run --config FILE\"",
            Vec::new(),
        ),
    };
    diagnosis.notes.push(DiagnosisNote {
        id: "no-agent".to_owned(),
        object: instance.to_string(),
        what: format!(
            "no agent runs for instance {instance}: nothing is repaired, no probe is answered, and changes of \
             the configuration are not read"
        ),
        cure: Cure {
            text: text.to_owned(),
            commands,
        },
    });
}

fn print(out: &mut dyn Write, diagnosis: &Diagnosis, verbose: bool) -> io::Result<()> {
    for DiagnosisNote { what, cure, .. } in &diagnosis.notes {
        writeln!(out, "note: {what}")?;
        print_cure(out, cure)?;
    }
    for finding in &diagnosis.findings {
        print_finding(out, finding)?;
    }
    if verbose {
        for check in &diagnosis.passed {
            writeln!(out, "not found: {check}")?;
        }
        for skipped in &diagnosis.skipped {
            writeln!(out, "skipped: {}: {}", skipped.check, skipped.because)?;
        }
    }
    let (found, passed) = (diagnosis.findings.len(), diagnosis.passed.len());
    let skipped = match diagnosis.skipped.len() {
        0 => String::new(),
        some => format!(", {some} skipped (--verbose says why)"),
    };
    writeln!(
        out,
        "node {}: {}, {passed} checks passed{skipped}",
        diagnosis.node,
        count_of(found, "finding")
    )
}

fn print_finding(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let severity = match finding.severity {
        Severity::Problem => "problem",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let Finding {
        check,
        object,
        what,
        why,
        follows_from,
        cure,
        ..
    } = finding;
    writeln!(out, "{severity}: {object}: {what} [{check}]")?;
    if let Some(cause) = follows_from {
        writeln!(out, "  follows from {cause}, above")?;
    }
    writeln!(out, "  why:  {why}")?;
    print_cure(out, cure)?;
    writeln!(out)
}

fn print_cure(out: &mut dyn Write, cure: &Cure) -> io::Result<()> {
    writeln!(out, "  cure: {}", cure.text)?;
    let mut commands = cure.commands.iter();
    commands.try_for_each(|command| writeln!(out, "        # {command}"))
}
