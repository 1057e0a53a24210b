//! Commands that ask a running daemon.

use anyhow::anyhow;

use super::{CommandResult, EndpointCommand, Failure, Format, output, patience};
use crate::{
    api::{self, ClientError, EndpointSpec, EndpointStatus, Reply, Request},
    dirs::Dirs,
    model::{LogLevel, Name},
};

pub(super) fn status(dirs: &Dirs, instance: Option<Name>, format: Format) -> CommandResult {
    let Reply::Status(status) = ask(dirs, instance, &Request::Status {})? else {
        return Err(unexpected());
    };
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
            print_endpoints(&[endpoint], format)
        }
        EndpointCommand::Del { name, wait } => {
            let request = Request::EndpointDel { name };
            done(&patience::ask(dirs, instance, &request, wait.seconds)?)
        }
        EndpointCommand::List => {
            let Reply::Status(status) = ask(dirs, instance, &Request::Status {})? else {
                return Err(unexpected());
            };
            print_endpoints(&status.endpoints, format)
        }
    }
}

fn print_endpoints(endpoints: &[EndpointStatus], format: Format) -> CommandResult {
    output::print(|out| output::endpoints(out, endpoints, format)).map_err(Failure::Problem)
}

pub(super) fn fastpath(dirs: &Dirs, instance: Option<Name>, on: bool) -> CommandResult {
    done(&ask(dirs, instance, &Request::Fastpath { on })?)
}

pub(super) fn log_level(dirs: &Dirs, instance: Option<Name>, level: LogLevel) -> CommandResult {
    done(&ask(dirs, instance, &Request::LogLevel { level })?)
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
    let instance = the_instance(dirs, instance, |dirs, name| dirs.socket(name).exists())?;
    call(dirs, &instance, request)
}

/// Asks the daemon of an instance; its refusals become failures.
pub(super) fn call(dirs: &Dirs, instance: &Name, request: &Request) -> Result<Reply, Failure> {
    outcome(api::call(&dirs.socket(instance), request))
}

/// The refusals of a daemon, and what keeps it from being asked, as failures.
pub(super) fn outcome(answer: Result<Reply, ClientError>) -> Result<Reply, Failure> {
    match answer {
        Ok(Reply::BadInput(message)) => Err(Failure::BadInput(anyhow!(message))),
        Ok(Reply::Failed(message)) => Err(Failure::Problem(anyhow!(message))),
        Ok(reply) => Ok(reply),
        Err(error @ ClientError::Connect { .. }) => Err(Failure::bad_input(error)),
        Err(error) => Err(Failure::problem(error)),
    }
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
        [] => Err(Failure::BadInput(anyhow!(
            "no instance is running on this machine; start one with \"overlay-agent run --config FILE\""
        ))),
    }
}
