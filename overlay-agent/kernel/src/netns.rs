//! Network namespaces: names under `/run/netns` as `ip netns` keeps them, and
//! threads that enter one.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        statfs::{NSFS_MAGIC, fstatfs, statfs},
    },
    unistd::linkat,
};
use overlay_core::{
    identity::{Made, NetnsId, boot_id},
    model::Name,
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};

use super::{KernelError, Result, netlink::blocking};
use crate::hooks;

/// Where names of namespaces are kept.
const DIRECTORY: &str = "/run/netns";
/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// Every namespace's loopback device has this index (`LOOPBACK_IFINDEX`).
pub const LOOPBACK: u32 = 1;

/// The file that stands for the namespace of this name.
pub fn path_of(name: &Name) -> PathBuf {
    Path::new(DIRECTORY).join(name.as_str())
}

/// The namespace that a file stands for; `None` when there is no such file, or
/// one that is no namespace.
pub fn id(path: &Path) -> Result<Option<NetnsId>> {
    Ok(visit(path, || ())?.map(|(id, ())| id))
}

/// The same, with what some work in it has come to, on a thread of its own.
pub fn visit<T: Send>(
    path: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<Option<(NetnsId, T)>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let operation = || format!("look at namespace {}", path.display());
    on_thread(|| {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| KernelError::os(operation(), errno))?;
        Ok(Some((identify(&file, operation)?, work())))
    })?
}

/// Whether the namespace that a file stands for is the calling thread's own.
pub fn is_own(path: &Path) -> Result<bool> {
    let number = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::io(
            format!("look at namespace {}", path.display()),
            &error,
        )),
    };
    Ok(number(path)?
        .is_some_and(|there| number(Path::new(OWN)).is_ok_and(|own| own == Some(there))))
}

/// The namespace of the calling thread.
pub fn own() -> Result<NetnsId> {
    let operation = || format!("look at namespace {OWN}");
    let file = open(Path::new(OWN))?;
    let file = file.ok_or_else(|| KernelError::new(operation(), "it is none"))?;
    identify(&file, operation)
}

/// The file of a namespace; `None` as [`id`].
fn open(path: &Path) -> Result<Option<fs::File>> {
    let operation = || format!("look at namespace {}", path.display());
    let nothing = |errno| matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH);
    match statfs(path) {
        Ok(found) if found.filesystem_type() == NSFS_MAGIC => {}
        Ok(_) => return Ok(None),
        Err(errno) if nothing(errno) => return Ok(None),
        Err(errno) => return Err(KernelError::os(operation(), errno)),
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        // It has gone since.
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|raw| nothing(Errno::from_raw(raw))) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(KernelError::io(operation(), &error)),
    };
    let found = fstatfs(&file).map_err(|errno| KernelError::os(operation(), errno))?;
    Ok((found.filesystem_type() == NSFS_MAGIC).then_some(file))
}

/// The identity of the calling thread's namespace, which this file stands for.
fn identify(file: &fs::File, operation: impl Fn() -> String) -> Result<NetnsId> {
    let found = file.metadata();
    let found = found.map_err(|error| KernelError::io(operation(), &error))?;
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let cookie = socket.and_then(|socket| cookie_of(socket.as_fd()));
    Ok(NetnsId {
        dev: found.dev(),
        inode: found.ino(),
        cookie: Some(cookie.map_err(|errno| KernelError::os(operation(), errno))?),
    })
}

/// The number of the namespace of a socket, of its own for each (since Linux 5.14).
fn cookie_of(socket: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both pointers are to locals that live through the call, which writes no more than
    // `length` bytes, the size of the first, to it; any bytes are a valid `u64`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| cookie)
}

/// An error of [`boot_id`].
pub fn untold(error: &io::Error) -> KernelError {
    KernelError::io("tell one boot of the machine from another", error)
}

/// A namespace that has no name yet. It goes when this is dropped.
#[derive(Debug)]
pub struct Unnamed {
    namespace: fs::File,
    /// A file without a name, which becomes the place to mount it on.
    file: fs::File,
    /// Its identity, which is to be saved before it gets its name.
    pub made: Made,
}

/// Makes a namespace with its loopback device up, as `ip netns add` does, but without its name.
pub fn create() -> Result<Unnamed> {
    const OPERATION: &str = "create a namespace";
    let io = |error| KernelError::io(OPERATION, &error);
    share_directory().map_err(io)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .mode(0o000)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(DIRECTORY)
        .map_err(io)?;
    let (namespace, id) = on_thread(open_new_namespace).flatten()?;
    let made = Made {
        id,
        file: Some(file.metadata().map_err(io)?.ino()),
        boot: Some(boot_id().map_err(|error| untold(&error))?.to_owned()),
    };
    Ok(Unnamed {
        namespace,
        file,
        made,
    })
}

impl Unnamed {
    /// Gives it a name; its [`Made`] must be remembered by then.
    ///
    /// Fails with [`already_there`](KernelError::already_there) when the name is taken.
    pub fn name(self, name: &Name) -> Result<()> {
        let path = path_of(name);
        let operation = || format!("create namespace {name}");
        let os = |errno| KernelError::os(operation(), errno);
        let by_descriptor = |file: &fs::File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        let from = by_descriptor(&self.file);
        linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &path, follow).map_err(|errno| match errno {
            Errno::EEXIST if matches!(id(&path), Ok(None)) => in_the_way(operation(), &path),
            errno => os(errno),
        })?;
        hooks::step_done();
        mount(
            Some(by_descriptor(&self.namespace).as_str()),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(os)
        .map_err(|error| match clear_unfinished(name, &self.made) {
            Ok(()) => error,
            Err(leftover) => error.because(leftover),
        })
    }
}

/// An object with the name of a namespace that is none is somebody else's: it stays.
fn in_the_way(operation: String, path: &Path) -> KernelError {
    let file = path.display();
    KernelError::new(
        operation,
        format!("{file} is there, and no network namespace"),
    )
    .with_cure("see whose it is and remove it, or name another namespace")
}

/// Removes the name of a namespace of which no more than that was made. What is not ours stays.
pub fn clear_unfinished(name: &Name, made: &Made) -> Result<()> {
    let path = path_of(name);
    match fs::symlink_metadata(&path) {
        Ok(file)
            if file.is_file()
                && file.len() == 0
                && made.file == Some(file.ino())
                && id(&path)?.is_none() =>
        {
            let operation = || format!("delete namespace {name}");
            fs::remove_file(&path).map_err(|error| KernelError::io(operation(), &error))
        }
        _ => Ok(()),
    }
}

/// Removes a name, as `ip netns del` does, if it still stands for the namespace that we made: the
/// namespace goes when nobody uses it any more. Whether it did.
pub fn delete(name: &Name, made: &Made) -> Result<bool> {
    let path = path_of(name);
    let there = id(&path)?;
    let ours = there
        .map_or(Ok(false), |there| made.is(there))
        .map_err(|error| untold(&error))?;
    if ours {
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Somebody was quicker.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(KernelError::os(format!("delete namespace {name}"), errno));
            }
        }
    }
    clear_unfinished(name, made)?;
    Ok(ours)
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

/// Leaves the calling thread in a new namespace, and opens that.
fn open_new_namespace() -> Result<(fs::File, NetnsId)> {
    let operation = || "create a namespace".to_owned();
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::os(operation(), errno))?;
    let mut loopback = LinkMessage::default();
    loopback.header.index = LOOPBACK;
    loopback.header.flags = LinkFlags::Up;
    loopback.header.change_mask = LinkFlags::Up;
    blocking::change(RouteNetlinkMessage::SetLink(loopback), 0)
        .map_err(|refusal| refusal.during("set lo up in a new namespace"))?;
    let file = fs::File::open(OWN).map_err(|error| KernelError::io(operation(), &error))?;
    let id = identify(&file, operation)?;
    Ok((file, id))
}
