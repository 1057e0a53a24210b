//! The test programs that cargo builds: all with the same selection of packages, because each
//! selection may turn on other features, and then has the agent compiled once more.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{setup::cross::Cross, workspace};

/// A program of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Of its target: a file in `tests/`, a library or a binary.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// Of its package, where cargo would run it.
    pub(super) folder: PathBuf,
    /// Whether it is a file in `tests/`.
    pub(super) is_integration: bool,
}

/// Builds all tests of the workspace.
pub(crate) fn build_all() -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo();
    built(cargo.args(["test", "--workspace", "--no-run"]))
}

/// Builds end-to-end tests alone, and as [`build_all`] does, so that neither is built twice.
pub(crate) fn build<'a>(
    names: impl ExactSizeIterator<Item = &'a str>,
    cross: Option<&Cross>,
) -> Result<Vec<Program>> {
    let wanted = names.len();
    let mut cargo = match cross {
        None => {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--workspace"]);
            cargo
        }
        Some(cross) => {
            let mut cargo = cross.cargo("test")?;
            cargo.args(["--package", super::LAB]);
            cargo
        }
    };
    cargo.arg("--no-run");
    for name in names {
        cargo.args(["--test", name]);
    }
    let programs = built(&mut cargo)?;
    let built = programs.len();
    ensure!(built == wanted, "cargo built {built} tests, not {wanted}");
    Ok(programs)
}

impl Program {
    /// Whether it is one of the lab's, and not of a crate's units.
    pub(super) fn is_of_the_lab(&self) -> bool {
        self.is_integration && self.folder == workspace::root().join("tests")
    }

    /// The command that runs it as cargo would.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Its name, and whose it is.
    pub(super) fn label(&self) -> String {
        let folder = self.folder.strip_prefix(workspace::root());
        let folder = folder.unwrap_or(&self.folder).display();
        if self.is_integration {
            self.name.clone()
        } else {
            format!("units of {folder}")
        }
    }
}

/// What of a message of cargo's is read.
#[derive(Deserialize)]
struct Message {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

fn built(cargo: &mut Command) -> Result<Vec<Program>> {
    let output = cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages = String::from_utf8(output.stdout).context("read what cargo built")?;
    Ok(messages.lines().filter_map(program).collect())
}

/// The program of tests in one of cargo's messages, of which there are many other kinds.
fn program(message: &str) -> Option<Program> {
    let message: Message = serde_json::from_str(message).ok()?;
    if !message.profile.test {
        return None;
    }
    Some(Program {
        name: message.target.name,
        executable: message.executable?,
        folder: message.manifest_path.parent().map(Path::to_path_buf)?,
        is_integration: message.target.kind.iter().any(|kind| kind == "test"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_tests() {
        let test = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"name":"wire","test":true},"profile":{"test":true},
            "executable":"/t/debug/deps/wire-0123456789abcdef"}"#;
        let wire = Program {
            name: "wire".to_owned(),
            executable: "/t/debug/deps/wire-0123456789abcdef".into(),
            folder: "/w/tests".into(),
            is_integration: true,
        };
        assert_eq!(program(test), Some(wire));
        assert_eq!(
            program(&test.replace(r#"{"test":true}"#, r#"{"test":false}"#)),
            None
        );
        assert_eq!(program("Compiling x"), None);
    }

    #[test]
    fn units_are_named_by_their_crate() {
        let folder = workspace::root().join("overlay-agent/api");
        let units = Program {
            name: "overlay_api".to_owned(),
            executable: "/t/x".into(),
            folder,
            is_integration: false,
        };
        assert_eq!(units.label(), "units of overlay-agent/api");
        assert!(!units.is_of_the_lab());
    }
}
