//! Attaches containers to overlay networks for container runtimes.
//!
//! One binary speaks two protocols, because it is named differently by those who start it: CNI
//! (0.3.1 to 1.1.0) is spoken with the environment and standard input, netavark's with a verb as
//! argument. Both end as a request on the agent's socket: the agent does what is done, remembers it
//! and answers a question that is asked twice in the same way.

mod cni;
mod netavark;

use std::{env, process::ExitCode};

use overlay_api::{
    Key,
    client::{Agent, NoAnswer},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let verb = arguments.first().map(String::as_str);
    match verb.and_then(netavark::Verb::from_argument) {
        Some(verb) => netavark::run(verb, arguments.get(1).map(String::as_str)),
        None if env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty()) => cni::run(),
        None if verb.is_none() => {
            eprintln!(
                "overlay-cni {}: CNI plugin of the overlay agent; CNI versions {}",
                env!("CARGO_PKG_VERSION"),
                cni::VERSIONS.join(", ")
            );
            netavark::run(netavark::Verb::Info, None)
        }
        None => {
            eprintln!(
                "overlay-cni: {:?} is not a verb: it is started by container runtimes, with CNI_COMMAND \
                 or with create, setup, teardown or info",
                verb.unwrap_or_default()
            );
            ExitCode::from(2)
        }
    }
}

/// Detaches a container, if need be when the agent comes back.
fn detach(agent: &Agent, key: &Key) -> Result<(), NoAnswer> {
    if let Some(why) = agent.delete(key)? {
        eprintln!(
            "overlay-cni: {why}; the agent detaches container {} when it starts",
            key.container
        );
    }
    Ok(())
}
