//! How a command fails: the exit codes, and errors as sentences or as JSON.

use std::{ffi::OsStr, mem, path::Path, process::ExitCode};

use overlay_control::{ClientError, SCHEMA};
use overlay_core::{
    config::ConfigError,
    model::Name,
    trouble::{for_instance, on_node, without_numbers},
};
use overlay_kernel::KernelError;
use overlay_node::{key::KeyError, store::StoreError};
use serde_json::json;

use super::{Format, called};
use crate::daemon::{LockError, StartError};

/// How a command ended that did not simply succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It ran and found a problem.
    Problem(anyhow::Error),
    /// The request cannot be carried out; nothing was changed.
    BadInput(anyhow::Error),
    /// Nobody answers for the instance.
    NoAgent(anyhow::Error),
    /// The user may not do it.
    NoRights(anyhow::Error),
    /// The named object does not exist.
    NotFound(anyhow::Error),
    /// The object to be made exists, or runs already.
    Exists(anyhow::Error),
    /// It has printed what there is to say.
    Told,
}

impl Failure {
    /// For input, or a node, that makes it impossible.
    pub(super) fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        if lacks_rights(&error) {
            Self::NoRights(error)
        } else {
            Self::BadInput(error)
        }
    }

    /// For what was tried and has failed.
    pub(super) fn problem(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        if lacks_rights(&error) {
            Self::NoRights(error)
        } else {
            Self::Problem(error)
        }
    }

    /// The same, with cures that can be pasted where the node is another namespace.
    pub(super) fn cured_on(mut self, netns: Option<&Path>) -> Self {
        if let (Some(error), Some(netns)) = (self.error(), netns) {
            *error = anyhow::anyhow!(on_node(&format!("{error:#}"), netns));
        }
        self
    }

    /// Why, for those who go on.
    pub(super) fn into_error(mut self) -> anyhow::Error {
        let told = anyhow::anyhow!("see above");
        match self.error() {
            Some(error) => mem::replace(error, told),
            None => told,
        }
    }

    /// Why, unless it was told.
    const fn error(&mut self) -> Option<&mut anyhow::Error> {
        match self {
            Self::Problem(error)
            | Self::BadInput(error)
            | Self::NoAgent(error)
            | Self::NoRights(error)
            | Self::NotFound(error)
            | Self::Exists(error) => Some(error),
            Self::Told => None,
        }
    }

    /// The process's exit code, and what JSON calls it.
    const fn code(&self) -> (u8, &'static str) {
        match self {
            Self::Problem(_) | Self::Told => (1, "problem"),
            Self::BadInput(_) => BAD_INPUT,
            Self::NoAgent(_) => (3, "no_agent"),
            Self::NoRights(_) => (4, "no_rights"),
            Self::NotFound(_) => (5, "not_found"),
            Self::Exists(_) => (6, "exists"),
        }
    }

    /// Prints the error to standard error.
    pub(super) fn report(self, format: Format, instance: Option<&Name>) -> ExitCode {
        let (code, kind) = self.code();
        if matches!(self, Self::Told) {
            return ExitCode::from(code);
        }
        let message = format!("{:#}", self.into_error());
        let message = match instance {
            Some(instance) => for_instance(&message, instance),
            None => message,
        };
        let message = without_numbers(&called::pasteable(&message));
        match format {
            Format::Json => eprintln!("{}", as_json(code, kind, &message)),
            Format::Text => {
                for line in message.lines() {
                    eprintln!("overlay-agent: {line}");
                }
            }
        }
        ExitCode::from(code)
    }
}

const BAD_INPUT: (u8, &str) = (2, "bad_input");

fn as_json(code: u8, kind: &str, message: &str) -> serde_json::Value {
    json!({ "schema": SCHEMA, "error": { "code": code, "kind": kind, "message": message } })
}

/// Reports a command line that clap does not understand, or prints the help that was asked for.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = error.use_stderr() && asks_for_json(std::env::args_os());
    if wants_json {
        let (code, kind) = BAD_INPUT;
        let text = error.render().to_string();
        let text = text.trim_end();
        // That it is one, the object says.
        let text = text.strip_prefix("error: ").unwrap_or(text);
        eprintln!("{}", as_json(code, kind, text));
        return ExitCode::from(code);
    }
    error.exit()
}

/// Whether there is an `--output json` in a command line that could not be understood as a whole.
fn asks_for_json(words: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    let words: Vec<String> = words
        .map(|word| word.as_ref().to_string_lossy().into_owned())
        .collect();
    let joined = |word: &String| matches!(&**word, "-ojson" | "-o=json" | "--output=json");
    let apart = |pair: &[String]| matches!(pair, [option, json] if matches!(&**option, "-o" | "--output") && json == "json");
    words.iter().any(joined) || words.windows(2).any(apart)
}

/// Whether the kernel has refused because of who asks.
fn lacks_rights(error: &anyhow::Error) -> bool {
    fn denied(cause: &std::io::Error) -> bool {
        cause.kind() == std::io::ErrorKind::PermissionDenied
    }
    fn lock(error: &LockError) -> bool {
        match error {
            LockError::Io { cause, .. } => denied(cause),
            // Root has all rights: to root it is a folder in the way.
            LockError::Foreign { user, .. } => *user != 0,
            LockError::Running(_) | LockError::NotOurs { .. } => false,
        }
    }
    fn store(error: &StoreError) -> bool {
        match error {
            StoreError::Io { cause, .. } => denied(cause),
            StoreError::Key(error) => error.is_denied(),
            StoreError::Foreign { .. } => false,
        }
    }
    error.chain().any(|error| {
        error.downcast_ref().is_some_and(denied)
            || error.downcast_ref().is_some_and(KernelError::is_denied)
            || error.downcast_ref().is_some_and(lock)
            || error.downcast_ref().is_some_and(store)
            || error.downcast_ref().is_some_and(KeyError::is_denied)
            || matches!(
                error.downcast_ref(),
                Some(ClientError::Connect { cause, .. }) if denied(cause)
            )
            || matches!(
                error.downcast_ref(),
                Some(ConfigError::Unreadable { cause, .. }) if denied(cause)
            )
            || match error.downcast_ref() {
                Some(StartError::Kernel(error)) => error.is_denied(),
                Some(StartError::Lock(error)) => lock(error),
                Some(StartError::Store(error)) => store(error),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::{Failure, as_json, asks_for_json, without_numbers};
    use anyhow::anyhow;

    #[test]
    fn each_kind_has_a_code_of_its_own() {
        let kinds = [
            Failure::Problem(anyhow!("x")),
            Failure::BadInput(anyhow!("x")),
            Failure::NoAgent(anyhow!("x")),
            Failure::NoRights(anyhow!("x")),
            Failure::NotFound(anyhow!("x")),
            Failure::Exists(anyhow!("x")),
        ];
        let codes: Vec<u8> = kinds.iter().map(|kind| kind.code().0).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn who_may_not_is_told_from_what_cannot_be() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Failure::bad_input(crate::daemon::LockError::Io {
            path: "/run/overlay/x".into(),
            cause: denied,
        });
        assert!(matches!(error, Failure::NoRights(_)), "{error:?}");
        let error = Failure::bad_input(anyhow!("no such network"));
        assert!(matches!(error, Failure::BadInput(_)), "{error:?}");
    }

    #[test]
    fn errors_of_the_kernel_are_told_in_words() {
        for (text, expected) in [
            (
                "read x: No such file (os error 2); y",
                "read x: No such file; y",
            ),
            ("a (os error 1) b (os error 22)", "a b"),
            ("a (os error of mine) b", "a (os error of mine) b"),
            ("a (os error 1", "a (os error 1"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
    }

    #[test]
    fn json_is_asked_for_in_each_way_of_writing_it() {
        for line in [
            "x -o json y",
            "x --output json",
            "x -ojson",
            "--output=json",
        ] {
            assert!(asks_for_json(line.split(' ')), "{line}");
        }
        for line in ["x -o text", "x --output", "json", "x -w json"] {
            assert!(!asks_for_json(line.split(' ')), "{line}");
        }
        assert_eq!(as_json(5, "not_found", "no")["error"]["code"], 5);
    }
}
