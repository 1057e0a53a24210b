//! CNI: a verb and its arguments in the environment, the configuration on standard input, the
//! answer or the error on standard output (`SPEC.md` of containernetworking/cni, versions 0.3.1 to
//! 1.1.0).

mod config;
mod environment;
mod error;
mod result;

use std::{env, process::ExitCode};

use overlay_api::{Believed, Key, Kind, Request, Unwanted, Wanted, client::Agent, netns};
use serde_json::{Value, json};

use crate::detach;
use config::{Config, version};
use environment::Environment;
use error::{Code, Error};

/// Oldest to newest.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

type Result<T> = std::result::Result<T, Error>;

pub(crate) fn run() -> ExitCode {
    let command = env::var("CNI_COMMAND").unwrap_or_default();
    // It is asked with dummies for everything else, and perhaps with a terminal as input.
    if command == "VERSION" {
        let newest = VERSIONS[VERSIONS.len() - 1];
        println!(
            "{}",
            json!({ "cniVersion": newest, "supportedVersions": VERSIONS })
        );
        return ExitCode::SUCCESS;
    }
    let (asked, done) = match config::read() {
        Ok(input) => (version(&input), carry_out(&command, &input)),
        Err(error) => (None, Err(error)),
    };
    match done {
        Ok(answer) => {
            if let Some(answer) = answer {
                println!("{answer}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", error.answer(asked.as_deref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &str, input: &Value) -> Result<Option<Value>> {
    let since = match command {
        "ADD" | "DEL" => VERSIONS[0],
        "CHECK" => "0.4.0",
        "STATUS" | "GC" => "1.1.0",
        _ => {
            return Err(Error::new(
                Code::Environment,
                format!("carry out CNI_COMMAND {command:?}: there is no such verb"),
            ));
        }
    };
    let config = Config::of(input, since)?;
    match command {
        "ADD" => add(&config, &Environment::of_container(true)?).map(Some),
        "DEL" => delete(&config, &Environment::of_container(false)?).map(|()| None),
        "CHECK" => check(&config, &Environment::of_container(true)?).map(|()| None),
        "GC" => collect(&config).map(|()| None),
        _ => status(&config).map(|()| None),
    }
}

fn key(config: &Config, environment: &Environment) -> Key {
    Key {
        source: config.source(),
        container: environment.container.clone(),
        interface: environment.interface.clone(),
    }
}

fn add(config: &Config, environment: &Environment) -> Result<Value> {
    let agent = Agent::find(config.instance.as_deref())?;
    let netns = environment.namespace()?;
    let arguments = &environment.arguments;
    let addresses = config.addresses(arguments)?;
    let wanted = Wanted {
        key: key(config, environment),
        network: config.network.clone(),
        netns,
        addresses,
        mac: config.mac(arguments),
        labels: environment.labels(),
        replace: true,
        routed_by_runtime: false,
    };
    let attached = agent.add(wanted)?;
    result::build(config, environment, &attached)
}

fn delete(config: &Config, environment: &Environment) -> Result<()> {
    match Agent::find(config.instance.as_deref()) {
        Ok(agent) => Ok(detach(&agent, &key(config, environment))?),
        // Where no agent has ever been there is nothing to detach from.
        Err(error) if error.never_ran() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn check(config: &Config, environment: &Environment) -> Result<()> {
    let agent = Agent::find(config.instance.as_deref())?;
    let (addresses, routes) = result::expected(config, environment)?;
    let believed = Believed {
        key: key(config, environment),
        netns: environment.namespace()?,
        addresses,
        routes,
    };
    Ok(agent.tell(&Request::AttachmentCheck(believed))?)
}

/// Detaches what the runtime does not know any more, where its namespace is gone: two runtimes can
/// share a configuration, and each knows only its own containers.
fn collect(config: &Config) -> Result<()> {
    let Some(valid) = config.valid_attachments()? else {
        return Ok(());
    };
    let agent = match Agent::find(config.instance.as_deref()) {
        Err(error) if error.never_ran() => return Ok(()),
        agent => agent?,
    };
    let mut failed = Vec::new();
    for key in agent.list(&config.source())? {
        if valid.contains(&(key.container.clone(), key.interface.clone())) {
            continue;
        }
        let container = key.container.clone();
        let unwanted = Unwanted { key, if_gone: true };
        match agent.tell(&Request::AttachmentDel(unwanted)) {
            Err(error) if error.kind() == Some(Kind::Alive) => {
                eprintln!("overlay-cni: container {container} is left: its namespace is there");
            }
            Err(error) if error.kind() == Some(Kind::NotFound) => {}
            Err(error) => failed.push(error.to_string()),
            Ok(()) => {}
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::new(Code::TryAgain, failed.join("; ")))
    }
}

fn status(config: &Config) -> Result<()> {
    let unavailable =
        |error: &dyn std::fmt::Display| Error::new(Code::Unavailable, error.to_string());
    let agent = Agent::find(config.instance.as_deref()).map_err(|error| unavailable(&error))?;
    let network = config.network.clone();
    let told = agent.tell(&Request::AttachmentReady { network });
    told.map_err(|error| unavailable(&error))
}

/// The namespace that a variable names, unless it is this process's own.
fn namespace_of(path: &str) -> Result<overlay_api::Namespace> {
    let found = netns::look(path).map_err(|error| {
        Error::new(
            Code::Io,
            format!("look at CNI_NETNS {path}: {error}; the container has to run"),
        )
    })?;
    let overridden = env::var("CNI_NETNS_OVERRIDE");
    let overridden =
        overridden.is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    if netns::is_own(&found) && !overridden {
        return Err(Error::new(
            Code::Namespace,
            format!("attach {path}: it is the plugin's own network namespace, not a container's"),
        ));
    }
    Ok(found)
}
