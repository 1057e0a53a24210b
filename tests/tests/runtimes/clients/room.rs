//! A place for a runtime: the packages of a distribution as its root, and a node's namespace.
//!
//! What it writes lies in memory and goes with the last process in it. Folders of the machine that
//! it shares are those that agent and runtime have in common.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{names::LabName, packages::fetched, poll, processes};
use tempfile::TempDir;

use crate::plugin;

/// Makes a root of packages that were unpacked and never configured, and stays in it.
const ENTER: &str = r#"
mount --make-slave "$(stat -c %m "$T")"
mount -t tmpfs none "$T/memory"
mkdir "$T/memory/up" "$T/memory/work"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$T/memory/up,workdir=$T/memory/work" none "$T/root"
cd "$T/root"
mkdir -p dev proc root run sys tmp etc/cni/net.d etc/containers opt/cni var/lib/containers var/tmp
for link in bin lib lib64 sbin; do [ -e $link ] || ln -s usr/$link $link; done
[ -e var/run ] || ln -s ../run var/run
ln -s /usr/lib/cni opt/cni/bin
ln -sf xtables-nft-multi usr/sbin/iptables
ln -sf xtables-nft-multi usr/sbin/ip6tables
mount -t tmpfs none var/lib/containers
mount -t tmpfs none run
mkdir run/netns run/overlay
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount --rbind /run/netns run/netns
mount --bind /run/overlay run/overlay
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
echo root:x:0: >etc/group
: >etc/hosts
: >etc/resolv.conf
mkdir -p rootfs/bin rootfs/dev rootfs/etc rootfs/proc rootfs/sys rootfs/tmp usr/lib/cni usr/libexec/netavark
cp bin/busybox rootfs/bin/
echo well >rootfs/page
for name in cat grep httpd ip ping sh sleep true wget; do ln -s busybox rootfs/bin/$name; done
cp "$PLUGIN" usr/lib/cni/
cp "$PLUGIN" usr/libexec/netavark/
# Whoever enters a container's mounts later begins at their root, which is not to be the machine's.
mkdir machine
pivot_root . machine
exec /rootfs/bin/busybox chroot . /rootfs/bin/busybox sh -ec "$LEAVE"
"#;

/// Leaves the machine's mounts, which it shares, as they are for everybody else.
const LEAVE: &str = "
/rootfs/bin/busybox mount --make-rslave /machine
/rootfs/bin/busybox umount -l /machine
exec /rootfs/bin/busybox sleep 1000000
";

/// The place, and all that runs in it.
pub(super) struct Room {
    lab: LabName,
    folder: TempDir,
    holder: Child,
}

impl Room {
    /// Makes one on a node; none where the packages are missing.
    pub(super) fn open(packages: &str, lab: &str, node: &str) -> Result<Option<Self>> {
        let Some(packages) = fetched(packages) else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        for name in ["memory", "root"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let log = fs::File::create(folder.path().join("log"))?;
        let holder = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{node}"))
            // What runtimes mount in /run/netns is to be seen outside.
            .args(["unshare", "--mount", "--propagation", "unchanged"])
            .args(["sh", "-ec", ENTER])
            .env("T", folder.path())
            .env("ROOT", packages)
            .env("PLUGIN", plugin::program())
            .env("LEAVE", LEAVE)
            .env(processes::MARK, lab)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut room = Self {
            lab: lab.parse()?,
            folder,
            holder,
        };
        room.is_entered()?;
        Ok(Some(room))
    }

    fn is_entered(&mut self) -> Result<()> {
        let command = format!("/proc/{}/cmdline", self.holder.id());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if fs::read(&command)?.starts_with(b"/rootfs/bin/busybox\0sleep") {
                return Ok(());
            }
            let ended = self.holder.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                bail!("no root was made of the packages: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file in it, as it is reached from outside.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("write {name}"))
    }

    /// The control group that containers are put below.
    pub(super) fn cgroup(&self) -> String {
        format!("/overlay-{}", self.lab)
    }

    /// What containers have in their environment, so that they go with the lab.
    pub(super) fn mark(&self) -> String {
        format!("{}={}", processes::MARK, self.lab)
    }

    /// A command in it.
    pub(super) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--mount", "--net", "--root", "--wd"])
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .env(processes::MARK, self.lab.to_string())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed; what it says.
    pub(super) fn tell<S: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[S]) -> Result<String> {
        let output = self.ask(words)?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{words:?}: {out}{err}");
        Ok(out)
    }

    pub(super) fn ask<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Output> {
        Ok(self.command(words).output()?)
    }

    /// Ends what runs in it, and removes what a test that has failed may have left.
    fn close(&mut self) -> Result<()> {
        let mut namespaces = HashSet::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut all = processes::of_lab(&self.lab)?;
            // Agents have a task; their lab ends them.
            all.retain(|process| process.task.is_none());
            if all.is_empty() {
                break;
            }
            for process in &all {
                let of = fs::metadata(format!("/proc/{}/ns/net", process.pid));
                namespaces.extend(of.map(|it| (it.dev(), it.ino())));
                process.signal(Signal::SIGKILL)?;
            }
            ensure!(Instant::now() < deadline, "they run on: {all:?}");
            // It is this process's child, and stays until somebody has asked for its end.
            self.holder.try_wait()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        self.holder.wait()?;
        for entry in fs::read_dir("/run/netns")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Others' may go meanwhile.
            let Ok(of) = entry.path().metadata() else {
                continue;
            };
            // Runtimes give such names; those of labs are others.
            let made = name.starts_with("netns-") || name.starts_with("cni-");
            if made && namespaces.contains(&(of.dev(), of.ino())) {
                overlay_tests::run::checked(["ip", "netns", "del", &name].map(str::to_owned))?;
            }
        }
        let cgroups = fs::read_dir("/sys/fs/cgroup")?;
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        for entry in cgroups {
            roots.push(entry?.path());
        }
        for root in roots {
            let own = root.join(self.cgroup().trim_start_matches('/'));
            poll::until_ok(|| end_and_remove(&own))?;
        }
        Ok(())
    }
}

/// Removes a control group with all below it, and ends who is in them: runc begins without an
/// environment, so that what was killed while it began has no mark.
fn end_and_remove(folder: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            end_and_remove(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        let pid: i32 = pid.parse().map_err(std::io::Error::other)?;
        // 0 would be one of another namespace, and for kill(2) this test.
        if pid == 0 {
            continue;
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    fs::remove_dir(folder)
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!(
                "what runtimes did in lab {} is not all gone: {error:#}",
                self.lab
            );
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
