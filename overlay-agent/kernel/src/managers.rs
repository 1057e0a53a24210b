//! Daemons that configure a node's network: who it may be that changes what the agent has made.

use std::{collections::BTreeSet, fs};

use super::{KernelError, Result, netns};

/// What the kernel calls the processes, 15 bytes at most (`TASK_COMM_LEN`), and what others do.
const MANAGERS: [(&str, &str); 10] = [
    ("NetworkManager", "NetworkManager"),
    ("bird", "bird"),
    ("cilium-agent", "cilium-agent"),
    ("connmand", "connman"),
    ("dhcpcd", "dhcpcd"),
    ("dockerd", "dockerd"),
    ("flanneld", "flanneld"),
    ("systemd-network", "systemd-networkd"),
    ("wickedd", "wickedd"),
    ("zebra", "zebra (FRR)"),
];

/// Those that run in the calling thread's network namespace. Processes that may not be looked at
/// are passed over.
pub fn running() -> Result<BTreeSet<&'static str>> {
    let operation = "list processes";
    let processes = fs::read_dir("/proc").map_err(|error| KernelError::io(operation, &error))?;
    let mut found = BTreeSet::new();
    for process in processes {
        let process = process.map_err(|error| KernelError::io(operation, &error))?;
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        if !process.file_name().to_str().is_some_and(is_number) {
            continue;
        }
        // It may have ended by now.
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else {
            continue;
        };
        let is_here = || netns::is_own(&process.path().join("ns/net")).is_ok_and(|own| own);
        if let Some(manager) = manager(name.trim_end())
            && is_here()
        {
            found.insert(manager);
        }
    }
    Ok(found)
}

fn manager(comm: &str) -> Option<&'static str> {
    let mut managers = MANAGERS.into_iter();
    managers.find_map(|(name, usual)| (name == comm).then_some(usual))
}

#[cfg(test)]
mod tests {
    use super::{MANAGERS, manager, running};

    #[test]
    fn names_are_as_long_as_the_kernel_keeps_them() {
        /// `TASK_COMM_LEN` of `linux/sched.h`, with the final 0.
        const COMM: usize = 16;
        assert!(MANAGERS.iter().all(|(name, _)| name.len() < COMM));
        assert_eq!(manager("systemd-network"), Some("systemd-networkd"));
        assert_eq!(manager("systemd-networkd"), None);
        assert!(running().is_ok());
    }
}
