//! The file that flannel's CNI plugin reads, at a path where others may have a file, too.
//!
//! The file is ours by its content, which the state file had before the file did. One with any
//! other content is somebody else's, such as a flanneld's: it stays, and is told of.

use std::{fs, io, path::Path};

use overlay_api::{
    files::{self, Whole, unfinished},
    nameless::Nameless,
};
use overlay_core::{
    model::Cluster,
    state::{Content, SubnetEnv},
    text_file,
    trouble::{Trouble, ids},
};
use overlay_node::store::{Store, StoreError};
use tracing::warn;

use super::Reconciler;

/// Writes the file where the configuration says so, and removes it where it no longer does; why
/// it could not.
pub(super) fn follow(reconciler: &mut Reconciler) -> Option<Trouble> {
    let cluster = reconciler.config.cluster.as_ref();
    let path = cluster.and_then(|cluster| cluster.subnet_env.clone());
    let before = reconciler.store.content().subnet_env.clone();
    if let Some(before) = before.filter(|before| Some(&before.path) != path.as_ref()) {
        match remove(&before, &mut reconciler.store) {
            Ok(None) => {}
            Ok(Some(left)) => warn!("{left}"),
            Err(trouble) => return Some(*trouble),
        }
    }
    let path = path?;
    let text = text(reconciler, reconciler.config.cluster.as_ref()?)?;
    let written = write(&path, &text, &mut reconciler.store);
    written.err().map(|trouble| *trouble)
}

/// Removes the file if it is ours, and forgets it; a sentence if it is somebody else's by now.
pub(super) fn remove(ours: &SubnetEnv, store: &mut Store) -> Result<Option<String>, Box<Trouble>> {
    let path = &ours.path;
    clear_unfinished(ours)?;
    let found = read(path).map_err(|cause| failed("read", path, &cause))?;
    let left = match found {
        Some(text) if ours.texts.contains(&text) => {
            fs::remove_file(path).map_err(|cause| failed("remove", path, &cause))?;
            None
        }
        Some(_) => Some(format!(
            "{} stays: somebody else has written it",
            path.display()
        )),
        None => None,
    };
    note(store, |content| content.subnet_env = None)?;
    Ok(left)
}

fn write(path: &Path, text: &str, store: &mut Store) -> Result<(), Box<Trouble>> {
    let found = read(path).map_err(|cause| failed("read", path, &cause))?;
    if let Some(known) = &store.content().subnet_env {
        clear_unfinished(known)?;
    }
    if found.as_deref() == Some(text) {
        return Ok(());
    }
    let known = store.content().subnet_env.as_ref();
    let mut texts = known.map_or_else(Vec::new, |known| known.texts.clone());
    if let Some(found) = &found
        && !texts.contains(found)
    {
        let what = format!(
            "{} is there, and this agent has not written it",
            path.display()
        );
        let cure = format!(
            "end who writes it, such as flanneld, then: rm {}",
            path.display()
        );
        return Err(trouble(what, cure).into());
    }
    // What is there stays ours until the new one has taken its place.
    texts.retain(|known| Some(known) == found.as_ref());
    texts.push(text.to_owned());
    let ours = SubnetEnv {
        path: path.to_owned(),
        texts,
    };
    if store.content().subnet_env.as_ref() != Some(&ours) {
        let noted = ours.clone();
        note(store, |content| content.subnet_env = Some(noted))?;
    }
    put(path, text, found.is_none(), &ours).map_err(|cause| failed("write", path, &cause).into())
}

/// Writes the file where there is `none`, or in the place of ours.
fn put(path: &Path, text: &str, none: bool, ours: &SubnetEnv) -> io::Result<()> {
    // Others read it.
    const MODE: u32 = 0o644;
    let folder = overlay_core::config::folder_of(path);
    fs::create_dir_all(folder)?;
    if none && let Some(file) = Nameless::new_in(folder, MODE)? {
        return if file.put(text.as_bytes(), path)? {
            fs::File::open(folder)?.sync_all()
        } else {
            Err(io::ErrorKind::AlreadyExists.into())
        };
    }
    let whole = Whole {
        path,
        text: text.as_bytes(),
        mode: MODE,
        modified: None,
        durable: true,
    };
    whole.replace(&|there| begins_one_of(ours, there))
}

/// Whether a content, or the part of one that a killed writer has left, is one that we wrote.
fn begins_one_of(ours: &SubnetEnv, there: &[u8]) -> bool {
    let mut texts = ours.texts.iter();
    texts.any(|text| text.as_bytes().starts_with(there))
}

/// Removes what a writer has left that was killed before it was done.
fn clear_unfinished(ours: &SubnetEnv) -> Result<(), Box<Trouble>> {
    let new = unfinished(&ours.path);
    files::remove(&new, &|there| begins_one_of(ours, there))
        .map(drop)
        .map_err(|cause| failed("remove", &new, &cause).into())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match text_file::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn note(store: &mut Store, change: impl FnOnce(&mut Content)) -> Result<(), Box<Trouble>> {
    let noted: Result<(), StoreError> = store.update(change);
    noted.map_err(|error| {
        trouble(
            error.to_string(),
            "see that the disk has room and lets the agent write there".to_owned(),
        )
        .into()
    })
}

fn trouble(what: String, cure: String) -> Trouble {
    Trouble::new(ids::SUBNET_ENV, "subnet_env", what, cure)
}

fn failed(operation: &str, path: &Path, cause: &io::Error) -> Trouble {
    let what = format!("{operation} {}: {cause}", path.display());
    let cure = "correct cluster.subnet_env, or let the agent write there";
    trouble(what, cure.to_owned())
}

/// flannel's `subnet.env`: its lines, in its order.
fn text(reconciler: &Reconciler, cluster: &Cluster) -> Option<String> {
    let network = reconciler.config.network(&cluster.network)?;
    let mtu = reconciler.facts.mtus.get(&cluster.network)?;
    let families = network.ranges.iter().map(|range| {
        let family = if range.cidr.addr().is_ipv4() {
            ""
        } else {
            "IPV6_"
        };
        format!(
            "FLANNEL_{family}NETWORK={}\nFLANNEL_{family}SUBNET={}/{}\n",
            range.cidr,
            range.gateway(),
            range.subnet.prefix_len()
        )
    });
    Some(format!(
        "{}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={}\n",
        families.collect::<String>(),
        network.masquerade
    ))
}
