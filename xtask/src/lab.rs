//! `cargo xtask lab`: networks of namespaces on this machine, to look at and to play with.

mod guide;

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use overlay_tests::{
    check,
    families::Families,
    lab::{self, Raised},
    names::LabName,
    processes::{self, MARK},
    run, scenario,
    script::{Script, inside, words},
    shape::{Scenario, Shape, ShapeError},
    state::{self, State},
    topology::Topology,
    uplink::{self, Uplink},
};

use crate::{build, console::Console, setup};

/// Arguments of `lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Raise a lab, check that everyone reaches everyone, and leave it running
    Up(Up),
    /// Ping from every node and container to every node, gateway and container
    Check(Named),
    /// Run a command in a namespace of the lab
    Exec(Exec),
    /// Show which labs are up, who is in them and what runs
    Status {
        /// Only this lab
        #[arg(long)]
        name: Option<LabName>,
    },
    /// Take a lab down; nothing of it is left
    Down(Named),
}

#[derive(clap::Args)]
struct Named {
    /// Prefix of the lab's namespaces
    #[arg(long, default_value = "lab")]
    name: LabName,
}

#[derive(clap::Args)]
struct Up {
    #[command(flatten)]
    named: Named,
    /// How the containers are connected
    #[arg(long, default_value = "overlay", value_parser = scenarios())]
    scenario: Scenario,
    /// Number of nodes; the scenario's usual number when not given
    #[arg(long)]
    nodes: Option<u8>,
    /// Number of containers on each node; the scenario's usual number when not given
    #[arg(long)]
    containers: Option<u8>,
    /// What the nodes speak to each other, and what their tunnels run on: a family, a kind of device,
    /// or one of each with a comma. With both, nodes 1 and 2 meet over IPv4, 1 and 3 over IPv6
    #[arg(long, value_delimiter = ',', value_parser = underlays(), default_values = ["4", "card"])]
    underlay: Vec<Underlay>,
    /// What the containers speak to each other
    #[arg(long, value_name = "FAMILIES", default_value_t, value_parser = families())]
    inside: Families,
    /// Build the agent as packages have it, which takes twice as long; the programs in the kernel are
    /// optimized either way
    #[arg(long)]
    release: bool,
    /// Print the commands that a person would type to build it, as a shell script; do nothing
    #[arg(long)]
    explain: bool,
}

#[derive(clap::Args)]
struct Exec {
    #[command(flatten)]
    named: Named,
    /// The namespace, such as lab-n1c1, or n1c1 for short
    namespace: String,
    /// The command and its arguments, after --
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

fn scenarios() -> impl clap::builder::TypedValueParser<Value = Scenario> {
    let values =
        Scenario::ALL.map(|scenario| PossibleValue::new(scenario.name()).help(scenario.about()));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Scenario>())
}

/// What `--underlay` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underlay {
    Speaks(Families),
    RunsOn(Uplink),
}

impl FromStr for Underlay {
    type Err = uplink::Unknown;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let families = name.parse().map(Self::Speaks);
        families.or_else(|_| name.parse().map(Self::RunsOn))
    }
}

fn underlays() -> impl clap::builder::TypedValueParser<Value = Underlay> {
    let families = Families::ALL.map(|families| {
        let about = format!("the nodes speak {}", families.text());
        PossibleValue::new(families.name()).help(about)
    });
    let kinds = Uplink::ALL.map(|uplink| PossibleValue::new(uplink.name()).help(uplink.about()));
    PossibleValuesParser::new(families.into_iter().chain(kinds))
        .try_map(|name| name.parse::<Underlay>())
}

fn families() -> impl clap::builder::TypedValueParser<Value = Families> {
    PossibleValuesParser::new(Families::ALL.map(Families::name))
        .try_map(|name| name.parse::<Families>())
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Up(args) => up(&args),
        Action::Check(Named { name }) => check(&lab::find(&name)?.topology()),
        Action::Exec(args) => exec(&args),
        Action::Status { name } => status(name),
        Action::Down(Named { name }) => down(&name),
    }
}

/// What a command line asks for; of two families or two kinds of device the last one.
fn shape(args: &Up) -> Result<Shape, ShapeError> {
    let (mut families, mut uplink) = (Families::default(), Uplink::default());
    for part in &args.underlay {
        match *part {
            Underlay::Speaks(chosen) => families = chosen,
            Underlay::RunsOn(chosen) => uplink = chosen,
        }
    }
    let name = args.named.name.clone();
    Shape::new(name, args.scenario, args.nodes, args.containers)?
        .speaking(families, args.inside)?
        .on_uplink(uplink)
}

fn up(args: &Up) -> Result<()> {
    let shape = shape(args).unwrap_or_else(|error| {
        let kind = clap::error::ErrorKind::ValueValidation;
        clap::Error::raw(kind, format!("{error}\n")).exit()
    });
    let topology = Topology::new(shape.clone());
    let profile = if args.release { "release" } else { "dev" };
    if args.explain {
        let agent = lab::agent_program_in(build::folder(profile));
        let script = script(&topology, &agent);
        print!("{}", guide::explanation(&topology, &agent, &script));
        return Ok(());
    }
    lab::require_root()?;
    let console = Console::default();
    let agent = prepare(console, shape.scenario, profile)?;
    let mut script = script(&topology, &agent);
    // It may be unpacked where a shell would not look.
    if let Some(etcd) = setup::servers::program("etcd") {
        script.reword(|argv| {
            for word in argv.iter_mut().filter(|word| *word == "etcd") {
                *word = etcd.display().to_string();
            }
        });
    }
    let raised = lab::raise(&topology, &agent, &script, &mut |doing| {
        console.say("lab", doing);
    })?;
    match raised {
        Raised::Now => console.say("up", &shape),
        Raised::Before => {
            for instance in lab::start_missing(&topology, &agent)? {
                console.say(
                    "lab",
                    format_args!("The agent of {instance} had ended: started again"),
                );
            }
            console.say("up", format_args!("{shape}, as before"));
        }
    }
    check(&topology)?;
    print!("\n{}", guide::what_to_try(&topology, &agent));
    Ok(())
}

/// The scenario's script, with nodes that look after each other: `status` has more to show then.
fn script(topology: &Topology, agent: &Path) -> Script {
    let mut script = scenario::up(topology, agent);
    for node in topology
        .nodes
        .iter()
        .filter(|node| topology.has_agent(node))
    {
        let mut config = scenario::agents::config(topology, node);
        config.node.probe = Some("1s");
        let text = match topology.shape.scenario {
            Scenario::Etcd => scenario::etcd::config(topology, node, Some("1s")),
            _ => config.to_toml(),
        };
        let file = state::config_file(&topology.shape.name, &node.namespace);
        script.rewrite(&file, &text);
    }
    script
}

/// Builds what a lab needs before it can be raised; returns the agent's program.
fn prepare(console: Console, scenario: Scenario, profile: &str) -> Result<PathBuf> {
    let given = std::env::var_os("OVERLAY_AGENT").is_some();
    if scenario == Scenario::Container && !lab::busybox_program().is_file() {
        setup::run_for_tests(console)?;
    }
    if scenario == Scenario::Etcd {
        setup::etcd(console)?;
    }
    if scenario.needs_agent() && !given {
        return build::for_lab(console, profile, scenario == Scenario::Etcd);
    }
    setup::run(console)?;
    Ok(lab::agent_program_in(build::folder(profile)))
}

fn check(topology: &Topology) -> Result<()> {
    lab::require_root()?;
    let matrix = check::all_pairs(topology)?;
    println!("\n{matrix}");
    let faults = matrix.faults().len();
    if faults > 0 {
        bail!("{faults} of {} pings are not as they must be", matrix.len());
    }
    for instance in lab::missing(topology)? {
        println!("no agent runs for {instance}: `cargo xtask lab up` starts it again");
    }
    Ok(())
}

/// Becomes the command, so that its exit code and its terminal are the caller's.
fn exec(args: &Exec) -> Result<()> {
    lab::require_root()?;
    let name = &args.named.name;
    let namespaces = lab::find(name)?.topology().namespaces();
    let full = format!("{name}-{}", args.namespace);
    let Some(namespace) = namespaces
        .iter()
        .find(|known| **known == args.namespace || **known == full)
    else {
        bail!(
            "lab {name} has no namespace {}: choose one of {}",
            args.namespace,
            namespaces.join(", ")
        );
    };
    let mut words = words(inside(namespace, "--"));
    words.extend_from_slice(&args.command);
    let (program, arguments) = words.split_first().context("an empty command")?;
    let error = std::process::Command::new(program)
        .args(arguments)
        .env(MARK, name.to_string())
        .exec();
    Err(error).with_context(|| format!("run {program}"))
}

fn status(name: Option<LabName>) -> Result<()> {
    let names = match name {
        Some(name) => vec![name],
        None => state::all()?,
    };
    if names.is_empty() {
        bail!("no lab is up: `cargo xtask lab up` raises one");
    }
    let mut degraded = Vec::new();
    for name in names {
        let Some(state) = State::load(&name)? else {
            bail!("no lab {name} is up: `cargo xtask lab up --name {name}` raises it");
        };
        if !describe(&state)? {
            degraded.push(name.to_string());
        }
    }
    if degraded.is_empty() {
        Ok(())
    } else {
        bail!("not well: lab {}", degraded.join(", lab "))
    }
}

/// Shows one lab; false when something in it is not as it must be.
fn describe(state: &State) -> Result<bool> {
    let (shape, topology) = (&state.shape, state.topology());
    println!(
        "{shape}{}",
        if state.ready {
            ""
        } else {
            " (half-built: `lab up` or `lab down` ends that)"
        }
    );
    print!("{}", guide::map(&topology));
    for process in processes::of_lab(&shape.name)? {
        println!("  process {:>7}  {}", process.pid, process.command);
    }
    let mut well = state.ready;
    for instance in topology.instances() {
        let agent = state.agent.to_string_lossy().into_owned();
        let out = run::output(&[agent, "status".into(), "--instance".into(), instance.into()])?;
        println!("\nagent {instance}:\n{}{}", out.stdout, out.stderr);
        well &= out.success;
    }
    Ok(well)
}

fn down(name: &LabName) -> Result<()> {
    let console = Console::default();
    let was_up = lab::down(name, &mut |doing| console.say("lab", doing))?;
    console.say(
        "lab",
        format_args!("{name}: {}", if was_up { "is down" } else { "was not up" }),
    );
    Ok(())
}
