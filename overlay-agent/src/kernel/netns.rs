//! Network namespaces: names under `/run/netns` as `ip netns` keeps them, and
//! threads that enter one.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use serde::{Deserialize, Serialize};

use super::{KernelError, Result, netlink::blocking};
use crate::{hooks, model::Name};

/// Where names of namespaces are kept.
const DIRECTORY: &str = "/run/netns";
/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// Every namespace's loopback device has this index (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// The identity of a namespace: two files with equal ids are the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device number of the nsfs.
    pub dev: u64,
    /// Inode number in it; it can come again after the namespace is gone.
    pub inode: u64,
}

/// The file that stands for the namespace of this name.
pub fn path_of(name: &Name) -> PathBuf {
    Path::new(DIRECTORY).join(name.as_str())
}

/// The namespace that a file stands for; `None` when there is no such file, or
/// one that is no namespace.
pub fn id(path: &Path) -> Result<Option<NetnsId>> {
    let operation = || format!("look at namespace {}", path.display());
    match statfs(path) {
        Ok(found) if found.filesystem_type() == NSFS_MAGIC => {}
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(KernelError::os(operation(), errno)),
    }
    let found = fs::metadata(path).map_err(|error| KernelError::io(operation(), &error))?;
    Ok(Some(NetnsId {
        dev: found.dev(),
        inode: found.ino(),
    }))
}

/// The namespace of the calling thread.
pub fn own() -> Result<NetnsId> {
    id(Path::new(OWN))?
        .ok_or_else(|| KernelError::new(format!("look at namespace {OWN}"), "it is none"))
}

/// Makes a namespace with its loopback device up, as `ip netns add` does.
///
/// Fails with [`already_there`](KernelError::already_there) when the name is taken.
pub fn create(name: &Name) -> Result<NetnsId> {
    let path = path_of(name);
    let operation = || format!("create namespace {name}");
    share_directory().map_err(|error| KernelError::io(operation(), &error))?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o000)
        .open(&path)
        .map_err(|error| KernelError::io(operation(), &error))?;
    hooks::step_done();
    on_thread(|| bind_new_namespace(&path))
        .flatten()
        .and_then(|()| id(&path))
        .and_then(|id| id.ok_or_else(|| KernelError::new(operation(), "it vanished at once")))
        .map_err(|error| match delete(name) {
            Ok(()) => error,
            Err(leftover) => error.because(leftover),
        })
}

/// Removes the name of a namespace of which no more than that was made; nothing there is fine.
pub fn clear_unfinished(name: &Name) -> Result<()> {
    let path = path_of(name);
    match fs::metadata(&path) {
        Ok(file) if file.is_file() && file.len() == 0 && id(&path)?.is_none() => delete(name),
        _ => Ok(()),
    }
}

/// Removes a name, as `ip netns del` does: the namespace goes when nobody uses it any more.
pub fn delete(name: &Name) -> Result<()> {
    let path = path_of(name);
    let operation = || format!("delete namespace {name}");
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a file that nothing is mounted on, left by somebody who was interrupted.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(KernelError::os(operation(), errno)),
    }
    fs::remove_file(&path).map_err(|error| KernelError::io(operation(), &error))
}

/// Moves the calling thread, and threads that it starts later, into a namespace.
pub fn enter(path: &Path) -> Result<()> {
    let operation = || format!("enter namespace {}", path.display());
    let file = fs::File::open(path).map_err(|error| KernelError::io(operation(), &error))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::os(operation(), errno))
}

/// Does some work in a namespace, on a thread of its own.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    on_thread(|| enter(path).map(|()| work())).flatten()
}

/// Runs `work` on a fresh thread, whose namespace nobody else depends on.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| KernelError::io("start a thread", &error))?;
        Ok(worker
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

/// Makes the directory a shared mount, so that mount namespaces that are made later
/// see names come and go; otherwise a name that is deleted would live on in them.
fn share_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    // As iproute2 does: of two at a time, each would put a mount on the other's.
    let directory = fs::File::open(DIRECTORY)?;
    directory.lock()?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, DIRECTORY, None::<&str>, flags, None::<&str>)
    };
    match share() {
        // Only a mount point can be shared.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(
                Some(DIRECTORY),
                DIRECTORY,
                None::<&str>,
                flags,
                None::<&str>,
            )?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

/// Leaves the calling thread in a new namespace that `path` stands for.
fn bind_new_namespace(path: &Path) -> Result<()> {
    let operation = || format!("create namespace {}", path.display());
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::os(operation(), errno))?;
    let mut loopback = LinkMessage::default();
    loopback.header.index = LOOPBACK;
    loopback.header.flags = LinkFlags::Up;
    loopback.header.change_mask = LinkFlags::Up;
    blocking::change(RouteNetlinkMessage::SetLink(loopback), 0)
        .map_err(|refusal| refusal.during("set lo up in a new namespace"))?;
    mount(
        Some(OWN),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|errno| KernelError::os(operation(), errno))
}
