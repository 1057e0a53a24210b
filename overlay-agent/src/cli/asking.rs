//! Asking for help in two ways at once: `help --help`, `endpoint help add -h`.

use std::ffi::OsString;

use clap::{ArgAction, Command};

/// The words of a command line; behind `help` in the place of a command, without options that ask for
/// help: clap has none there, and takes them for commands that it does not know.
pub(super) fn plainly(command: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let Some(help) = place_of_help(command, &words) else {
        return words;
    };
    let asks = |word: &OsString| word == "--help" || word == "-h";
    let kept = words.into_iter().enumerate();
    kept.filter(|(place, word)| *place < help || !asks(word))
        .map(|(_, word)| word)
        .collect()
}

/// Where `help` stands, with nothing but options and names of commands before it.
fn place_of_help(whole: &Command, words: &[OsString]) -> Option<usize> {
    let mut command = whole;
    let mut all = words.iter().enumerate().skip(1);
    while let Some((place, word)) = all.next() {
        let word = word.to_str()?;
        if word == "help" && command.has_subcommands() {
            return Some(place);
        }
        if word.starts_with('-') {
            if takes_the_next(command, word) || takes_the_next(whole, word) {
                all.next();
            }
            continue;
        }
        command = command.find_subcommand(word)?;
    }
    None
}

/// Whether an option has its value in the next word.
fn takes_the_next(command: &Command, word: &str) -> bool {
    let mut options = command.get_arguments();
    options.any(|option| {
        let is_long = option.get_long() == word.strip_prefix("--");
        let short = option.get_short().map(|short| format!("-{short}"));
        (is_long && option.get_long().is_some() || short.as_deref() == Some(word))
            && matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory as _;

    use super::{super::Cli, plainly};

    fn said(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let kept = plainly(&Cli::command(), words);
        let kept: Vec<&str> = kept.iter().filter_map(|word| word.to_str()).collect();
        kept.join(" ")
    }

    #[test]
    fn help_is_asked_for_once() {
        for (words, kept) in [
            ("a help --help", "a help"),
            ("a help -h", "a help"),
            ("a help endpoint --help", "a help endpoint"),
            ("a endpoint help add -h", "a endpoint help add"),
            (
                "a --instance n1 -o json help --help",
                "a --instance n1 -o json help",
            ),
            (
                "a endpoint --instance n1 help --help",
                "a endpoint --instance n1 help",
            ),
            ("a --instance=n1 help --help", "a --instance=n1 help"),
            // No command, but a value.
            (
                "a --instance help status --help",
                "a --instance help status --help",
            ),
            ("a endpoint show help --help", "a endpoint show help --help"),
            ("a status --help", "a status --help"),
            ("a nosuch help --help", "a nosuch help --help"),
        ] {
            assert_eq!(said(words), kept);
        }
    }

    #[test]
    fn every_command_answers_each_way_of_asking() {
        fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            for inner in command.get_subcommands() {
                let path = format!("{path} {}", inner.get_name());
                walk(inner, &path, found);
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(&Cli::command(), "", &mut found);
        assert!(
            found.iter().any(|path| path == " endpoint add"),
            "{found:?}"
        );
        found.push(String::new());
        for path in found {
            let words = format!("a help{path} --help");
            let words = said(&words)
                .split(' ')
                .map(OsString::from)
                .collect::<Vec<_>>();
            let error = Cli::command().try_get_matches_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 0, "{path}: {error}");
            assert!(error.to_string().contains("Usage: "), "{error}");
        }
    }
}
