//! Packets that a queue had no room for: lost to a machine that is too busy, not to what is
//! tested.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use nix::libc;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    run,
    script::words,
};

/// The kind of devices that use the core's queues.
const VETH: &str = "veth";

/// Packets that devices had no room for, by namespace and device.
///
/// A veth hands packets over through a queue of the core (`net.core.netdev_max_backlog`);
/// what does not fit, the sending side counts as dropped. A VXLAN device has such a queue for
/// what it receives; what it drops while it sends is somebody's fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    by_device: BTreeMap<String, u64>,
    /// Packets that the cores' queues had no room for, in all namespaces of the machine.
    by_core: u64,
}

impl Drops {
    /// The counts of all devices of some namespaces.
    pub fn of<S: AsRef<str>>(namespaces: &[S]) -> Result<Self> {
        let mut by_device = BTreeMap::new();
        for namespace in namespaces {
            let namespace = namespace.as_ref();
            let argv = words(format!("ip -n {namespace} -json -stats -details link show"));
            let text = run::checked(&argv)?;
            let devices: Vec<Value> = serde_json::from_str(&text)
                .map_err(|error| Error::output(argv.join(" "), error))?;
            for (device, count) in devices.iter().filter_map(full_queue) {
                by_device.insert(format!("{device} of {namespace}"), count);
            }
        }
        let path = "/proc/net/softnet_stat";
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        Ok(Self {
            by_device,
            by_core: text.lines().filter_map(full_backlog).sum(),
        })
    }

    /// The drops since then; a new device has begun at 0.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let added = |(device, &count): (&String, &u64)| {
            let before = before.by_device.get(device).copied().unwrap_or(0);
            (device.clone(), count.saturating_sub(before))
        };
        let mut by_device: BTreeMap<_, _> = self.by_device.iter().map(added).collect();
        by_device.retain(|_, &mut count| count > 0);
        Self {
            by_device,
            by_core: self.by_core.saturating_sub(before.by_core),
        }
    }

    /// Packets that found a queue full. What a veth dropped for another reason is not among
    /// them: the queue that it uses counts on its own.
    pub fn total(&self) -> u64 {
        let of = |queued: bool| {
            let devices = self.by_device.iter();
            let counts = devices.filter(move |(device, _)| device.starts_with(VETH) == queued);
            counts.map(|(_, count)| count).sum::<u64>()
        };
        of(true).min(self.by_core) + of(false)
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_device.is_empty() {
            return f.write_str("no queue was full");
        }
        let each: Vec<String> = self
            .by_device
            .iter()
            .map(|(device, count)| format!("{count} at {device}"))
            .collect();
        let each = each.join(", ");
        write!(f, "full queues: {each}; {} in the core's", self.by_core)
    }
}

/// A device with a queue, and what that had no room for.
fn full_queue(device: &Value) -> Option<(String, u64)> {
    let kind = device["linkinfo"]["info_kind"].as_str()?;
    let direction = match kind {
        VETH => "tx",
        "vxlan" => "rx",
        _ => return None,
    };
    let dropped = device["stats64"][direction]["dropped"].as_u64()?;
    let name = device["ifname"].as_str()?;
    Some((format!("{kind} {name}"), dropped))
}

/// Packets that a core's queue had no room for, by its line of `/proc/net/softnet_stat`.
fn full_backlog(core: &str) -> Option<u64> {
    u64::from_str_radix(core.split_whitespace().nth(1)?, 16).ok()
}

/// Packets that a socket had no room for.
pub(super) fn of_socket(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`, the last of the numbers.
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&numbers)).map_err(io::Error::other)?;
    // SAFETY: `numbers` has `length` bytes, which is all that the kernel writes there, and
    // any bytes are numbers; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(numbers[DROPS].into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::full_queue;

    #[test]
    fn only_queues_count() {
        let device = |kind: &str| {
            let stats = json!({ "rx": { "dropped": 3 }, "tx": { "dropped": 5 } });
            json!({ "ifname": "d", "linkinfo": { "info_kind": kind }, "stats64": stats })
        };
        assert_eq!(full_queue(&device("veth")), Some(("veth d".to_owned(), 5)));
        assert_eq!(
            full_queue(&device("vxlan")),
            Some(("vxlan d".to_owned(), 3))
        );
        assert_eq!(full_queue(&device("bridge")), None);
        assert_eq!(full_queue(&json!({ "ifname": "lo" })), None);
    }
}
