//! Docker, whose containers the agent's driver attaches.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{agent::Agent, lab, poll};

use super::room::Room;

/// Its own bridge, which is not needed here.
pub(super) const NO_BRIDGE: &str = "--bridge=none";
/// How dockerd is started where it is to leave the node's rules alone.
pub(super) const NO_RULES: [&str; 3] = ["--iptables=false", "--ip6tables=false", NO_BRIDGE];

/// A daemon in a room, and the driver of the room's node.
pub(super) struct Docker<'a> {
    room: &'a Room,
    instance: String,
    /// Where it keeps what runs: its containers' namespaces are files in there, which agent and driver
    /// have to find by the same name.
    runs: PathBuf,
    daemon: Child,
    driver: Child,
}

impl<'a> Docker<'a> {
    /// Starts both, with an image of busybox.
    pub(super) fn start(room: &'a Room, agent: &Agent) -> Result<Self> {
        Self::start_with(room, agent, &NO_RULES)
    }

    /// The same, with these options.
    pub(super) fn start_with(room: &'a Room, agent: &Agent, options: &[&str]) -> Result<Self> {
        let instance = agent.instance.clone();
        let runs = PathBuf::from("/run/netns").join(format!("docker-{instance}"));
        fs::copy(program(), room.path("usr/bin/overlay-docker"))?;
        room.write("etc/hosts", "127.0.0.1 localhost\n")?;
        let started = Self {
            driver: driver(room)?,
            daemon: daemon(room, &runs, options)?,
            room,
            instance,
            runs,
        };
        started.answers()?;
        let archive = room.path("rootfs.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(room.path("rootfs"))
            .arg(".");
        ensure!(tar.status()?.success(), "tar has failed");
        started.tell("import /rootfs.tar box")?;
        Ok(started)
    }

    fn answers(&self) -> Result<()> {
        poll::until_ok(|| self.tell("version")).map(drop)
    }

    /// Ends the daemon as a fault would, and starts another one.
    pub(super) fn kill(&mut self, options: &[&str]) -> Result<()> {
        self.daemon.kill()?;
        self.daemon.wait()?;
        self.daemon = daemon(self.room, &self.runs, options)?;
        self.answers()
    }

    /// Stops the daemon as an upgrade does, and starts another one.
    pub(super) fn restart(&mut self, options: &[&str]) -> Result<()> {
        kill(
            Pid::from_raw(self.daemon.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        self.daemon.wait()?;
        self.daemon = daemon(self.room, &self.runs, options)?;
        self.answers()
    }

    /// Ends the driver as a fault would, and starts another one.
    pub(super) fn kill_driver(&mut self) -> Result<()> {
        self.driver.kill()?;
        self.driver.wait()?;
        self.driver = driver(self.room)?;
        Ok(())
    }

    /// A network of Docker's, called `pods`.
    pub(super) fn create_network(&self, subnet: &str) -> Result<String> {
        let instance = &self.instance;
        self.tell(&format!(
            "network create --driver overlay-agent --ipam-driver overlay-agent --opt network=lab --opt \
             instance={instance} --ipam-opt instance={instance} --subnet {subnet} pods"
        ))
    }

    pub(super) fn command(&self, words: &str) -> Command {
        let all = ["docker", "--host", "unix:///run/docker.sock"];
        let words: Vec<&str> = all.into_iter().chain(words.split_whitespace()).collect();
        self.room.command(&words)
    }

    pub(super) fn ask(&self, words: &str) -> Result<Output> {
        Ok(self.command(words).output()?)
    }

    /// Runs `docker` with words, which must succeed; what it says.
    pub(super) fn tell(&self, words: &str) -> Result<String> {
        let said = self.ask(words)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&said.stdout), text(&said.stderr));
        ensure!(said.status.success(), "docker {words}: {out}{error}");
        Ok(out.trim_end().to_owned())
    }

    /// Why a command fails, which must.
    pub(super) fn refused(&self, words: &str) -> Result<String> {
        let said = self.ask(words)?;
        ensure!(!said.status.success(), "docker {words} has succeeded");
        Ok(String::from_utf8_lossy(&said.stderr).into_owned())
    }

    /// The start of a `docker run` of a script, with options.
    pub(super) fn run(&self, options: &str, script: &str) -> Command {
        let mut command = self.command(&format!(
            "run --ulimit nofile=1024:1024 --env {} {options} box /bin/sh -c",
            self.room.mark()
        ));
        command.arg(script);
        command
    }

    /// Runs a script to its end, or to its start when it is detached.
    pub(super) fn ran(&self, options: &str, script: &str) -> Result<String> {
        let said = self.run(options, script).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&said.stdout), text(&said.stderr));
        ensure!(said.status.success(), "docker run {options}: {out}{error}");
        Ok(out.trim_end().to_owned())
    }

    /// The address of a container in a network, as Docker knows it.
    pub(super) fn address(&self, container: &str) -> Result<String> {
        let form = "{{.NetworkSettings.Networks.pods.IPAddress}}";
        self.tell(&format!("inspect --format {form} {container}"))
    }
}

/// The driver's program: beside the agent's, where cargo puts both.
fn program() -> PathBuf {
    let beside = lab::agent_program().with_file_name("overlay-docker");
    std::env::var_os("OVERLAY_DOCKER").map_or(beside, PathBuf::from)
}

fn driver(room: &Room) -> Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(room.path("driver.log"))?;
    let mut driver = room.command(&["overlay-docker"]);
    driver.stdout(Stdio::null()).stderr(log);
    driver.spawn().context("start the driver")
}

fn daemon(room: &Room, runs: &PathBuf, options: &[&str]) -> Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(room.path("docker.log"))?;
    let mut daemon = room.command(&["dockerd", "--host", "unix:///run/docker.sock"]);
    daemon
        .arg("--exec-root")
        .arg(runs)
        .args(["--data-root", "/var/lib/docker", "--storage-driver", "vfs"])
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
        .args(["--cgroup-parent", &room.cgroup()])
        // Containers outlive it.
        .arg("--live-restore")
        .args(options)
        .stdout(Stdio::null())
        .stderr(log);
    daemon.spawn().context("start dockerd")
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // nsenter has become the program.
        for child in [&mut self.daemon, &mut self.driver] {
            let ended = child.kill().and_then(|()| child.wait());
            if let Err(error) = ended {
                eprintln!("a program of Docker's was not ended: {error}");
            }
        }
        if let Ok(namespaces) = fs::read_dir(self.runs.join("netns")) {
            for namespace in namespaces.flatten() {
                // One that is no mount has none.
                let _ = umount2(&namespace.path(), MntFlags::MNT_DETACH);
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.runs) {
            eprintln!("{} is left: {error}", self.runs.display());
        }
    }
}
