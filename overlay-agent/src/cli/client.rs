//! Commands that ask a running daemon.

use std::io;

use anyhow::anyhow;
use overlay_control::{
    self as api, ClientError, EndpointSpec, EndpointStatus, Reply, Request, SCHEMA, Status,
};
use overlay_core::{
    config,
    dirs::Dirs,
    model::{LogLevel, Name},
    text_file,
};
use overlay_node::store::Store;
use serde_json::{Value, json};

use crate::daemon::short;

use super::{CommandResult, EndpointCommand, Failure, Format, output, patience, watching};

pub(super) fn status(dirs: &Dirs, instance: Option<Name>, format: Format) -> CommandResult {
    let status = status_of(dirs, instance)?;
    output::print(|out| output::status(out, &status, format)).map_err(Failure::Problem)?;
    if status.healthy {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

pub(super) fn endpoint(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    command: EndpointCommand,
) -> CommandResult {
    match command {
        EndpointCommand::Add {
            name,
            network,
            netns,
            pid,
            addresses,
            interface,
            forwarding,
            allowed_sources,
            wait,
        } => {
            let spec = EndpointSpec {
                name,
                network,
                netns,
                pid,
                addresses,
                interface,
                forwarding,
                allowed_sources,
            };
            let request = Request::EndpointAdd(spec);
            let Reply::Endpoint(endpoint) = patience::ask(dirs, instance, &request, wait.seconds)?
            else {
                return Err(unexpected());
            };
            print_endpoints(&[*endpoint], format)
        }
        EndpointCommand::Del { name, wait } => {
            let request = Request::EndpointDel { name: name.clone() };
            done(&patience::ask(dirs, instance, &request, wait.seconds)?)?;
            told(format, &json!({ "schema": SCHEMA, "deleted": name }))
        }
        EndpointCommand::Show { name } => endpoint_show(dirs, instance, format, &name),
        EndpointCommand::List => print_endpoints(&status_of(dirs, instance)?.endpoints, format),
    }
}

fn endpoint_show(dirs: &Dirs, instance: Option<Name>, format: Format, name: &str) -> CommandResult {
    let endpoints = status_of(dirs, instance.clone())?.endpoints;
    let mut endpoints = endpoints.iter();
    let Some(endpoint) = endpoints.find(|endpoint| endpoint.name.as_str() == name) else {
        return Err(Failure::NotFound(anyhow!(
            "show endpoint {name}: there is none of this name; see \"overlay-agent endpoint list\""
        )));
    };
    let Reply::Stats(stats) = ask(dirs, instance, &Request::Stats { all: false })? else {
        return Err(unexpected());
    };
    let mut counted = stats.endpoints.iter();
    let counts = counted.find(|counted| counted.name == endpoint.name);
    let counts = counts.map(|counted| &counted.counts);
    output::print(|out| match format {
        Format::Json => {
            let mut value = serde_json::to_value(endpoint)?;
            value["schema"] = SCHEMA.into();
            value["traffic"] = serde_json::to_value(counts)?;
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)
        }
        Format::Text => output::endpoint(out, endpoint, counts),
    })
    .map_err(Failure::Problem)
}

/// The state of the node.
pub(super) fn status_of(dirs: &Dirs, instance: Option<Name>) -> Result<Box<Status>, Failure> {
    match ask(dirs, instance, &Request::Status {})? {
        Reply::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

fn print_endpoints(endpoints: &[EndpointStatus], format: Format) -> CommandResult {
    output::print(|out| output::endpoints(out, endpoints, format)).map_err(Failure::Problem)
}

pub(super) fn fastpath(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    on: Option<bool>,
) -> CommandResult {
    let Some(on) = on else {
        let state = status_of(dirs, instance)?.fastpath.state;
        return asked(format, "fastpath", &json!(state));
    };
    done(&ask(dirs, instance, &Request::Fastpath { on })?)?;
    let state = if on { "on" } else { "off" };
    told(format, &json!({ "schema": SCHEMA, "fastpath": state }))
}

pub(super) fn log_level(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    level: Option<LogLevel>,
) -> CommandResult {
    let Some(level) = level else {
        let level = status_of(dirs, instance)?.log_level;
        return asked(format, "log_level", &json!(level));
    };
    done(&ask(dirs, instance.clone(), &Request::LogLevel { level })?)?;
    if format == Format::Text && level > LogLevel::Error {
        let status = status_of(dirs, instance)?;
        watching::tell_if_blind(&status);
    }
    told(format, &json!({ "schema": SCHEMA, "log_level": level }))
}

/// Prints a word that was asked for.
fn asked(format: Format, name: &str, value: &Value) -> CommandResult {
    match (format, value.as_str()) {
        (Format::Text, Some(word)) => {
            output::print(|out| writeln!(out, "{word}")).map_err(Failure::Problem)
        }
        _ => told(Format::Json, &json!({ "schema": SCHEMA, name: value })),
    }
}

/// Prints for programs what was done; people need not be told that it was.
fn told(format: Format, value: &Value) -> CommandResult {
    match format {
        Format::Text => Ok(()),
        Format::Json => output::print(|out| writeln!(out, "{value:#}")).map_err(Failure::Problem),
    }
}

pub(super) fn done(reply: &Reply) -> CommandResult {
    if *reply == Reply::Done {
        Ok(())
    } else {
        Err(unexpected())
    }
}

pub(super) fn unexpected() -> Failure {
    Failure::Problem(anyhow!(
        "the agent gave an answer to another question; use the overlay-agent of the daemon's version"
    ))
}

/// Asks the daemon of the instance that is named, or of the only one.
pub(super) fn ask(
    dirs: &Dirs,
    instance: Option<Name>,
    request: &Request,
) -> Result<Reply, Failure> {
    let instance = the_instance(dirs, instance, Dirs::may_listen)?;
    call(dirs, &instance, request)
}

/// Asks the daemon of an instance; its refusals become failures.
pub(super) fn call(dirs: &Dirs, instance: &Name, request: &Request) -> Result<Reply, Failure> {
    answered(dirs, instance, api::call(&dirs.socket(instance), request))
}

/// The answer to a call to the daemon of an instance, as [`call`] gives it.
pub(super) fn answered(
    dirs: &Dirs,
    instance: &Name,
    result: Result<Reply, ClientError>,
) -> Result<Reply, Failure> {
    match result {
        Err(ClientError::Connect { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            Err(Failure::NoAgent(nobody(dirs, instance)))
        }
        result => replied(result).map_err(|failure| match failure {
            Failure::NoAgent(error) => Failure::NoAgent(as_before(dirs, instance, error)),
            other => other,
        }),
    }
}

/// Refusals become failures.
pub(super) fn replied(result: Result<Reply, ClientError>) -> Result<Reply, Failure> {
    match result {
        Ok(Reply::BadInput(message)) => Err(Failure::BadInput(anyhow!(message))),
        Ok(Reply::NotFound(message)) => Err(Failure::NotFound(anyhow!(message))),
        Ok(Reply::Exists(message)) => Err(Failure::Exists(anyhow!(message))),
        Ok(Reply::Failed(message)) => Err(Failure::Problem(anyhow!(message))),
        Ok(reply) => Ok(reply),
        Err(error @ ClientError::Connect { .. }) => match Failure::bad_input(error) {
            Failure::BadInput(error) => Err(Failure::NoAgent(error)),
            denied => Err(denied),
        },
        Err(error @ (ClientError::Silent { .. } | ClientError::Ended { .. })) => {
            Err(Failure::NoAgent(error.into()))
        }
        Err(error) => Err(Failure::problem(error)),
    }
}

/// Why an instance does not answer that has no socket.
fn nobody(dirs: &Dirs, instance: &Name) -> anyhow::Error {
    let running = dirs.instances().unwrap_or_default();
    let running = running.iter().filter(|name| dirs.may_listen(name));
    let running: Vec<&str> = running.map(Name::as_str).collect();
    let there = match running.as_slice() {
        [] => "none runs on this machine".to_owned(),
        running => format!("running are: {}", running.join(", ")),
    };
    let error = anyhow!(
        "instance {instance} is not running ({there}); correct --instance, or start it with {START}"
    );
    as_before(dirs, instance, error)
}

/// How an agent is started of which nothing is known.
const START: &str = "\"overlay-agent run --config FILE\"";

/// An error that says how the agent is started as the instance's last one was.
fn as_before(dirs: &Dirs, instance: &Name, error: anyhow::Error) -> anyhow::Error {
    let Some(command) = last_start(dirs, instance) else {
        return error;
    };
    anyhow!(format!("{error:#}").replace(START, &format!("\"{command}\"")))
}

/// The command that starts an instance as its last agent was; `None` where nobody remembers.
pub(super) fn last_start(dirs: &Dirs, instance: &Name) -> Option<String> {
    let store = Store::open(dirs, instance).ok()?;
    let content = store.content();
    let text = text_file::read(&content.config).ok()?;
    let netns = content.netns.as_ref();
    let netns = netns.map(|netns| format!(" --netns {}", short(netns).display()));
    let named = (config::node_name(&text).as_ref() != Some(instance))
        .then(|| format!(" --instance {instance}"));
    Some(format!(
        "overlay-agent run --config {}{}{}",
        content.config.display(),
        netns.unwrap_or_default(),
        named.unwrap_or_default()
    ))
}

/// The instance that was named, or the only one that `counts`.
pub(super) fn the_instance(
    dirs: &Dirs,
    named: Option<Name>,
    counts: impl Fn(&Dirs, &Name) -> bool,
) -> Result<Name, Failure> {
    if let Some(name) = named {
        return Ok(name);
    }
    let mut instances = dirs.instances().map_err(Failure::bad_input)?;
    instances.retain(|instance| counts(dirs, instance));
    match instances.as_slice() {
        [only] => Ok(only.clone()),
        [_, ..] => {
            let listed: Vec<&str> = instances.iter().map(Name::as_str).collect();
            Err(Failure::BadInput(anyhow!(
                "there are {} instances: {}; choose one with --instance NAME",
                listed.len(),
                listed.join(", ")
            )))
        }
        [] => {
            let error = anyhow!("no instance is running on this machine; start one with {START}");
            let stopped = dirs.instances().unwrap_or_default();
            Err(Failure::NoAgent(match stopped.as_slice() {
                [only] => as_before(dirs, only, error),
                _ => error,
            }))
        }
    }
}
