//! A lab's state between commands, under `/run/overlay-lab/NAME`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    names::LabName,
    script::{Section, Step},
    shape::Shape,
    topology::Topology,
};

const ROOT: &str = "/run/overlay-lab";

/// Where a lab keeps its record, its logs and its agents' configuration.
pub fn folder(name: &LabName) -> PathBuf {
    Path::new(ROOT).join(name.to_string())
}

/// The configuration of an agent.
pub fn config_file(name: &LabName, instance: &str) -> PathBuf {
    folder(name).join(format!("{instance}.toml"))
}

/// The output of a started process.
pub fn log_file(name: &LabName, task: &str) -> PathBuf {
    folder(name).join(format!("{task}.log"))
}

/// The step that makes the folder, for people who build the lab by hand.
pub(crate) fn section(name: &LabName) -> Section {
    let made = Step::run(format!("mkdir -p {}", folder(name).display()));
    Section::new("Logs and configuration files have a folder", [made])
}

/// The record of a lab that is up, or that somebody began to raise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its shape.
    pub shape: Shape,
    /// The program of its agents.
    pub agent: PathBuf,
    /// Whether all of it was built. A record precedes the first command, so that
    /// whatever was made can be taken down.
    pub ready: bool,
}

impl State {
    /// The record of this lab, if there is one.
    pub fn load(name: &LabName) -> Result<Option<Self>> {
        let path = folder(name).join("lab.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::File {
                    operation: "read",
                    path,
                    source,
                });
            }
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| Error::State { path, source })
    }

    /// Writes the record; a reader sees the old one or the new one.
    pub fn save(&self) -> Result<()> {
        let folder = folder(&self.shape.name);
        let (path, new) = (folder.join("lab.json"), folder.join("lab.json.new"));
        let text = serde_json::to_string_pretty(self).map_err(|source| Error::State {
            path: path.clone(),
            source,
        })?;
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("replace", path))
    }

    /// The whole lab.
    pub fn topology(&self) -> Topology {
        Topology::new(self.shape.clone())
    }
}

/// The labs that have a record, by name.
pub fn all() -> Result<Vec<LabName>> {
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::File {
                operation: "read",
                path: ROOT.into(),
                source,
            });
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("read", ROOT))?;
        let name = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(name) = name
            && State::load(&name)?.is_some()
        {
            names.push(name);
        }
    }
    names.sort_by_key(LabName::to_string);
    Ok(names)
}

/// The right to change a lab; two commands at once would tear at each other's work.
#[derive(Debug)]
pub struct Lock {
    name: LabName,
    /// Whether somebody else has files in the folder.
    foreign: bool,
    _folder: File,
}

impl Lock {
    /// Waits for the right, and makes the lab's folder.
    pub fn take(name: &LabName) -> Result<Self> {
        let path = folder(name);
        loop {
            fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
            let file = match File::open(&path) {
                Ok(file) => file,
                // Its last owner removed it just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    return Err(Error::File {
                        operation: "open",
                        path,
                        source,
                    });
                }
            };
            file.lock().map_err(Error::file("lock", &path))?;
            let held = file.metadata().map_err(Error::file("examine", &path))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == held.ino()) {
                let foreign = State::load(name)?.is_none() && has_files(&path)?;
                return Ok(Self {
                    name: name.clone(),
                    foreign,
                    _folder: file,
                });
            }
        }
    }

    /// The lab's folder, where there are files in it that no lab has left.
    pub fn foreign(&self) -> Option<PathBuf> {
        self.foreign.then(|| folder(&self.name))
    }

    /// Removes all that the lab remembers, and the right with it. A folder with files of others stays.
    pub fn forget(self) -> Result<()> {
        let path = folder(&self.name);
        if self.foreign {
            return Ok(());
        }
        fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
        match fs::remove_dir(ROOT) {
            Ok(()) => Ok(()),
            // Other labs are in it, or another command has just removed it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
                ) =>
            {
                Ok(())
            }
            Err(source) => Err(Error::File {
                operation: "remove",
                path: ROOT.into(),
                source,
            }),
        }
    }
}

/// Whether there is more in a folder than a record that was being written.
fn has_files(folder: &Path) -> Result<bool> {
    let entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name != "lab.json.new"))
}
