//! Code of ours inside a network namespace.

use std::{fs::File, path::Path, thread};

use nix::sched::{CloneFlags, setns};

use crate::{
    error::{Error, Result},
    run,
    script::words,
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

/// A namespace that goes when the value goes.
#[derive(Debug)]
pub struct Temporary {
    name: String,
}

impl Temporary {
    /// Makes a namespace whose loopback device is up, as container runtimes do.
    pub fn make(name: &str) -> Result<Self> {
        run::checked(&words(format!("ip netns add {name}")))?;
        let namespace = Self {
            name: name.to_owned(),
        };
        run::checked(&words(format!("ip -n {name} link set lo up")))?;
        Ok(namespace)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = run::checked(&words(format!("ip netns del {}", self.name))) {
            eprintln!("namespace {} was not removed: {error}", self.name);
        }
    }
}
