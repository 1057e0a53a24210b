//! A Debian with systemd, in a container whose network is a namespace of this machine.
//!
//! `systemd-nspawn` does not need a machine that systemd runs itself. The container has a BPF file
//! system of its own; its kernel is this machine's.

use std::{
    fmt,
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

/// Packages that make it start by itself.
const SYSTEM: [&str; 3] = ["systemd", "systemd-sysv", "dbus"];
/// System calls of the agent and its tools that containers usually may not make.
const SYSTEM_CALLS: &str = "bpf perf_event_open @mount setns unshare";
/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// 12
    Bookworm,
    /// 13
    Trixie,
    /// What is to become the next one
    Sid,
}

impl Suite {
    /// The one that a name in `/etc/os-release` stands for.
    pub(crate) fn of(os_release: &str) -> Option<Self> {
        let codename = os_release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
        [Self::Bookworm, Self::Trixie, Self::Sid]
            .into_iter()
            .find(|suite| codename.trim_matches('"') == suite.to_string())
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        })
    }
}

/// The make-up of a container.
pub(crate) struct Plan<'a> {
    /// Names its folder, its archive and itself.
    pub(crate) name: &'a str,
    /// The release that is installed.
    pub(crate) suite: Suite,
    /// Packages besides Debian's base system and systemd.
    pub(crate) packages: &'a [&'a str],
    /// The namespace that is its network.
    pub(crate) netns: &'a str,
}

/// A running container; it ends, and its files go, with the value.
pub(crate) struct Machine {
    folder: PathBuf,
    nspawn: Child,
}

impl Machine {
    /// Makes and starts one.
    pub(crate) fn start(console: Console, apt: &Apt, plan: &Plan) -> Result<Self> {
        apt.install("machine", &["mmdebstrap", "systemd-container"])?;
        let image = image(console, plan)?;
        let folder = workspace::target()?.join(plan.name);
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
            .args(["--capability=all", "--resolv-conf=off"])
            .arg(format!("--machine=overlay-{}", plan.name))
            .arg(format!("--system-call-filter={SYSTEM_CALLS}"))
            .arg(format!(
                "--network-namespace-path=/run/netns/{}",
                plan.netns
            ))
            .arg(format!("--bind={}:/sys/fs/bpf", bpf.display()))
            .arg("--directory")
            .arg(&root)
            // Its network is its own, and so are the settings of it; all others are the machine's.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
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
    pub(crate) fn run(&self, line: &str) -> Result<String> {
        Ok(run::checked(&self.argv(line)?)?)
    }

    /// Runs a shell's command line inside to its end.
    pub(crate) fn output(&self, line: &str) -> Result<run::Output> {
        Ok(run::output(&self.argv(line)?)?)
    }

    /// The command that runs a shell's command line inside.
    pub(crate) fn command(&self, line: &str) -> Result<Command> {
        let argv = self.argv(line)?;
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]);
        Ok(command)
    }

    fn argv(&self, line: &str) -> Result<Vec<String>> {
        const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        const HOME: &str = "HOME=/root";
        let init = self.init()?.to_string();
        let enter = [
            "nsenter", "--target", &init, "--all", "--", "env", "-i", PATH, HOME,
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
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Ends it, and removes what it was made of.
    pub(crate) fn stop(mut self) -> Result<()> {
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
            run::checked(["kill", &format!("-{signal}"), &init.to_string()].map(str::to_owned))?;
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
fn image(console: Console, plan: &Plan) -> Result<PathBuf> {
    let cache = toolchain::cache("machines").context("find the user's cache: set HOME")?;
    let image = cache.join(format!("{}-{}.tar", plan.name, plan.suite));
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let unfinished = image.with_extension("unfinished.tar");
    let packages = [&SYSTEM, plan.packages].concat().join(",");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--variant=minbase", &format!("--include={packages}")])
        .args([
            "--aptopt=Acquire::Languages \"none\"",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .arg(plan.suite.to_string())
        .arg(&unfinished);
    let doing = format!("a Debian {}", plan.suite);
    console.run("machine", &doing, &mut mmdebstrap)?;
    fs::rename(&unfinished, &image).with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::Suite;

    #[test]
    fn a_release_is_known_by_its_codename() {
        let of = |codename: &str| Suite::of(&format!("ID=debian\nVERSION_CODENAME={codename}\n"));
        assert_eq!(of("trixie"), Some(Suite::Trixie));
        assert_eq!(of("\"bookworm\""), Some(Suite::Bookworm));
        assert_eq!(of("noble"), None);
        assert_eq!(Suite::of("VERSION_ID=1\n"), None);
    }
}
