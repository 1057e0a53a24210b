//! The identity of a namespace, whatever its name.

use std::{fs, io, sync::OnceLock};

use serde::{Deserialize, Serialize};

/// The identity of a namespace.
///
/// The kernel gives the lowest free inode number to the next namespace (`proc_alloc_inum`): one
/// that is deleted and made anew under its name has the old number nearly always. Only the cookie
/// never comes again before the machine is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device number of the nsfs.
    pub dev: u64,
    /// Inode number in it.
    pub inode: u64,
    /// `SO_NETNS_COOKIE` (`net_gen_cookie`); what earlier versions noted has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
}

impl NetnsId {
    /// Whether a namespace that is there now is the one of which this was noted in this boot.
    pub fn is(&self, there: Self) -> bool {
        (self.dev, self.inode) == (there.dev, there.inode)
            && (self.cookie.is_none() || self.cookie == there.cookie)
    }
}

/// Proof that a named namespace is one that we made.
///
/// A name alone never does, and what identifies it comes again after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The namespace.
    #[serde(flatten)]
    pub id: NetnsId,
    /// Inode of the file that it was to be mounted on.
    #[serde(default)]
    pub file: Option<u64>,
    /// Boot of the machine in which it was made.
    #[serde(default)]
    pub boot: Option<String>,
}

impl Made {
    /// Whether a namespace that is there now is this one.
    ///
    /// # Errors
    /// When the boot cannot be told.
    pub fn is(&self, there: NetnsId) -> io::Result<bool> {
        Ok(self.id.is(there) && self.boot.as_deref() == Some(boot_id()?))
    }
}

/// A namespace that something of ours is bound to, whatever its path leads to later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace.
    #[serde(flatten)]
    id: NetnsId,
    /// Boot of the machine in which it was seen.
    boot: String,
}

impl Bound {
    /// To a namespace of this boot.
    ///
    /// # Errors
    /// When the boot cannot be told.
    pub fn to(id: NetnsId) -> io::Result<Self> {
        let boot = boot_id()?.to_owned();
        Ok(Self { id, boot })
    }

    /// Whether a namespace that is there now is this one; it is not when the boot is not known.
    pub fn is(&self, there: NetnsId) -> bool {
        self.id.is(there) && boot_id().is_ok_and(|boot| boot == self.boot)
    }
}

/// Identifies the time since the machine was started. Read once: it outlives the process.
///
/// # Errors
/// When the kernel does not tell it.
pub fn boot_id() -> io::Result<&'static str> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let read = fs::read_to_string(FILE);
    let id = read.map_err(|error| io::Error::new(error.kind(), format!("read {FILE}: {error}")))?;
    Ok(ID.get_or_init(|| id.trim().to_owned()))
}
