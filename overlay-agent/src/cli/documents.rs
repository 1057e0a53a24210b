//! Manual pages and completions, written from the command line's own definition.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, CommandResult, Failure, completing};

/// Writes `man/*.1` and a completion for each shell in `completions/`.
pub(super) fn write(folder: &Path) -> CommandResult {
    let pages = folder.join("man");
    let completions = folder.join("completions");
    let written = || -> io::Result<()> {
        fs::create_dir_all(&pages)?;
        fs::create_dir_all(&completions)?;
        clap_mangen::generate_to(Cli::command(), &pages)?;
        for (file, script) in completing::scripts()? {
            fs::write(completions.join(file), script)?;
        }
        Ok(())
    };
    written()
        .with_context(|| format!("write manual pages and completions to {}", folder.display()))
        .map_err(Failure::Problem)
}

#[cfg(test)]
mod tests {
    use clap::Command;

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
            ("overlay-agent.1", "NO_COLOR"),
            ("overlay-agent-run.1", "SIGHUP"),
            ("overlay-agent-endpoint-add.1", "4711"),
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
