//! A Debian with systemd, in a container whose network is a node of a lab.
//!
//! `systemd-nspawn` does not need a machine that systemd runs itself. The container has a BPF file
//! system of its own; its kernel is this machine's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use overlay_tests::{poll, run};

use crate::{console::Console, setup::Apt, toolchain, workspace};

/// The release that is installed.
const SUITE: &str = "bookworm";
/// What is in it besides what every Debian has.
const INSIDE: &str = "systemd,systemd-sysv,dbus,iproute2,iputils-ping,nftables";
/// What the programs that the agent is one of do, and containers usually may not.
const SYSTEM_CALLS: &str = "bpf perf_event_open @mount setns unshare";
/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running container; it ends, and its files go, with the value.
pub(super) struct Machine {
    folder: PathBuf,
    nspawn: Child,
}

impl Machine {
    /// Makes and starts one whose network is a namespace.
    pub(super) fn start(console: Console, apt: &Apt, netns: &str) -> Result<Self> {
        apt.install("package", &["mmdebstrap", "systemd-container"])?;
        let image = image(console)?;
        let folder = workspace::target()?.join("package");
        remove(&folder)?;
        let (root, bpf) = (folder.join("root"), folder.join("bpf"));
        for path in [&root, &bpf] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let mut tar = Command::new("tar");
        tar.arg("--extract")
            .arg("--file")
            .arg(&image)
            .arg("--directory")
            .arg(&root);
        console.run("machine", "unpack a Debian", &mut tar)?;
        let private = MsFlags::empty();
        mount(Some("bpf"), &bpf, Some("bpf"), private, None::<&str>)
            .with_context(|| format!("mount a BPF file system on {}", bpf.display()))?;
        let log = folder.join("console.log");
        let log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let nspawn = Command::new("systemd-nspawn")
            .args([
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--boot",
                "--console=pipe",
            ])
            .args(["--capability=all", "--machine=overlay-package"])
            .arg(format!("--system-call-filter={SYSTEM_CALLS}"))
            .arg(format!("--network-namespace-path=/run/netns/{netns}"))
            .arg(format!("--bind={}:/sys/fs/bpf", bpf.display()))
            .arg("--directory")
            .arg(&root)
            // Its network is its own: so may be the settings.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the console")?)
            .stderr(log)
            .spawn()
            .context("run systemd-nspawn")?;
        let machine = Self { folder, nspawn };
        machine.await_start()?;
        Ok(machine)
    }

    fn await_start(&self) -> Result<()> {
        let started = poll::until_well_within(PATIENCE, || {
            let answer = self.output("systemctl is-system-running");
            match answer.as_ref().map(|answer| answer.stdout.trim()) {
                Ok("running" | "degraded") => None,
                _ => Some(format!(
                    "{answer:?}; see {}/console.log",
                    self.folder.display()
                )),
            }
        });
        started
            .map_err(anyhow::Error::msg)
            .context("start a Debian in a container")
    }

    /// Runs a shell's command line inside that must succeed; what it prints.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        Ok(run::checked(&self.argv(line)?)?)
    }

    /// Runs a shell's command line inside to its end.
    pub(super) fn output(&self, line: &str) -> Result<run::Output> {
        Ok(run::output(&self.argv(line)?)?)
    }

    fn argv(&self, line: &str) -> Result<Vec<String>> {
        const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let init = self.init()?.to_string();
        let enter = [
            "nsenter", "--target", &init, "--all", "--", "env", "-i", PATH,
        ];
        let shell = ["DEBIAN_FRONTEND=noninteractive", "sh", "-euc", line];
        Ok(enter
            .iter()
            .chain(&shell)
            .map(|&word| word.to_owned())
            .collect())
    }

    /// The container's first process.
    fn init(&self) -> Result<i32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .context("look for the container's first process")?;
        let first = children.split_whitespace().next();
        first
            .context("the container has ended")?
            .parse()
            .context("read a process id")
    }

    /// The place of a file as this machine sees it.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.folder
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Ends it, and removes what it was made of.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self
            .nspawn
            .try_wait()
            .context("wait for systemd-nspawn")?
            .is_none()
        {
            // systemd(1): "SIGRTMIN+4: powers off the machine".
            let signal = libc::SIGRTMIN() + 4;
            let init = self.init()?;
            run::checked(&["kill", &format!("-{signal}"), &init.to_string()].map(str::to_owned))?;
            let ended = poll::until_well_within(PATIENCE, || match self.nspawn.try_wait() {
                Ok(Some(_)) => None,
                other => Some(format!("{other:?}")),
            });
            if let Err(complaint) = ended {
                self.nspawn.kill().context("end systemd-nspawn")?;
                self.nspawn.wait().context("wait for systemd-nspawn")?;
                bail!("the container did not end: {complaint}");
            }
        }
        remove(&self.folder)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.folder.exists()
            && let Err(error) = self.end()
        {
            eprintln!("the container was not removed: {error:#}");
        }
    }
}

/// Removes a container's folder, with what is mounted in it.
fn remove(folder: &Path) -> Result<()> {
    let bpf = folder.join("bpf");
    if bpf.exists() {
        // Not mounted is as good as unmounted.
        let _ = umount2(&bpf, MntFlags::MNT_DETACH);
        ensure!(
            fs::read_dir(&bpf).is_ok_and(|mut entries| entries.next().is_none()),
            "{} is still mounted",
            bpf.display()
        );
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// A Debian as an archive, made once.
fn image(console: Console) -> Result<PathBuf> {
    let folder = toolchain::cache("package").context("find the user's cache: set HOME")?;
    let image = folder.join(format!("{SUITE}.tar"));
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let unfinished = folder.join("unfinished.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--variant=minbase", &format!("--include={INSIDE}")])
        .args([
            "--aptopt=Acquire::Languages \"none\"",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .arg(SUITE)
        .arg(&unfinished);
    console.run("machine", &format!("a Debian {SUITE}"), &mut mmdebstrap)?;
    fs::rename(&unfinished, &image).with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(image)
}
