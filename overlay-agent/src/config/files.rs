//! The configuration as it lies on the disk: the file, and the fragments in the folder beside it.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    ConfigError, fragments,
    fragments::{Fragment, Outcome},
    parse,
};
use crate::model::Model;

/// The folder of fragments, beside the configuration file.
pub const PEERS_FOLDER: &str = "peers.d";

/// The files, and what was good of them when they were last read.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    last: Option<Fingerprint>,
    main: Option<Model>,
    good: BTreeMap<PathBuf, String>,
}

/// What the files ask for.
#[derive(Debug)]
pub struct Loaded {
    /// With the peers of all fragments that are good.
    pub model: Model,
    /// Why the configuration file does not count; the one before does.
    pub refused: Option<ConfigError>,
    /// Fragments that do not count, or in an earlier version.
    pub refused_fragments: Vec<ConfigError>,
    /// How many fragments count.
    pub fragments: usize,
}

/// What tells texts from others; the texts themselves can be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint(u64);

impl Files {
    /// The files of a configuration; nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            last: None,
            main: None,
            good: BTreeMap::new(),
        }
    }

    /// The folder of fragments.
    pub fn peers_folder(&self) -> PathBuf {
        folder_of(&self.path).join(PEERS_FOLDER)
    }

    /// Reads everything. An error is the configuration file's, when none was good before.
    pub fn load(&mut self) -> Result<Loaded, ConfigError> {
        let texts = Texts::read(&self.path, &self.peers_folder());
        self.last = Some(texts.fingerprint());
        self.take(texts)
    }

    /// The same, if anything differs from what was last read; `None` also when there was and is
    /// nothing good.
    pub fn reload(&mut self) -> Option<Loaded> {
        let texts = Texts::read(&self.path, &self.peers_folder());
        let new = texts.fingerprint();
        if self.last.replace(new) == Some(new) {
            return None;
        }
        self.take(texts).ok()
    }

    fn take(&mut self, texts: Texts) -> Result<Loaded, ConfigError> {
        let read = match texts.main {
            Ok(text) => parse(&self.path, &text).map_err(ConfigError::from),
            Err(cause) => Err(ConfigError::Unreadable {
                path: self.path.clone(),
                cause,
            }),
        };
        let (mut model, refused) = match (read, &self.main) {
            (Ok(model), _) => (model, None),
            (Err(error), Some(before)) => (before.clone(), Some(error)),
            (Err(error), None) => return Err(error),
        };
        self.main = Some(model.clone());
        let fragments = texts.fragments.into_iter().map(|(path, text)| Fragment {
            before: self.good.get(&path).cloned(),
            path,
            text,
        });
        let Outcome {
            good,
            refused: refused_fragments,
        } = fragments::add(&mut model, fragments.collect());
        let fragments = good.len();
        self.good = good;
        Ok(Loaded {
            model,
            refused,
            refused_fragments,
            fragments,
        })
    }
}

/// What the files say.
struct Texts {
    main: io::Result<String>,
    fragments: BTreeMap<PathBuf, Result<String, String>>,
}

impl Texts {
    fn read(path: &Path, folder: &Path) -> Self {
        let fragments = match fragments_in(folder) {
            Ok(paths) => {
                let read = |path: &Path| fs::read_to_string(path);
                let all = paths.into_iter().map(|path| (read(&path), path));
                // One that has gone since the folder was read is not there.
                let there = all.filter(|(text, _)| !is_missing(text));
                there
                    .map(|(text, path)| (path, text.map_err(|cause| cause.to_string())))
                    .collect()
            }
            Err(cause) => BTreeMap::from([(folder.to_owned(), Err(cause.to_string()))]),
        };
        Self {
            main: fs::read_to_string(path),
            fragments,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        let main = self.main.as_ref().map_err(ToString::to_string);
        (main, &self.fragments).hash(&mut hasher);
        Fingerprint(hasher.finish())
    }
}

fn is_missing<T>(read: &io::Result<T>) -> bool {
    matches!(read, Err(cause) if cause.kind() == io::ErrorKind::NotFound)
}

/// The fragments in a folder, in the order of their names; none when it is not there.
fn fragments_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Editors and those who replace files atomically have others there meanwhile.
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_bytes().starts_with(b"."));
        let counts = !hidden && path.extension().is_some_and(|end| end == "toml");
        paths.extend(counts.then_some(path));
    }
    paths.sort();
    Ok(paths)
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
