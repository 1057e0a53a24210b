//! Code of ours inside a network namespace.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::{
    error::{Error, Result},
    run,
};

/// Runs a function on a thread of its own that is in the namespace; what it opens stays there.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(&path).map_err(Error::file("open", &path))?;
    let enter = || {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::file("enter", &path)(errno.into()))?;
        Ok(work())
    };
    thread::scope(|scope| {
        scope
            .spawn(enter)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The inode number of a named namespace.
pub fn number(namespace: &str) -> Result<u64> {
    let path = Path::new("/run/netns").join(namespace);
    let found = fs::metadata(&path).map_err(Error::file("look at", &path))?;
    Ok(found.ino())
}

/// A namespace that goes when the value goes.
#[derive(Debug)]
pub struct Temporary {
    name: String,
}

impl Temporary {
    /// Makes a namespace whose loopback device is up, as container runtimes do.
    pub fn make(name: &str) -> Result<Self> {
        run::checked(format!("ip netns add {name}"))?;
        let namespace = Self {
            name: name.to_owned(),
        };
        run::checked(format!("ip -n {name} link set lo up"))?;
        Ok(namespace)
    }

    /// Makes one that has the number which another one had: the kernel gives the lowest that is
    /// free, and frees it a moment after the last user has gone. `None` when somebody else was
    /// quicker, and keeps it.
    pub fn with_number(name: &str, wanted: u64) -> Result<Option<Self>> {
        const TRIES: usize = 40;
        // They keep lower numbers taken.
        let mut scouts = Vec::new();
        for attempt in 0..TRIES {
            let scout = Self::make(&format!("{name}-{attempt}"))?;
            let found = number(&scout.name)?;
            if found == wanted {
                let [from, to] = [&scout.name, name].map(|it| format!("/run/netns/{it}"));
                fs::write(&to, "").map_err(Error::file("make", Path::new(&to)))?;
                let namespace = Self {
                    name: name.to_owned(),
                };
                run::checked(format!("mount --bind {from} {to}"))?;
                return Ok(Some(namespace));
            }
            if found < wanted {
                scouts.push(scout);
            } else {
                drop(scout);
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(None)
    }
}

/// Tries until there is one with its number.
pub fn retried<E: From<Error>>(
    mut attempt: impl FnMut() -> std::result::Result<Option<Temporary>, E>,
) -> std::result::Result<Temporary, E> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        if let Some(namespace) = attempt()? {
            return Ok(namespace);
        }
    }
    Err(E::from(Error::Kernel {
        operation: "make a namespace with the number of another one".to_owned(),
        source: io::Error::other("no number came again"),
    }))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = run::checked(format!("ip netns del {}", self.name)) {
            eprintln!("namespace {} was not removed: {error}", self.name);
        }
    }
}
