//! Prerequisites of the agent: privileges, a bpffs, a kernel.

use std::{fs, path::Path};

use nix::sys::statfs::{self, BPF_FS_MAGIC};

use super::{KernelError, Result, sysctl};

/// A capability that the agent may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of capabilities(7)")]
pub enum Capability {
    SetGid,
    SetUid,
    NetBindService,
    NetBroadcast,
    NetAdmin,
    SysPtrace,
    SysAdmin,
    Perfmon,
    Bpf,
}

impl Capability {
    /// Its bit in `linux/capability.h`.
    pub const fn number(self) -> u32 {
        match self {
            Self::SetGid => 6,
            Self::SetUid => 7,
            Self::NetBindService => 10,
            Self::NetBroadcast => 11,
            Self::NetAdmin => 12,
            Self::SysPtrace => 19,
            Self::SysAdmin => 21,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }
}

/// The oldest kernel that the programs are tested on, as major and minor number.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Whether this thread may do all that the agent does.
///
/// The error names every capability that is missing.
pub fn check_privileges() -> Result<()> {
    let operation = "check privileges";
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(|error| KernelError::io(operation, &error))?;
    let effective = effective_capabilities(&status)
        .ok_or_else(|| KernelError::new(operation, "no CapEff in /proc/thread-self/status"))?;
    let missing = missing_capabilities(effective);
    if missing.is_empty() {
        return Ok(());
    }
    let cause = format!("the agent lacks {}", missing.join(", "));
    Err(KernelError::new(operation, cause)
        .with_cure("run it as root, or grant them (systemd: AmbientCapabilities=)")
        .for_lack_of_rights())
}

/// Whether pins can be made at `path`: it, or the nearest directory above it that
/// exists, is on a bpffs.
pub fn check_bpffs(path: &Path) -> Result<()> {
    let operation = format!("pin maps below {}", path.display());
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .ok_or_else(|| KernelError::new(operation.clone(), "no part of this path exists"))?;
    let found =
        statfs::statfs(existing).map_err(|errno| KernelError::os(operation.clone(), errno))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let cause = format!("{} is not a bpf filesystem", existing.display());
    Err(KernelError::new(operation, cause).with_cure("mount -t bpf bpf /sys/fs/bpf"))
}

/// Whether the running kernel is one that the programs can work on.
pub fn check_kernel_release() -> Result<()> {
    judge_release(&sysctl::read("kernel/osrelease")?.unwrap_or_default())
}

/// Whether a release, as `uname -r` prints it, is one that the programs can work on.
pub fn judge_release(release: &str) -> Result<()> {
    let operation = "check the kernel's release";
    let version = parse_release(release)
        .ok_or_else(|| KernelError::new(operation, format!("{release:?} is not a version")))?;
    if version >= OLDEST_KERNEL {
        return Ok(());
    }
    let (major, minor) = OLDEST_KERNEL;
    let cause = format!("this is Linux {release}, and the programs need {major}.{minor} or newer");
    Err(KernelError::new(operation, cause).with_cure(
        "boot a newer kernel, or set fastpath = \"off\" to leave the networks to this one",
    ))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |capability: Capability| effective >> capability.number() & 1 == 1;
    let admin = has(Capability::SysAdmin);
    let needed = [
        ("CAP_NET_ADMIN", has(Capability::NetAdmin)),
        ("CAP_BPF", has(Capability::Bpf) || admin),
        ("CAP_SYS_ADMIN", admin),
    ];
    needed
        .into_iter()
        .filter(|(_, has)| !has)
        .map(|(name, _)| name)
        .collect()
}

/// Major and minor number of a release such as `6.1.0-13-cloud-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        OLDEST_KERNEL, check_bpffs, effective_capabilities, judge_release, missing_capabilities,
        parse_release,
    };

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.10-rc1"), Some((5, 10)));
        assert_eq!(parse_release("5"), None);
        assert_eq!(parse_release(""), None);
        assert!(parse_release("5.15.160").unwrap() < OLDEST_KERNEL);
        assert!(parse_release("6.1.0-13-cloud-amd64").unwrap() >= OLDEST_KERNEL);
    }

    #[test]
    fn an_older_kernel_is_refused_by_name_and_told_what_to_do() {
        let error = judge_release("5.10.0-35-cloud-amd64").unwrap_err();
        assert_eq!(
            error.to_string(),
            "check the kernel's release: this is Linux 5.10.0-35-cloud-amd64, and the programs \
             need 6.1 or newer; boot a newer kernel, or set fastpath = \"off\" to leave the \
             networks to this one"
        );
        assert!(judge_release("6.0.19").is_err());
        for release in [
            "6.1.0-13-cloud-amd64",
            "6.12.95+deb12-cloud-amd64",
            "7.2.13",
        ] {
            assert!(judge_release(release).is_ok(), "{release}");
        }
        let error = judge_release("").unwrap_err();
        assert!(error.to_string().contains("is not a version"), "{error}");
    }

    #[test]
    fn every_missing_capability_is_named() {
        let status = "Name:\tagent\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n";
        let effective = effective_capabilities(status).unwrap();
        assert_eq!(
            missing_capabilities(effective),
            ["CAP_BPF", "CAP_SYS_ADMIN"]
        );
        assert_eq!(missing_capabilities(0).len(), 3);
        // Before 5.8, CAP_SYS_ADMIN was what CAP_BPF is now.
        assert!(missing_capabilities(1 << 12 | 1 << 21).is_empty());
        assert_eq!(effective_capabilities("Name:\tagent\n"), None);
    }

    #[test]
    fn a_directory_elsewhere_is_no_bpffs() {
        let error = check_bpffs(Path::new("/proc/overlay/none")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pin maps below /proc/overlay/none: /proc is not a bpf filesystem; \
             mount -t bpf bpf /sys/fs/bpf"
        );
    }
}
