//! What Docker tells only once, kept in a file for each network and endpoint.

use std::{
    io,
    marker::PhantomData,
    net::IpAddr,
    path::{Path, PathBuf},
};

use overlay_api::files::{self, Whole};
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
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<String>,
    /// Name of its interface, if one is asked for.
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
        let whole = Whole {
            path: &file,
            text: &text,
            mode: 0o600,
            modified: None,
            durable: true,
        };
        whole.replace(&is_ours).map_err(trouble)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Option<T>, Trouble> {
        let file = self.file(id)?;
        let read = files::read(&file).transpose();
        let thing = read.map(|text| text.and_then(|text| Ok(serde_json::from_slice(&text)?)));
        thing.transpose().map_err(|cause| Trouble::Memory {
            operation: "read",
            path: file,
            cause,
        })
    }

    /// Forgets a thing; one that is not known is fine.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Trouble> {
        let file = self.file(id)?;
        files::remove_with_unfinished(&file, &is_ours)
            .map(drop)
            .map_err(|cause| Trouble::Memory {
                operation: "remove",
                path: file,
                cause,
            })
    }
}

/// How a [`Network`] begins, and an [`Endpoint`], or the part of one that was written.
fn is_ours(text: &[u8]) -> bool {
    [&b"{\"instance\":"[..], b"{\"network\":"]
        .iter()
        .any(|head| text.starts_with(head) || head.starts_with(text))
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
    fn what_somebody_else_has_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let shelf: Shelf<Network> = Shelf::at(folder.path(), "networks");
        let lab = Network {
            instance: "node".to_owned(),
            network: "lab".to_owned(),
        };
        shelf.put("a1", &lab).unwrap();
        for name in ["a1.json", "a1.json.new"] {
            let path = folder.path().join("networks").join(name);
            std::fs::write(&path, "somebody's").unwrap();
            let told = shelf.put("a1", &lab).unwrap_err().to_string();
            assert!(
                told.contains(name) && told.contains("move it away"),
                "{told}"
            );
            shelf.remove("a1").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
            std::fs::remove_file(&path).unwrap();
        }
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
