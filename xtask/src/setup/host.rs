//! Requirements on this machine's kernel.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::utsname::uname,
};
use overlay_tests::kernel::parse_release;

use super::{Unmet, is_root};
use crate::console::Console;

/// The oldest kernel that the data plane is made for, as major and minor version.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Where maps, programs and links are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// The devices that the lab and the kernel's part of the overlay are made of,
/// as `ip link add` takes them.
const DEVICES: [(&str, &[&str]); 3] = [
    ("veth", &["type", "veth"]),
    ("bridge", &["type", "bridge"]),
    ("vxlan", &["type", "vxlan", "id", "1", "dstport", "4789"]),
];

/// Checks the kernel, and mounts the BPF file system when it is not mounted.
///
/// # Errors
/// [`Unmet`] with what it lacks.
pub(super) fn ensure(console: Console) -> Result<()> {
    let kernel = uname().context("ask for the kernel's version")?;
    let kernel = kernel.release().to_string_lossy().into_owned();
    if parse_release(&kernel).is_some_and(|release| release < OLDEST_KERNEL) {
        let (major, minor) = OLDEST_KERNEL;
        return Err(Unmet(format!(
            "boot a kernel of version {major}.{minor} or later: this is {kernel}"
        ))
        .into());
    }
    if !is_root() {
        console.say("kernel", &kernel);
        console.say(
            "root",
            "not root: enough to build; the lab and the tests need root",
        );
        return Ok(());
    }
    for (kind, link) in DEVICES {
        if !can_add(link)? {
            return Err(Unmet(format!(
                "run `modprobe {kind}`, or take a kernel or a sandbox that has {kind} devices: the \
                 kernel {kernel} cannot make one here"
            ))
            .into());
        }
    }
    console.say(
        "kernel",
        format_args!("{kernel}, with veth, bridge and vxlan"),
    );
    mount_bpffs(console)
}

/// Tries it in a namespace of its own, which vanishes with the command.
fn can_add(link: &[&str]) -> Result<bool> {
    let output = Command::new("unshare")
        .args(["--net", "ip", "link", "add", "name", "probe"])
        .args(link)
        .output()
        .context("run unshare")?;
    Ok(output.status.success())
}

fn mount_bpffs(console: Console) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if is_mounted(&mounts) {
        console.say("bpffs", format_args!("mounted at {BPFFS}"));
        return Ok(());
    }
    if !Path::new(BPFFS).is_dir() {
        return Err(Unmet(format!(
            "boot a kernel with CONFIG_BPF_SYSCALL, or mount /sys: there is no {BPFFS}"
        ))
        .into());
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount bpffs at {BPFFS}"))?;
    console.say("bpffs", format_args!("mounted at {BPFFS}, now"));
    Ok(())
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_are_told_from_newer_ones() {
        assert!(parse_release("5.15.0-100-generic") < Some(OLDEST_KERNEL));
        assert!(parse_release("6.12.1") > Some(OLDEST_KERNEL));
    }

    #[test]
    fn only_a_bpffs_at_its_place_counts() {
        assert!(is_mounted(
            "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"
        ));
        assert!(!is_mounted(
            "tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /mnt bpf rw 0 0\n"
        ));
    }
}
