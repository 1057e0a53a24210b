//! The command line: a contract that scripts rely on.
//!
//! Its exit codes are those of [`failure`].

mod asking;
mod called;
mod capture;
mod client;
mod cluster;
mod completing;
mod config;
mod doctor;
mod documents;
mod down;
mod encryption;
mod examples;
mod explain;
mod failure;
mod health;
mod journal;
mod local;
mod log;
mod machine;
mod monitor;
mod output;
mod packets;
mod patience;
mod pcapng;
mod peers;
mod ping;
mod progress;
mod stats;
mod top;
mod watching;

use std::{ffi::OsStr, path::PathBuf, process::ExitCode};

use clap::builder::Resettable;
use clap::{ArgGroup, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use overlay_core::{
    dirs::Dirs,
    model::{LogLevel, Name},
};

use self::failure::Failure;

type CommandResult = Result<(), Failure>;

/// VXLAN overlay networks with an eBPF fast path over the kernel's own.
#[derive(Debug, Parser)]
#[command(name = "overlay-agent", version, propagate_version = true, after_help = examples::AGENT)]
pub struct Cli {
    /// Instance to talk to or to start [default: the only one; for run, check and plan the node's name]
    #[arg(
        long,
        global = true,
        env = "OVERLAY_INSTANCE",
        add = ArgValueCompleter::new(completing::instances)
    )]
    instance: Option<Name>,
    /// Output format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        global = true,
        value_enum,
        default_value_t
    )]
    output: Format,
    #[command(flatten)]
    dirs: Dirs,
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    #[command(after_help = examples::RUN)]
    Run(NodeArgs),
    /// Validate a configuration, without privileges
    #[command(after_help = examples::CHECK)]
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
        config: PathBuf,
    },
    /// Print the steps that run would take; change nothing
    #[command(after_help = examples::PLAN)]
    Plan(NodeArgs),
    /// Show node, networks, peers, endpoints and health; exit 1 when degraded
    #[command(after_help = examples::STATUS)]
    Status,
    /// Attach and detach containers at run time
    #[command(subcommand, after_help = examples::ENDPOINT)]
    Endpoint(EndpointCommand),
    /// Show the other nodes, and how they are
    #[command(subcommand, after_help = examples::PEER)]
    Peer(peers::Command),
    /// Print the effective configuration, or an example
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(config::Command),
    /// Join, look at or leave a cluster whose peers come from etcd
    #[command(subcommand, after_help = examples::CLUSTER)]
    Cluster(cluster::ClusterCommand),
    /// Detach or attach the eBPF programs under live traffic
    #[command(after_help = examples::FASTPATH)]
    Fastpath {
        /// Attach (on) or detach (off); without it, the state is printed
        state: Option<Switch>,
    },
    /// Remove everything that this instance created
    #[command(after_help = examples::DOWN)]
    Down,
    /// Show what was counted: by peer, endpoint, program and reason
    #[command(after_help = examples::STATS)]
    Stats(stats::Args),
    /// Show a live view of the node in the terminal
    #[command(after_help = examples::TOP)]
    Top(top::Args),
    /// Write manual pages and completions for a package
    #[command(hide = true)]
    Documents {
        /// Folder to write them to
        #[arg(long)]
        into: PathBuf,
    },
    /// Find what is wrong on this node, and say how to cure it; exit 1 when anything is
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::Args),
    /// Tell what becomes of a packet, decision by decision, and hop by hop
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::Args),
    /// Set which packets the eBPF programs log, until the agent exits
    #[command(after_help = examples::LOG_LEVEL)]
    LogLevel {
        /// How much; without it, the level is printed
        level: Option<LogLevel>,
    },
    /// Capture packets at the eBPF programs, annotated with their verdict, as pcapng, lines or JSON
    #[command(after_help = examples::CAPTURE)]
    Capture(capture::Args),
    /// Print each packet that is dropped or left to the kernel, with its reason, as it happens
    Monitor(monitor::Args),
    /// Print the public half of this node's key, for the configurations of its peers
    #[command(after_help = examples::KEY)]
    Key(encryption::Args),
    /// Send packets as a container does, and tell loss, round trip and the largest that arrives;
    /// exit 1 when nothing is answered
    Ping(ping::Args),
}

#[derive(Debug, clap::Args)]
struct NodeArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
    config: PathBuf,
    /// Network namespace that is the node: a name under /run/netns, or a path [default: the caller's]
    #[arg(long)]
    netns: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Attach a container to a network
    #[command(
        after_help = examples::ENDPOINT_ADD,
        group = ArgGroup::new("container").required(true).args(["netns", "pid"])
    )]
    Add {
        /// Its name, unique on the node
        name: String,
        /// Network to attach it to
        #[arg(long, add = ArgValueCompleter::new(completing::networks))]
        network: String,
        /// Its network namespace: a name, made if it is not there, or a path
        #[arg(long, add = ArgValueCompleter::new(completing::namespaces))]
        netns: Option<PathBuf>,
        /// A process in its network namespace
        #[arg(long)]
        pid: Option<u32>,
        /// Its address; twice for one of each family [default: the next free ones]
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// Its interface in the container [default: eth0]
        #[arg(long)]
        interface: Option<String>,
        /// It forwards packets for others behind it
        #[arg(long)]
        forwarding: bool,
        /// Prefix behind this endpoint: accepted as a source and routed to it;
        /// can be given several times
        #[arg(
            long = "allowed-source",
            value_name = "PREFIX",
            requires = "forwarding"
        )]
        allowed_sources: Vec<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Detach a container that was attached with add
    #[command(visible_alias = "delete", after_help = examples::ENDPOINT_DEL)]
    Del {
        /// Its name
        #[arg(add = ArgValueCompleter::new(completing::endpoints))]
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show all that is known of a container; exit 5 when there is none of that name
    #[command(after_help = examples::ENDPOINT_SHOW)]
    Show {
        /// Its name
        #[arg(add = ArgValueCompleter::new(completing::endpoints))]
        name: String,
    },
    /// List all containers
    #[command(visible_alias = "ls", after_help = examples::ENDPOINT_LIST)]
    List,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Wait {
    /// How long to wait for an agent that is just restarting; 0: not at all
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
}

/// Runs the command line of this process; prints errors as one sentence each, or as JSON.
pub fn main() -> ExitCode {
    completing::answer();
    match parsed() {
        Ok(cli) => run(cli),
        Err(error) => failure::usage(&error),
    }
}

/// The command line of this process. A variable that is set to nothing is not set: a script that
/// leaves one so means no instance whose name is empty.
fn parsed() -> Result<Cli, clap::Error> {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let mut command = without(Cli::command(), is_empty);
    let words = asking::plainly(&command, std::env::args_os().collect());
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// A command that does not look at some variables.
fn without(command: clap::Command, left_out: impl Fn(&OsStr) -> bool + Copy) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(variable) if left_out(variable) => argument.env(Resettable::Reset),
        _ => argument,
    });
    command.mut_subcommands(|inner| without(inner, left_out))
}

fn run(cli: Cli) -> ExitCode {
    let (format, named) = (cli.output, cli.instance.clone());
    let result = match cli.command {
        Command::Run(args) => local::run(args, cli.instance, cli.dirs),
        Command::Check { config } => local::check(&config, cli.output),
        Command::Plan(args) => local::plan(args, cli.instance, cli.dirs, cli.output),
        Command::Status => client::status(&cli.dirs, cli.instance, cli.output),
        Command::Endpoint(command) => {
            client::endpoint(&cli.dirs, cli.instance, cli.output, command)
        }
        Command::Peer(command) => peers::peer(&cli.dirs, cli.instance, cli.output, command),
        Command::Config(command) => config::config(&cli.dirs, cli.instance, cli.output, command),
        Command::Cluster(command) => cluster::run(command, &cli.dirs, cli.instance, cli.output),
        Command::Fastpath { state } => {
            let on = state.map(|state| state == Switch::On);
            client::fastpath(&cli.dirs, cli.instance, cli.output, on)
        }
        Command::Down => down::down(&cli.dirs, cli.instance, cli.output),
        Command::Stats(args) => stats::stats(&cli.dirs, cli.instance.as_ref(), cli.output, &args),
        Command::Top(args) => top::top(&cli.dirs, cli.instance.as_ref(), &args),
        Command::Documents { into } => documents::write(&into),
        Command::Doctor(args) => doctor::doctor(args, cli.instance, &cli.dirs, cli.output),
        Command::Explain(args) => explain::explain(&cli.dirs, cli.instance, cli.output, &args),
        Command::LogLevel { level } => {
            client::log_level(&cli.dirs, cli.instance, cli.output, level)
        }
        Command::Capture(args) => capture::capture(&cli.dirs, cli.instance, cli.output, args),
        Command::Ping(args) => ping::ping(&cli.dirs, cli.instance, cli.output, &args),
        Command::Key(args) => encryption::key(&args, cli.instance, &cli.dirs, cli.output),
        Command::Monitor(args) => monitor::monitor(&cli.dirs, cli.instance, cli.output, args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format, named.as_ref()),
    }
}
