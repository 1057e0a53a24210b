//! Completion: the shells ask this program what may come next, and names are those of the agents
//! that run.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::{Args as _, CommandFactory as _, FromArgMatches as _};
use clap_complete::{CompletionCandidate, env::Shells};
use overlay_control::{self as api, Reply, Request, Status};
use overlay_core::{dirs::Dirs, model::Name};

use super::Cli;

/// Where a shell says that it wants to complete; `clap_complete` reads it.
pub(super) const VARIABLE: &str = "_OVERLAY_COMPLETE";

/// How long a completion waits for a busy agent.
const PATIENCE: Duration = Duration::from_millis(500);

/// zsh runs the file when Tab is pressed for the first time, and takes what it does then for the
/// completion: without this, what is defined there answers from the second time on.
const ZSH_FIRST: &str = "
if [[ \"$funcstack[1]\" = _overlay-agent ]]; then
    _clap_dynamic_completer_overlay_agent \"$@\"
fi
";

/// The scripts of the shells by their file names, for whoever packages them: each asks the
/// program in the search path.
pub(super) fn scripts() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let name = "overlay-agent";
    let files = [
        ("bash", "overlay-agent.bash"),
        ("zsh", "_overlay-agent"),
        ("fish", "overlay-agent.fish"),
    ];
    let shells = Shells::builtins();
    let mut scripts = Vec::new();
    for (shell, file) in files {
        let completer = shells
            .completer(shell)
            .ok_or_else(|| io::Error::other(format!("{shell} is not known")))?;
        let mut script = Vec::new();
        completer.write_registration(VARIABLE, name, name, name, &mut script)?;
        if shell == "zsh" {
            script.extend_from_slice(ZSH_FIRST.as_bytes());
        }
        scripts.push((file, script));
    }
    Ok(scripts)
}

/// The instances that there are.
pub(super) fn instances(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = dirs().and_then(|dirs| dirs.instances().ok());
    let names = names.unwrap_or_default();
    matching(typed, names.iter().map(Name::as_str))
}

/// The endpoints of the instance that is meant.
pub(super) fn endpoints(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = statuses();
    let endpoints = all.iter().flat_map(|status| &status.endpoints);
    matching(typed, endpoints.map(|endpoint| endpoint.name.as_str()))
}

/// Its networks.
pub(super) fn networks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = statuses();
    let networks = all.iter().flat_map(|status| &status.networks);
    matching(typed, networks.map(|network| network.name.as_str()))
}

/// Its peers.
pub(super) fn peers(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = statuses();
    let networks = all.iter().flat_map(|status| &status.networks);
    let peers = networks.flat_map(|network| &network.peers);
    matching(typed, peers.map(|peer| peer.name.as_str()))
}

/// Namespaces that have a name.
pub(super) fn namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    let entries = std::fs::read_dir(Path::new("/run/netns"));
    let names: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    matching(typed, names.iter().map(String::as_str))
}

/// Those that begin as what is typed, each once.
fn matching<'a>(typed: &OsStr, names: impl Iterator<Item = &'a str>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let mut names: Vec<&str> = names.filter(|name| name.starts_with(&*typed)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The folders that the environment names.
fn dirs() -> Option<Dirs> {
    let command = Dirs::augment_args(clap::Command::new("overlay-agent"));
    let matches = command.try_get_matches_from(["overlay-agent"]).ok()?;
    Dirs::from_arg_matches(&matches).ok()
}

/// The status of the instance that the line names, or else of all that run.
fn statuses() -> Vec<Status> {
    let Some(dirs) = dirs() else {
        return Vec::new();
    };
    let named = named(std::env::args_os()).or_else(|| std::env::var_os("OVERLAY_INSTANCE"));
    let mut instances = dirs.instances().unwrap_or_default();
    instances.retain(|instance| {
        let is_meant = named
            .as_ref()
            .is_none_or(|named| named == instance.as_str());
        is_meant && dirs.socket(instance).exists()
    });
    let (sender, answers) = mpsc::channel();
    let asked = instances.len();
    for instance in instances {
        let (sender, socket) = (sender.clone(), dirs.socket(&instance));
        thread::spawn(move || {
            let answer = api::call(&socket, &Request::Status {});
            // Nobody waits any more: the line is complete without it.
            sender.send(answer).unwrap_or_default();
        });
    }
    let answers = (0..asked).map_while(|_| answers.recv_timeout(PATIENCE).ok());
    let statuses = answers.filter_map(|answer| match answer {
        Ok(Reply::Status(status)) => Some(*status),
        _ => None,
    });
    statuses.collect()
}

/// The value of `--instance` in a line that is not complete.
fn named(words: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut words = words;
    while let Some(word) = words.next() {
        if word == "--instance" {
            return words.next().filter(|value| !value.is_empty());
        }
        let value = word
            .to_str()
            .and_then(|word| word.strip_prefix("--instance="));
        if let Some(value) = value {
            return Some(value.into());
        }
    }
    None
}

/// Answers a shell, where one asks, and ends then.
pub(super) fn answer() {
    clap_complete::CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap_complete::CompletionCandidate;

    use super::{matching, named, scripts};

    #[test]
    fn names_are_those_that_begin_so() {
        let names = ["web", "db", "web2", "web"];
        let found = matching(OsStr::new("we"), names.into_iter());
        let found: Vec<_> = found.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(found, ["web", "web2"]);
    }

    #[test]
    fn the_instance_is_found_in_a_line() {
        let of = |line: &str| named(line.split(' ').map(Into::into));
        assert_eq!(of("overlay-agent --instance n1 status"), Some("n1".into()));
        assert_eq!(of("x peer show --instance=n2"), Some("n2".into()));
        assert_eq!(of("x --instance"), None);
        assert_eq!(of("x status"), None);
    }

    #[test]
    fn each_shell_has_a_script() {
        for (file, script) in scripts().unwrap() {
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains("_OVERLAY_COMPLETE=") && script.contains("overlay-agent"),
                "{file}"
            );
        }
    }
}
