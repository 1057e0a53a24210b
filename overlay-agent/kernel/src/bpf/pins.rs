//! Where things are pinned.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use overlay_core::{model::IfName, objects::Hook};

use super::{Target, made::Notes};
use crate::{KernelError, Result, hooks::abi};

/// The note that we made a device's qdisc.
pub(super) const QDISC_NOTE: &str = "qdisc";
/// Counters that have become too small, until their successor has them.
pub(super) const SET_ASIDE: &str = "PEER_STATS_BEFORE";

/// The folder of an instance.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    instance: String,
}

impl Pins {
    /// The last component of `dir` is the instance's name.
    pub(super) fn new(dir: &Path) -> Self {
        let instance = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self {
            dir: dir.with_file_name(escape(&instance)),
            instance,
        }
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn exist(&self) -> bool {
        self.dir.exists()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.dir
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.layout(abi())
    }

    /// The folder of the maps of a layout.
    pub(super) fn layout(&self, abi: u32) -> PathBuf {
        self.dir.join(format!("v{abi}"))
    }

    /// The layouts of other builds, of which maps are pinned.
    pub(super) fn other_layouts(&self) -> Result<BTreeSet<u32>> {
        let mut layouts = self.layouts()?;
        layouts.remove(&abi());
        Ok(layouts)
    }

    /// The layouts of which maps are pinned.
    pub(super) fn layouts(&self) -> Result<BTreeSet<u32>> {
        let layout = |name: String| name.strip_prefix('v')?.parse().ok();
        Ok(children(&self.dir)?
            .into_iter()
            .filter_map(layout)
            .collect())
    }

    /// Removes the maps of a layout; a program that still runs keeps those that it uses.
    pub(super) fn remove_layout(&self, abi: u32) -> Result<()> {
        let folder = self.layout(abi);
        for name in children(&folder)? {
            let pin = folder.join(&name);
            if Notes(self).is_ours(abi, &name) {
                fs::remove_file(&pin).map_err(|error| {
                    KernelError::io(format!("remove {}", pin.display()), &error)
                })?;
            }
        }
        remove_empty(&folder).map(drop)
    }

    /// Removes the notes that the agent without TCX makes, which are empty folders.
    fn remove_notes(&self) -> Result<()> {
        let clsact = self.clsact();
        for device in children(&clsact)? {
            if parse_device(&device).is_none() {
                continue;
            }
            let notes = clsact.join(device);
            for note in children(&notes)? {
                let note_of_qdisc = note == QDISC_NOTE;
                let note = notes.join(&note);
                if note_of_qdisc {
                    for ifindex in children(&note)? {
                        if ifindex.parse::<u32>().is_ok() {
                            remove_empty(&note.join(ifindex))?;
                        }
                    }
                }
                if note_of_qdisc || is_of_hook(&note) {
                    remove_empty(&note)?;
                }
            }
            remove_empty(&notes)?;
        }
        remove_empty(&clsact).map(drop)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    pub(super) fn link(&self, target: Target) -> PathBuf {
        let Target { device, hook } = target;
        self.links()
            .join(format!("{}-{}", hook.name(), escape(device.as_str())))
    }

    pub(super) fn clsact(&self) -> PathBuf {
        self.dir.join("clsact")
    }

    pub(super) fn clsact_device(&self, device: IfName) -> PathBuf {
        self.clsact().join(escape(device.as_str()))
    }

    /// Removes the maps and the notes, and the folder and the one above if they are empty then.
    /// Links must have been removed before; what others have pinned beside all that stays, and is told in a
    /// sentence.
    pub(super) fn remove(&self) -> Result<Option<String>> {
        let lacking = Notes(self).lacking()?;
        for layout in self.layouts()? {
            self.remove_layout(layout)?;
        }
        self.remove_notes()?;
        Notes(self).remove()?;
        let stays = remove_empty(&self.links())? | remove_empty(&self.dir)?;
        let left = if stays {
            Some(self.left(lacking.as_deref())?)
        } else {
            None
        };
        // Other instances are there, or it is the bpffs itself.
        self.dir.parent().map_or(Ok(false), remove_empty)?;
        Ok(left)
    }

    /// What is said of the folder when it stays; `lacking` as [`Notes::lacking`] has said before.
    fn left(&self, lacking: Option<&str>) -> Result<String> {
        /// More nobody reads.
        const SHOWN: usize = 4;
        let dir = self.dir.display();
        let Some(lacking) = lacking else {
            return Ok(format!(
                "{dir} stays: something is pinned there that this instance did not make"
            ));
        };
        let mut pinned = Vec::new();
        for folder in children(&self.dir)? {
            let inside = children(&self.dir.join(&folder))?;
            if inside.is_empty() {
                pinned.push(folder);
            } else {
                pinned.extend(inside.iter().map(|name| format!("{folder}/{name}")));
            }
        }
        // What is still attached first of all: the underlay's devices are not ours, and have not gone.
        let is_underlay = |link: &str| link.contains("underlay");
        pinned.sort_by_key(|name| match name.strip_prefix("links/") {
            Some(link) => u8::from(!is_underlay(link)),
            None => 2,
        });
        if pinned.len() > SHOWN {
            let more = pinned.len() - SHOWN;
            pinned.truncate(SHOWN);
            pinned.push(format!("{more} more"));
        }
        let detaches = if children(&self.links())?.is_empty() {
            ""
        } else {
            ", which detaches the programs"
        };
        Ok(format!(
            "{dir} stays, with {}: {lacking}; if nobody else has pinned anything there, remove it with \
             \"rm -r {dir}\"{detaches}",
            pinned.join(", ")
        ))
    }
}

/// Removes a folder unless something is in it, or mounted on it; whether it stays.
pub(super) fn remove_empty(folder: &Path) -> Result<bool> {
    match fs::remove_dir(folder) {
        Ok(()) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ResourceBusy => Ok(true),
            _ => {
                let operation = format!("remove {}", folder.display());
                Err(KernelError::io(operation, &error))
            }
        },
    }
}

/// Names of the files in a folder, none when it is not there.
pub(super) fn children(folder: &Path) -> Result<Vec<String>> {
    let operation = || format!("list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // What is not a folder is somebody else's pin.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(KernelError::io(operation(), &error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(|error| KernelError::io(operation(), &error))
}

/// The target of a link's pin; `None` for a name that is none.
pub(super) fn parse_link(name: &str) -> Option<Target> {
    let (hook, device) = name.split_once('-')?;
    Some(Target {
        device: parse_device(device)?,
        hook: parse_hook(hook)?,
    })
}

/// The device that a folder below `clsact` is named after.
pub(super) fn parse_device(name: &str) -> Option<IfName> {
    unescape(name)?.parse().ok()
}

pub(super) fn parse_hook(name: &str) -> Option<Hook> {
    Hook::ALL.into_iter().find(|hook| hook.name() == name)
}

fn is_of_hook(note: &Path) -> bool {
    let name = note.file_name().and_then(|name| name.to_str());
    name.and_then(parse_hook).is_some()
}

/// Makes an empty folder as a note, with those above it.
pub(super) fn note(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| KernelError::io(format!("make folder {}", path.display()), &error))
}

/// Removes such a note; none there is fine.
pub(super) fn remove_note(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::io(
            format!("remove folder {}", path.display()),
            &error,
        )),
        _ => Ok(()),
    }
}

/// Bpffs keeps dots in names for itself (`bpf_lookup` in the kernel).
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> Option<String> {
    let mut text = String::new();
    let mut parts = name.split('%');
    text.push_str(parts.next()?);
    for part in parts {
        let rest = if let Some(rest) = part.strip_prefix("25") {
            text.push('%');
            rest
        } else {
            text.push('.');
            part.strip_prefix("2e")?
        };
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use overlay_core::objects::Hook;

    use super::{Pins, escape, parse_device, parse_link, unescape};
    use crate::bpf::Target;

    #[test]
    fn names_come_back_and_have_no_dots() {
        for name in ["eth0", "eth0.5", "a%2eb", "%", "..x", "ovl-web", "%25."] {
            let escaped = escape(name);
            assert!(!escaped.contains('.'), "{escaped}");
            assert_eq!(unescape(&escaped).as_deref(), Some(name));
        }
        assert_ne!(escape("a.b"), escape("a%2eb"));
        assert_eq!(unescape("a%b"), None);
    }

    #[test]
    fn a_link_s_pin_tells_its_target() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/overlay/node.example"));
        let target = Target {
            device: "ovl-a.1".parse().unwrap(),
            hook: Hook::FromEndpoint,
        };
        let path = pins.link(target);
        assert_eq!(
            path,
            Path::new("/sys/fs/bpf/overlay/node%2eexample/links/from_endpoint-ovl-a%2e1")
        );
        assert_eq!(
            parse_link(path.file_name().unwrap().to_str().unwrap()),
            Some(target)
        );
        assert_eq!(pins.instance(), "node.example");
    }

    #[test]
    fn every_hook_has_a_pin_of_its_own() {
        for hook in Hook::ALL {
            let pins = Pins::new(Path::new("/sys/fs/bpf/overlay/n"));
            let device = "eth1".parse().unwrap();
            let path = pins.link(Target { device, hook });
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(parse_link(name).unwrap().hook, hook, "{name}");
        }
    }

    #[test]
    fn other_names_are_no_targets() {
        for name in [
            "",
            "from_endpoint",
            "from_nowhere-eth0",
            "from_host-",
            "from_host-a%zz",
        ] {
            assert_eq!(parse_link(name), None, "{name:?}");
        }
        assert_eq!(parse_device("eth0%2e5"), Some("eth0.5".parse().unwrap()));
    }
}
