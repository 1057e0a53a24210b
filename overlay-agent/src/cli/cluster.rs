//! Commands about a cluster's store.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use ipnet::{Ipv4Net, Ipv6Net};
use overlay_api::files;
use overlay_cluster::{fragment, subnet::Subnet};
use overlay_control::{ClusterStatus, Reply, Request, SCHEMA, Status};
use overlay_core::{
    config::Files,
    dirs::Dirs,
    model::{Cluster, Model, Name},
    plural::count_of,
};
use overlay_insight::stats::ago;
use overlay_kernel::helper;
use serde_json::{Value, json};

use super::{CommandResult, Failure, Format, client, examples, output};
use crate::daemon::{access, cluster};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Write the network's configuration into etcd, if there is none
    #[command(after_help = examples::CLUSTER_INIT)]
    Init {
        /// Configuration file, whose [cluster] says where etcd is
        #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
        config: PathBuf,
        /// IPv4 addresses of all nodes together
        #[arg(long, required_unless_present = "role")]
        cidr: Option<Ipv4Net>,
        /// The same of IPv6
        #[arg(long)]
        cidr6: Option<Ipv6Net>,
        /// VXLAN network identifier
        #[arg(long, default_value_t = 1)]
        vni: u32,
        /// Print the commands that make a user of etcd for nodes, with the rights that they need
        #[arg(long, conflicts_with_all = ["cidr", "cidr6", "vni"])]
        role: bool,
    },
    /// Show what the agent knows of the cluster; exit 1 when anything there is wrong
    #[command(after_help = examples::CLUSTER_STATUS)]
    Status,
    /// Give this node's subnet back, after "down"; containers must not need it any more
    #[command(after_help = examples::CLUSTER_LEAVE)]
    Leave {
        /// Configuration file, whose [cluster] says where etcd is
        #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
        config: PathBuf,
    },
}

pub(super) fn run(
    command: ClusterCommand,
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
) -> CommandResult {
    match command {
        ClusterCommand::Status => status(dirs, instance, format),
        ClusterCommand::Init {
            config,
            cidr,
            cidr6,
            vni,
            role,
        } => {
            let (_, cluster) = section(&config)?;
            let Some(cidr) = cidr.filter(|_| !role) else {
                let print = |out: &mut dyn Write| print_role(out, &cluster, format);
                return output::print(print).map_err(Failure::Problem);
            };
            let mut arguments = store("init", &cluster);
            arguments.extend(["--cidr".to_owned(), cidr.to_string()]);
            arguments.extend(["--vni".to_owned(), vni.to_string()]);
            if let Some(cidr6) = cidr6 {
                arguments.extend(["--cidr6".to_owned(), cidr6.to_string()]);
            }
            let said = ask(&arguments, &cluster)?;
            let print = |out: &mut dyn Write| print_config(out, &said, format);
            output::print(print).map_err(Failure::Problem)
        }
        ClusterCommand::Leave { config } => {
            let (model, cluster) = section(&config)?;
            let instance = instance.unwrap_or_else(|| model.node.name.clone());
            let socket = dirs.socket(&instance);
            match UnixStream::connect(&socket) {
                Ok(_) => {
                    return Err(Failure::BadInput(anyhow!(
                        "leave the cluster: the agent of instance {instance} runs, and would register again; run \
                         \"overlay-agent down\" first"
                    )));
                }
                // There is none, or nobody listens.
                Err(cause)
                    if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                        .contains(&cause.kind()) => {}
                Err(cause) => {
                    let cause = anyhow!(
                        "leave the cluster: see whether an agent runs at {}: {cause}; run this as root",
                        socket.display()
                    );
                    return Err(Failure::BadInput(cause));
                }
            }
            let mut arguments = store("leave", &cluster);
            arguments.extend(["--node".to_owned(), model.node.name.to_string()]);
            let said = ask(&arguments, &cluster)?;
            let print = |out: &mut dyn Write| print_left(out, &said, format);
            output::print(print).map_err(Failure::Problem)?;
            forget(&dirs.cluster(&instance)).map_err(Failure::Problem)
        }
    }
}

/// Prints the commands that make a user for nodes: it may read the configuration, and write what nodes write.
fn print_role(out: &mut dyn Write, cluster: &Cluster, format: Format) -> io::Result<()> {
    let prefix = &cluster.prefix;
    let user = cluster.access.user.as_ref();
    let user = user.map_or("overlay", |(user, _)| user.as_str());
    let commands = [
        "etcdctl role add overlay-node".to_owned(),
        format!("etcdctl user add {user}"),
        format!("etcdctl role grant-permission overlay-node read {prefix}/config"),
        format!("etcdctl role grant-permission overlay-node readwrite --prefix {prefix}/subnets/"),
        format!("etcdctl role grant-permission overlay-node readwrite --prefix {prefix}/overlay/"),
        format!("etcdctl user grant-role {user} overlay-node"),
    ];
    if format == Format::Json {
        return writeln!(
            out,
            "{:#}",
            json!({ "schema": SCHEMA, "commands": commands })
        );
    }
    writeln!(
        out,
        "# run these as etcd's root, with its --endpoints and --user; the second one asks for the password\n{}",
        commands.join("\n")
    )
}

/// The configuration that is in etcd now, which the helper tells as `KEY: VALUE`.
fn print_config(out: &mut dyn Write, said: &str, format: Format) -> io::Result<()> {
    if format == Format::Text {
        return out.write_all(said.as_bytes());
    }
    let (key, value) = said.trim_end().split_once(": ").unwrap_or((said, "null"));
    let value: Value = serde_json::from_str(value)?;
    writeln!(
        out,
        "{:#}",
        json!({ "schema": SCHEMA, "key": key, "value": value })
    )
}

/// The subnets that were given back, one a line.
fn print_left(out: &mut dyn Write, said: &str, format: Format) -> io::Result<()> {
    if format == Format::Text {
        return out.write_all(said.as_bytes());
    }
    let subnets: Vec<&str> = said.lines().collect();
    writeln!(out, "{:#}", json!({ "schema": SCHEMA, "subnets": subnets }))
}

/// What was known of the cluster is not wanted back. What somebody else has put there stays.
fn forget(path: &Path) -> anyhow::Result<()> {
    let stays = files::remove_with_unfinished(path, &fragment::is_ours)
        .with_context(|| format!("remove {}", path.display()))?;
    if stays {
        eprintln!("{} stays: this agent has not written it", path.display());
    }
    Ok(())
}

fn section(config: &Path) -> Result<(Model, Cluster), Failure> {
    let loaded = Files::new(config).load().map_err(Failure::bad_input)?;
    let cluster = loaded.model.cluster.clone();
    let cluster = cluster.ok_or_else(|| {
        Failure::BadInput(anyhow!(
            "{} has no section [cluster]; add one with etcd and network",
            config.display()
        ))
    })?;
    Ok((loaded.model, cluster))
}

fn store(command: &str, cluster: &Cluster) -> Vec<String> {
    let members = cluster.etcd.iter();
    let members = members.flat_map(|url| ["--etcd".to_owned(), url.clone()]);
    let prefix = ["--prefix".to_owned(), cluster.prefix.clone()];
    [command.to_owned()]
        .into_iter()
        .chain(members)
        .chain(prefix)
        .collect()
}

/// Has the helper do it; what it says.
fn ask(arguments: &[String], cluster: &Cluster) -> Result<String, Failure> {
    let access = access::read(&cluster.access).map_err(|error| Failure::BadInput(error.into()))?;
    let program = cluster::program()
        .context("find the cluster's helper")
        .map_err(Failure::Problem)?;
    let mut command = helper::command(&program);
    command.args(arguments).stderr(Stdio::piped());
    let mut run = || -> io::Result<Output> {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // Not among its arguments, which everybody may read.
            serde_json::to_writer(&mut input, &access)?;
            input.write_all(b"\n")?;
        }
        child.wait_with_output()
    };
    let outcome = run()
        .with_context(|| format!("run {}", program.display()))
        .map_err(Failure::Problem)?;
    if outcome.status.success() {
        return Ok(String::from_utf8_lossy(&outcome.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&outcome.stderr);
    let why = why.trim_end().trim_start_matches("overlay-cluster: ");
    let why = match why {
        "" => format!("{} has ended: {}", program.display(), outcome.status),
        why => why.to_owned(),
    };
    Err(Failure::Problem(anyhow!(why)))
}

fn status(dirs: &Dirs, instance: Option<Name>, format: Format) -> CommandResult {
    let Reply::Status(status) = client::ask(dirs, instance, &Request::Status {})? else {
        return Err(client::unexpected());
    };
    let Some(cluster) = &status.cluster else {
        return Err(Failure::BadInput(anyhow!(
            "node {} is in no cluster; add a section [cluster] to its configuration",
            status.node
        )));
    };
    let print = |out: &mut dyn Write| print(out, &status, cluster, format);
    output::print(print).map_err(Failure::Problem)?;
    if problems(&status).next().is_none() && cluster.connected {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

fn problems(status: &Status) -> impl Iterator<Item = &overlay_control::Problem> {
    let problems = status.problems.iter();
    problems.filter(|problem| problem.id.starts_with("cluster-"))
}

fn print(
    out: &mut dyn Write,
    status: &Status,
    cluster: &ClusterStatus,
    format: Format,
) -> io::Result<()> {
    if format == Format::Json {
        let mut value = serde_json::to_value(cluster)?;
        value["schema"] = SCHEMA.into();
        value["problems"] = serde_json::to_value(problems(status).collect::<Vec<_>>())?;
        return writeln!(out, "{value:#}");
    }
    print_line(out, cluster)?;
    print_keys(out, cluster)?;
    for problem in problems(status) {
        writeln!(out, "problem: {problem} (since {})", problem.since)?;
    }
    Ok(())
}

/// Prints the nodes that could encrypt, if there are any.
fn print_keys(out: &mut dyn Write, cluster: &ClusterStatus) -> io::Result<()> {
    if !cluster.encrypted && cluster.with_key == 0 {
        return Ok(());
    }
    let is = if cluster.encrypted {
        "encrypted"
    } else {
        "not encrypted"
    };
    let names = cluster.without_key.join(", ");
    let without = match names.as_str() {
        "" => String::new(),
        names => format!("; without: {names}"),
    };
    let with = count_of(cluster.with_key, "other node");
    writeln!(out, "{is}  keys of {with}{without}")
}

/// The line that `status` has, too.
pub(super) fn print_line(out: &mut dyn Write, cluster: &ClusterStatus) -> io::Result<()> {
    let state = if cluster.connected {
        "follows"
    } else {
        "not connected to"
    };
    let heard = match (cluster.connected, cluster.contact_age_ms) {
        (false, Some(ms)) => format!(", heard {}", ago(ms)),
        _ => String::new(),
    };
    let subnet = cluster.subnet.as_deref().map(prefixes);
    let subnet = subnet.as_deref().unwrap_or("none yet");
    let others = count_of(cluster.nodes, "other node");
    let doubtful = match cluster.doubtful {
        0 => String::new(),
        some => format!(" ({some} not in etcd any more)"),
    };
    writeln!(
        out,
        "cluster {}  {state} {}{heard}  subnet {subnet}  {others}{doubtful}",
        cluster.network,
        cluster.endpoint.as_deref().unwrap_or("etcd"),
    )
}

/// The prefixes that a key of flannel's stands for.
fn prefixes(key: &str) -> String {
    let Ok(subnet) = key.parse::<Subnet>() else {
        return key.to_owned();
    };
    let prefixes: Vec<String> = subnet.prefixes().map(|it| it.to_string()).collect();
    prefixes.join(", ")
}
