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
    ConfigError, Faults, fragments,
    fragments::{Fragment, Outcome},
    parse, parse_with,
};
use crate::model::Model;

/// The folder of fragments, beside the configuration file.
pub const PEERS_FOLDER: &str = "peers.d";

/// The files, and what was good of them when they were last read.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// Where the fragment of the cluster is kept.
    cluster: Option<PathBuf>,
    last: Option<Fingerprint>,
    /// The text of the configuration file.
    main: Option<String>,
    good_cluster: Option<String>,
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
            cluster: None,
            last: None,
            main: None,
            good_cluster: None,
            good: BTreeMap::new(),
        }
    }

    /// The folder of fragments.
    pub fn peers_folder(&self) -> PathBuf {
        folder_of(&self.path).join(PEERS_FOLDER)
    }

    /// The same with the fragment of the cluster, which is left out without.
    pub(crate) fn with_cluster(mut self, fragment: PathBuf) -> Self {
        self.cluster = Some(fragment);
        self
    }

    /// What is wrong with a fragment of the cluster that is not written yet.
    pub(crate) fn cluster_faults(&self, text: &str) -> Option<Faults> {
        let (main, fragment) = self.main.as_ref().zip(self.cluster.as_ref())?;
        match parse_with(&self.path, main, Some((fragment, text))) {
            Ok((_, refused)) => refused,
            Err(faults) => Some(faults),
        }
    }

    /// The fragment of the cluster that is in force.
    pub(crate) fn cluster_text(&self) -> Option<&String> {
        self.good_cluster.as_ref()
    }

    /// Reads everything. An error is the configuration file's, when none was good before.
    pub fn load(&mut self) -> Result<Loaded, ConfigError> {
        let texts = Texts::read(&self.path, &self.peers_folder(), self.cluster.as_deref());
        self.last = Some(texts.fingerprint());
        self.take(texts)
    }

    /// The same, if anything differs from what was last read; `None` also when there was and is
    /// nothing good.
    pub fn reload(&mut self) -> Option<Loaded> {
        let texts = Texts::read(&self.path, &self.peers_folder(), self.cluster.as_deref());
        let new = texts.fingerprint();
        if self.last.replace(new) == Some(new) {
            return None;
        }
        self.take(texts).ok()
    }

    fn take(&mut self, texts: Texts) -> Result<Loaded, ConfigError> {
        let now = texts.main.map_err(|cause| ConfigError::Unreadable {
            path: self.path.clone(),
            cause,
        });
        let fragment = texts.cluster;
        let read = now.and_then(|main| Ok((self.with_fragment(&main, fragment.clone())?, main)));
        let (model, main, refused) = match (read, self.main.clone()) {
            (Ok((model, main)), _) => (model, main, None),
            (Err(error), Some(main)) => (self.with_fragment(&main, fragment)?, main, Some(error)),
            (Err(error), None) => return Err(error),
        };
        let (mut model, refused_cluster) = model;
        self.main = Some(main);
        let fragments = texts.fragments.into_iter().map(|(path, text)| Fragment {
            before: self.good.get(&path).cloned(),
            path,
            text,
        });
        let Outcome {
            good,
            refused: mut refused_fragments,
        } = fragments::add(&mut model, fragments.collect());
        refused_fragments.extend(refused_cluster.map(ConfigError::from));
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

impl Files {
    /// The model with the cluster's network, as it is now or else as it was.
    ///
    /// A file that neither goes with is refused itself: a network that carries traffic stays.
    fn with_fragment(
        &mut self,
        main: &str,
        now: Option<String>,
    ) -> Result<(Model, Option<Faults>), ConfigError> {
        let Some(path) = self.cluster.clone() else {
            return Ok((parse(&self.path, main)?, None));
        };
        let mut refused = None;
        for text in [now, self.good_cluster.clone()].into_iter().flatten() {
            let (model, faults) = parse_with(&self.path, main, Some((&path, &text)))?;
            if faults.is_none() {
                self.good_cluster = Some(text);
                return Ok((model, refused));
            }
            refused = refused.or(faults);
        }
        let model = parse(&self.path, main)?;
        match refused {
            Some(faults) if self.good_cluster.is_some() && model.cluster.is_some() => {
                Err(faults.into())
            }
            refused => {
                self.good_cluster = None;
                Ok((model, refused))
            }
        }
    }
}

/// What the files say.
struct Texts {
    cluster: Option<String>,
    main: io::Result<String>,
    fragments: BTreeMap<PathBuf, Result<String, String>>,
}

impl Texts {
    fn read(path: &Path, folder: &Path, cluster: Option<&Path>) -> Self {
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
            // It is the agent's own; when it is not there, or cannot be read, nothing is remembered.
            cluster: cluster.and_then(|path| fs::read_to_string(path).ok()),
            main: fs::read_to_string(path),
            fragments,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        let main = self.main.as_ref().map_err(ToString::to_string);
        (main, &self.fragments, &self.cluster).hash(&mut hasher);
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
