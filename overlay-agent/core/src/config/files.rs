//! The configuration as it lies on the disk: the file, and the fragments in the folder beside it.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use overlay_cluster::changes::{Changes, Mismatch, Parts};

use super::{
    ConfigError, Faults, PeerChange, fragments,
    fragments::{Fragment, Outcome},
    parse, parse_with,
    roll::Roll,
};
use crate::{model::Model, text_file};

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
    /// What the cluster's helper has told since the agent's start: then that counts, and its file is only
    /// for the next start.
    told: Option<Told>,
    good_cluster: Option<Parts>,
    good: BTreeMap<PathBuf, String>,
    /// The base that changes of the cluster are checked against, as long as it is known.
    base: Base,
}

/// A network as the helper has told it.
#[derive(Debug)]
struct Told {
    parts: Parts,
    /// Whether it is to come into force.
    is_new: bool,
    /// Whether it is in force.
    in_force: bool,
}

/// The base that changes of the cluster's network are checked against.
#[derive(Debug, Default)]
enum Base {
    /// They are checked as a whole.
    #[default]
    None,
    /// The model, of whose network of the cluster so many peers are from its text.
    Model(Box<Model>, usize),
    /// The same, looked up.
    Roll(Box<Roll>),
}

/// The outcome of a change of the cluster's network.
#[derive(Debug)]
pub enum Taken {
    /// It is in force.
    Peers(PeerChange),
    /// It has to be looked at as a whole.
    Whole,
}

/// The configuration that the files ask for.
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

/// A fingerprint of the texts; they themselves can be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    files: u64,
    /// Of the cluster's fragment, where it is not the one in force.
    cluster: Option<u64>,
}

impl Files {
    /// The files of a configuration; nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            cluster: None,
            last: None,
            main: None,
            told: None,
            good_cluster: None,
            good: BTreeMap::new(),
            base: Base::None,
        }
    }

    /// The folder of fragments.
    pub fn peers_folder(&self) -> PathBuf {
        folder_of(&self.path).join(PEERS_FOLDER)
    }

    /// The same with the fragment of the cluster, which is left out without.
    #[must_use]
    pub fn with_cluster(mut self, fragment: PathBuf) -> Self {
        self.cluster = Some(fragment);
        self
    }

    /// The faults of a fragment of the cluster that is not written yet.
    pub fn cluster_faults(&self, text: &str) -> Option<Faults> {
        let (main, fragment) = self.main.as_ref().zip(self.cluster.as_ref())?;
        match parse_with(&self.path, main, Some((fragment, text))) {
            Ok((_, refused)) => refused,
            Err(faults) => Some(faults),
        }
    }

    /// The fragment of the cluster that is in force.
    pub fn cluster_text(&self) -> Option<String> {
        self.good_cluster.as_ref().map(Parts::text)
    }

    /// Notes a network that the cluster's helper has told as a whole, for what follows to change.
    pub fn tell_cluster(&mut self, text: &str) {
        self.told = Some(Told {
            parts: Parts::of(text),
            is_new: false,
            in_force: false,
        });
    }

    /// Has what it has told come into force with the next reading.
    pub fn accept_cluster(&mut self) {
        if let Some(told) = &mut self.told {
            told.is_new = true;
        }
    }

    /// The text of the cluster's helper, with all changes.
    pub fn told_cluster(&self) -> Option<String> {
        self.told.as_ref().map(|told| told.parts.text())
    }

    /// Takes in what has changed of what the helper has told.
    pub fn change_cluster(&mut self, changes: &Changes) -> Result<Taken, Mismatch> {
        let Some(told) = &mut self.told else {
            return Err(Mismatch::Number {
                told: changes.number,
                expected: 0,
            });
        };
        let base = std::mem::take(&mut self.base);
        let roll = match base {
            Base::Roll(roll) => Some(*roll),
            Base::Model(model, count) => Roll::of(&model, count, &told.parts),
            Base::None => None,
        };
        let difference = told.parts.change(changes)?;
        let change = roll
            .filter(|_| told.in_force)
            .and_then(|roll| roll.change(&difference));
        let Some((roll, change)) = change else {
            told.in_force = false;
            return Ok(Taken::Whole);
        };
        self.good_cluster = Some(told.parts.clone());
        self.base = Base::Roll(Box::new(roll));
        Ok(Taken::Peers(change))
    }

    /// Reads everything. An error is the configuration file's, when none was good before.
    pub fn load(&mut self) -> Result<Loaded, ConfigError> {
        let texts = self.read();
        self.last = Some(texts.fingerprint());
        self.take(texts)
    }

    /// The same, if anything differs from what was last read; `None` also when there was and is
    /// nothing good.
    pub fn reload(&mut self) -> Option<Loaded> {
        let texts = self.read();
        let mut new = texts.fingerprint();
        let in_force = self.last.and_then(|last| last.cluster);
        new.cluster = new.cluster.or(in_force);
        let is_told = self.told.as_ref().is_some_and(|told| told.is_new);
        if self.last.replace(new) == Some(new) && !is_told {
            return None;
        }
        self.take(texts).ok()
    }

    fn read(&self) -> Texts {
        let cluster = match &self.told {
            Some(told) if told.is_new => Cluster::New(told.parts.text()),
            Some(_) => Cluster::InForce,
            None => {
                // It is the agent's own; when it is not there, or cannot be read, nothing is remembered.
                let path = self.cluster.as_ref();
                let text = path.and_then(|path| text_file::read(path).ok());
                text.map_or(Cluster::InForce, Cluster::New)
            }
        };
        Texts::read(&self.path, &self.peers_folder(), cluster)
    }

    fn take(&mut self, texts: Texts) -> Result<Loaded, ConfigError> {
        let now = texts.main.map_err(|cause| ConfigError::Unreadable {
            path: self.path.clone(),
            cause,
        });
        let fragment = match texts.cluster {
            Cluster::New(text) => Some(text),
            Cluster::InForce => None,
        };
        let read = now.and_then(|main| Ok((self.with_fragment(&main, fragment.clone())?, main)));
        let (model, main, refused) = match (read, self.main.clone()) {
            (Ok((model, main)), _) => (model, main, None),
            (Err(error), Some(main)) => (self.with_fragment(&main, fragment)?, main, Some(error)),
            (Err(error), None) => return Err(error),
        };
        let (mut model, refused_cluster) = model;
        self.main = Some(main);
        let of_cluster = model.cluster.as_ref();
        let of_cluster = of_cluster.and_then(|cluster| model.network(&cluster.network));
        let of_cluster = of_cluster.map(|network| network.peers.len());
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
        // A file that is not in force could be, as soon as somebody has gone.
        self.base = match of_cluster.filter(|_| refused_fragments.is_empty()) {
            Some(count) => Base::Model(Box::new(model.clone()), count),
            None => Base::None,
        };
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
        let is_new = now.is_some();
        for (text, is_new) in [(now, is_new), (self.cluster_text(), false)] {
            let Some(text) = text else { continue };
            let (model, faults) = parse_with(&self.path, main, Some((&path, &text)))?;
            if faults.is_none() {
                if is_new {
                    let told = self.told.as_ref().map(|told| told.parts.clone());
                    self.good_cluster = Some(told.unwrap_or_else(|| Parts::of(&text)));
                }
                if let Some(told) = &mut self.told {
                    told.in_force |= is_new && told.is_new;
                    told.is_new = false;
                }
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
                (self.good_cluster, self.told) = (None, None);
                Ok((model, refused))
            }
        }
    }
}

/// The text of the cluster, by where it is.
enum Cluster {
    /// A text that may not be in force.
    New(String),
    /// Nothing but that, if there is one.
    InForce,
}

/// The texts of the files.
struct Texts {
    cluster: Cluster,
    main: io::Result<String>,
    fragments: BTreeMap<PathBuf, Result<String, String>>,
}

impl Texts {
    fn read(path: &Path, folder: &Path, cluster: Cluster) -> Self {
        let fragments = match fragments_in(folder) {
            Ok(paths) => {
                let read = |path: &Path| text_file::read(path);
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
            cluster,
            main: text_file::read(path),
            fragments,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        let main = self.main.as_ref().map_err(ToString::to_string);
        (main, &self.fragments).hash(&mut hasher);
        let cluster = match &self.cluster {
            Cluster::New(text) => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Some(hasher.finish())
            }
            Cluster::InForce => None,
        };
        Fingerprint {
            files: hasher.finish(),
            cluster,
        }
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
pub fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
