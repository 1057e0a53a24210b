//! Manual pages and completions, written from the command line's own definition, and the one of the
//! configuration file from its page in the documentation.

mod page;
mod roff;

use std::{fs, io, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, CommandResult, Failure, completing};

/// Of the commands, which only root has a use for, and of the configuration file (man(1)).
const COMMANDS: &str = "8";
const FILES: &str = "5";

/// The page that describes each key.
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// Writes `man/*.8`, `man/overlay-agent.toml.5` and a completion for each shell in `completions/`.
pub(super) fn write(folder: &Path) -> CommandResult {
    let pages = folder.join("man");
    let completions = folder.join("completions");
    let written = || -> io::Result<()> {
        fs::create_dir_all(&pages)?;
        fs::create_dir_all(&completions)?;
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        manual(&command, &pages)?;
        let name = format!("overlay-agent.toml.{FILES}");
        let title = "overlay\\-agent.toml \\- configuration of a node of overlay networks";
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            ".TH OVERLAY\\-AGENT.TOML {FILES} \"\" \"overlay {version}\"\n.SH NAME\n{title}\n\
             .SH SYNOPSIS\n.B overlay\\-agent run\n.RB \\-\\-config\n.I FILE\n.PP\n\
             .I /etc/overlay/node.toml\n"
        );
        fs::write(pages.join(name), head + &roff::of_markdown(CONFIGURATION))?;
        for (file, script) in completing::scripts()? {
            fs::write(completions.join(file), script)?;
        }
        Ok(())
    };
    written()
        .with_context(|| format!("write manual pages and completions to {}", folder.display()))
        .map_err(Failure::Problem)
}

/// The pages of a command and of those below it.
fn manual(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        manual(below, folder)?;
    }
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let version = env!("CARGO_PKG_VERSION");
    let page = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(COMMANDS)
        .source(format!("overlay {version}"))
        .manual("overlay");
    let text = page::of_command(command, &page)?;
    fs::write(folder.join(page.get_filename()), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that people see, with the words that lead to it.
    fn visible(command: &Command, words: &str, found: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string);
        found.push((words.to_owned(), help.unwrap_or_default()));
        for below in command
            .get_subcommands()
            .filter(|below| !below.is_hide_set())
        {
            visible(below, &format!("{words} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        let mut found = Vec::new();
        visible(&Cli::command(), "overlay-agent", &mut found);
        assert!(found.len() > 8);
        for (words, help) in found {
            assert!(help.contains("Example"), "{words} has no examples");
            assert!(help.contains(&words), "{words} is not in its examples");
            let longest = help.lines().map(str::len).max();
            assert!(longest < Some(100), "{words}: a line of {longest:?}");
        }
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        for (page, words) in [
            ("overlay-agent.8", "\n.SH EXIT STATUS\n"),
            ("overlay-agent.8", "\n.SH FILES\n"),
            ("overlay-agent-run.8", "\\fB\\-\\-config\\fR \\fIFILE\\fR"),
            (
                "overlay-agent-capture.8",
                "\\fB\\-s\\fR|\\fB\\-\\-snap\\fR \\fIBYTES\\fR",
            ),
            ("overlay-agent.toml.5", ".SH SYNOPSIS"),
            ("overlay-agent.8", "NO_COLOR"),
            ("overlay-agent-run.8", "SIGHUP"),
            ("overlay-agent-endpoint-add.8", ".SH EXAMPLES"),
            ("overlay-agent.toml.5", "unknown_vtep"),
            ("overlay-agent.toml.5", ".SH node.underlay"),
        ] {
            let page = read(&format!("man/{page}"));
            assert!(page.contains(".TH") && page.contains(words), "{page}");
        }
        for file in ["overlay-agent.bash", "_overlay-agent", "overlay-agent.fish"] {
            assert!(!read(&format!("completions/{file}")).is_empty(), "{file}");
        }
        let names = fs::read_dir(folder.path().join("man")).unwrap();
        let hidden = |name: &str| name.contains("documents");
        for name in names {
            let name = name.unwrap().file_name().into_string().unwrap();
            assert!(!hidden(&name), "{name}");
        }
    }
}
