//! What Docker says once and never again, in a file for each.

use std::{
    fs, io,
    io::Write as _,
    marker::PhantomData,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::trouble::Trouble;

/// A network of Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// The agent's instance.
    pub(crate) instance: String,
    /// Its network.
    pub(crate) network: String,
}

/// A container's place in a network, from before there is a namespace until after it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) network: Network,
    /// What it was given.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<String>,
    /// What its interface is to be called, where somebody cares.
    pub(crate) wanted: Option<String>,
    /// What it is called, from the moment on in which the agent is asked to make it.
    pub(crate) interface: Option<String>,
}

/// A folder of things that are known by an id.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    folder: PathBuf,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Shelf<T> {
    pub(crate) fn at(folder: &Path, name: &str) -> Self {
        Self {
            folder: folder.join(name),
            of: PhantomData,
        }
    }

    fn file(&self, id: &str) -> Result<PathBuf, Trouble> {
        let fine =
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|it| it.is_ascii_alphanumeric());
        if fine {
            Ok(self.folder.join(format!("{id}.json")))
        } else {
            Err(Trouble::Id(id.to_owned()))
        }
    }

    /// Remembers a thing, in the place of what was known by its id.
    pub(crate) fn put(&self, id: &str, thing: &T) -> Result<(), Trouble> {
        let file = self.file(id)?;
        let trouble = |cause| Trouble::Memory {
            operation: "write",
            path: file.clone(),
            cause,
        };
        let text = serde_json::to_vec(thing).map_err(io::Error::other);
        let text = text.map_err(trouble)?;
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(&self.folder);
        made.map_err(trouble)?;
        let unfinished = file.with_extension("tmp");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&unfinished).and_then(|mut writer| {
            writer.write_all(&text)?;
            writer.sync_all()
        });
        written.map_err(trouble)?;
        fs::rename(&unfinished, &file).map_err(trouble)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Option<T>, Trouble> {
        let file = self.file(id)?;
        let read = match fs::read(&file) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read,
        };
        let thing = read.and_then(|text| Ok(serde_json::from_slice(&text)?));
        thing.map(Some).map_err(|cause| Trouble::Memory {
            operation: "read",
            path: file,
            cause,
        })
    }

    /// Forgets a thing; one that is not known is fine.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Trouble> {
        let file = self.file(id)?;
        match fs::remove_file(&file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Trouble::Memory {
                operation: "remove",
                path: file,
                cause,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, Shelf};
    use crate::trouble::Trouble;

    #[test]
    fn what_is_put_is_found_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let shelf: Shelf<Network> = Shelf::at(folder.path(), "networks");
        let lab = Network {
            instance: "node".to_owned(),
            network: "lab".to_owned(),
        };
        assert_eq!(shelf.get("a1").unwrap(), None);
        shelf.put("a1", &lab).unwrap();
        shelf.put("a1", &lab).unwrap();
        assert_eq!(shelf.get("a1").unwrap(), Some(lab));
        shelf.remove("a1").unwrap();
        shelf.remove("a1").unwrap();
        assert_eq!(shelf.get("a1").unwrap(), None);
    }

    #[test]
    fn an_id_leads_to_no_other_folder() {
        let folder = tempfile::tempdir().unwrap();
        let shelf: Shelf<Network> = Shelf::at(folder.path(), "networks");
        for id in ["", "../x", "a/b", "a.b"] {
            assert!(matches!(shelf.get(id), Err(Trouble::Id(_))), "{id:?}");
        }
    }
}
