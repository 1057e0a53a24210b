//! `config`: what is in force, with every default, and an example to start from.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use overlay_control::{Reply, Request, SCHEMA};
use overlay_core::{config, dirs::Dirs, model::Name};
use serde_json::Value;

use super::{CommandResult, Failure, Format, client, examples, output};

/// The example that the package installs, too.
const EXAMPLE: &str = include_str!("../../dist/node01.toml");

/// What to print.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the configuration that is in force, or that of a file, with every default
    #[command(after_help = examples::CONFIG_SHOW)]
    Show {
        /// Configuration file [default: what the running agent has]
        #[arg(long, value_name = "FILE", env = "OVERLAY_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Print an example with every key and what it means
    #[command(after_help = examples::CONFIG_EXAMPLE)]
    Example,
}

pub(super) fn config(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    command: Command,
) -> CommandResult {
    let text = match command {
        Command::Example => EXAMPLE.to_owned(),
        Command::Show { config: Some(path) } => {
            let loaded = config::Files::new(&path).load();
            config::text(&loaded.map_err(Failure::bad_input)?.model)
        }
        Command::Show { config: None } => {
            let Reply::Config(text) = client::ask(dirs, instance, &Request::Config {})? else {
                return Err(client::unexpected());
            };
            text
        }
    };
    let text = match format {
        Format::Text => text,
        Format::Json => as_json(&text).map_err(Failure::Problem)?,
    };
    output::print(|out| out.write_all(text.as_bytes())).map_err(Failure::Problem)
}

/// The same keys and values.
fn as_json(text: &str) -> anyhow::Result<String> {
    let mut value: Value = toml::from_str(text).context("read our own TOML")?;
    value["schema"] = SCHEMA.into();
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLE, as_json};

    #[test]
    fn the_example_is_valid_and_can_be_had_as_json() {
        overlay_core::config::parse(std::path::Path::new("example"), EXAMPLE).unwrap();
        let json: serde_json::Value = serde_json::from_str(&as_json(EXAMPLE).unwrap()).unwrap();
        assert_eq!(json["networks"][0]["peers"][0]["name"], "node02");
        assert_eq!(json["schema"], 1);
    }
}
