//! A trial of the package: install, use, upgrade, remove, purge.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{
    guard::Guard,
    scenario::agents,
    script::{inside, words},
    shape::{Scenario, Shape},
};

use crate::{
    console::Console,
    machine::{Machine, Plan, Suite},
    setup::Apt,
    test,
};

const UNIT: &str = "overlay-agent.service";
const CONFIG: &str = "/etc/overlay/node.toml";
/// What is in the machine for the trial.
const INSIDE: [&str; 4] = ["curl", "iproute2", "iputils-ping", "nftables"];
/// Where Docker finds its driver.
const DRIVER: &str = "/run/docker/plugins/overlay-agent.sock";
/// Where the package lies inside.
const PACKAGE: &str = "/root/overlay-agent.deb";
/// Capabilities that the unit allows it to keep: those of `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`,
/// `CAP_SYS_ADMIN`, `CAP_PERFMON` and `CAP_BPF`.
const KEPT: u64 = 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;

/// Does it all, with a second node whose agent runs on this machine.
///
/// # Errors
/// With the first thing that is not as it should be.
pub(super) fn run(
    console: Console,
    apt: &Apt,
    suite: Suite,
    package: &Path,
    agent: &Path,
) -> Result<()> {
    test::require_root()?;
    let shape = Shape::of("deb", Scenario::Overlay, 2, 1)?;
    let guard = Guard::underlay_for(shape, agent)?;
    let topology = guard.topology();
    let [here, there] = topology.two_nodes();
    let other = guard.agent(there.number);
    fs::write(
        other.config_file(),
        agents::config(topology, there).to_toml(),
    )
    .context("write the other node's configuration")?;
    other.start()?;
    let mut config = agents::config(topology, here);
    config.node.probe = Some("1s");

    let plan = Plan {
        name: "package",
        suite,
        packages: &INSIDE,
        netns: &here.namespace,
    };
    let machine = Machine::start(console, apt, &plan)?;
    let trial = Trial {
        console,
        machine,
        config: config.to_toml(),
        container: here.containers[0].namespace.clone(),
        target: there.containers[0].address.to_string(),
        from: there.containers[0].namespace.clone(),
        back: here.containers[0].address.to_string(),
    };
    fs::copy(package, trial.machine.path(PACKAGE)).context("copy the package")?;
    trial.installs()?;
    trial.starts()?;
    trial.answers_docker()?;
    trial.keeps_forwarding()?;
    trial.is_removed()?;
    trial.machine.stop()?;
    guard.down()?;
    console.say(
        "package",
        "installed, started, restarted, upgraded, removed and purged",
    );
    Ok(())
}

struct Trial {
    console: Console,
    machine: Machine,
    config: String,
    /// A container of the machine, and one of the other node that it talks to.
    container: String,
    target: String,
    from: String,
    back: String,
}

impl Trial {
    fn installs(&self) -> Result<()> {
        // What it is tried on cannot change the machine that it runs on.
        self.machine
            .run("test ! -w /proc/sys/kernel/panic && test -w /proc/sys/net/ipv4/ip_forward")?;
        self.console.say("trial", "install it");
        self.machine.run(&install())?;
        // Without a configuration there is nothing to start.
        self.says("systemctl is-enabled", "enabled")?;
        self.says(
            "systemctl show --property ConditionResult",
            "ConditionResult=no",
        )?;
        for file in [
            "/usr/share/man/man8/overlay-agent.8.gz",
            "/usr/share/man/man8/overlay-agent-status.8.gz",
            "/usr/share/man/man5/overlay-agent.toml.5.gz",
            "/usr/share/bash-completion/completions/overlay-agent",
            "/usr/share/zsh/vendor-completions/_overlay-agent",
            "/usr/share/fish/vendor_completions.d/overlay-agent.fish",
            "/usr/share/doc/overlay-agent/examples/node.toml",
            "/usr/share/doc/overlay-agent/copyright",
            "/etc/default/overlay-agent",
            "/usr/bin/overlay-cluster",
            "/usr/lib/cni/overlay-cni",
            "/usr/libexec/netavark/overlay-cni",
        ] {
            self.machine.run(&format!("test -s {file}"))?;
        }
        self.machine.run("dpkg --verify overlay-agent")?;
        self.machine
            .run("overlay-agent check --config /usr/share/doc/overlay-agent/examples/node.toml")?;
        Ok(())
    }

    fn starts(&self) -> Result<()> {
        self.console.say("trial", "configure and start it");
        fs::write(self.machine.path(CONFIG), &self.config).context("write the configuration")?;
        self.machine.run(&format!("systemctl start {UNIT}"))?;
        // It says that it is ready only when this works.
        self.reaches_the_other()?;
        self.says("systemctl is-active", "active")?;
        self.machine.run("overlay-agent status")?;
        let shown = self
            .machine
            .run(&format!("systemctl status --no-pager {UNIT}"))?;
        ensure!(shown.contains("Status: \"healthy: 1 network,"), "{shown}");
        self.is_bounded()?;
        let levels = "journalctl --no-pager --unit overlay-agent --priority 6..6 --output cat";
        let log = self.machine.run(levels)?;
        ensure!(
            log.contains("instance deb-n1 is up"),
            "no level in the journal: {log}"
        );

        self.machine
            .run("sed -i 's/probe = \"1s\"/probe = \"2s\"/' /etc/overlay/node.toml")?;
        self.machine.run(&format!("systemctl reload {UNIT}"))?;
        let status = self.machine.run("overlay-agent status --output json")?;
        ensure!(
            status.contains("\"mode\": \"2s\""),
            "not reloaded: {status}"
        );
        Ok(())
    }

    /// The driver of Docker rests until somebody wants it, and is started by whoever asks it.
    fn answers_docker(&self) -> Result<()> {
        self.console.say("trial", "ask the driver of Docker");
        // The service has no target of its own: its socket starts it.
        for (part, state) in [("service", "static"), ("socket", "disabled")] {
            let asked = format!("systemctl is-enabled overlay-docker.{part}");
            let said = self.machine.output(&asked)?.stdout;
            ensure!(said.trim() == state, "{asked}: {said}");
        }
        self.machine.run("systemctl start overlay-docker.socket")?;
        let ask = format!(
            "curl --silent --show-error --fail --request POST --unix-socket {DRIVER} \
             http://localhost/Plugin.Activate"
        );
        let said = self.machine.run(&ask)?;
        ensure!(
            said.contains("NetworkDriver") && said.contains("IpamDriver"),
            "{said}"
        );
        let asked = "systemctl is-active overlay-docker.service";
        let said = self.machine.run(asked)?;
        ensure!(said.trim() == "active", "{asked}: {said}");
        self.machine
            .run("systemctl stop overlay-docker.socket overlay-docker.service")
            .map(drop)
    }

    /// Every thread has no more than the unit and the agent leave it.
    fn is_bounded(&self) -> Result<()> {
        let pid = self
            .machine
            .run(&format!("systemctl show --property MainPID --value {UNIT}"))?;
        let sets = self
            .machine
            .run(&format!("cat /proc/{}/task/*/status", pid.trim()))?;
        let mut seen = 0;
        for line in sets.lines() {
            let Some((field, value)) = line.split_once(":\t") else {
                continue;
            };
            match field {
                "CapPrm" | "CapEff" | "CapBnd" => {
                    let set = u64::from_str_radix(value, 16).context("read a set")?;
                    ensure!(set & !KEPT == 0, "{field} is {value}");
                    seen += 1;
                }
                "NoNewPrivs" => ensure!(value == "1", "{line}"),
                "Seccomp" => ensure!(value == "2", "{line}"),
                _ => {}
            }
        }
        ensure!(seen >= 3, "no capabilities in {sets}");
        Ok(())
    }

    /// Neither its end nor its successor loses a packet.
    fn keeps_forwarding(&self) -> Result<()> {
        self.console
            .say("trial", "restart, stop and upgrade it under pings");
        let pings = Pings::start(&self.from, &self.back)?;
        self.machine.run(&format!("systemctl restart {UNIT}"))?;
        self.machine.run(&format!("systemctl stop {UNIT}"))?;
        self.says("systemctl is-active", "inactive")?;
        self.reaches_the_other()?;
        self.machine.run(&format!("systemctl start {UNIT}"))?;
        // The administrator's own settings are kept.
        self.machine
            .run("echo OVERLAY_LOG=debug >>/etc/default/overlay-agent")?;
        let pid = |trial: &Self| {
            trial
                .machine
                .run(&format!("systemctl show --property MainPID --value {UNIT}"))
        };
        let before = pid(self)?;
        self.machine.run(&format!("{} --reinstall", install()))?;
        ensure!(pid(self)? != before, "the new program was not started");
        self.says("systemctl is-active", "active")?;
        self.machine
            .run("grep -q OVERLAY_LOG=debug /etc/default/overlay-agent")?;
        let told = pings.stop()?;
        self.console.say("trial", &told);
        ensure!(told.contains(" 0% packet loss"), "{told}");
        Ok(())
    }

    fn is_removed(&self) -> Result<()> {
        self.console.say("trial", "remove and purge it");
        self.machine.run("apt-get remove --yes overlay-agent")?;
        let links = self.machine.run("ip -o link show")?;
        ensure!(!links.contains("ovl"), "devices are left: {links}");
        let pins = self.machine.run("ls /sys/fs/bpf/overlay 2>&1 || true")?;
        ensure!(!pins.contains("deb-n1"), "pins are left: {pins}");
        self.machine.run("test ! -e /usr/bin/overlay-agent")?;
        self.machine.run(&format!(
            "test -e /etc/default/overlay-agent && test -e {CONFIG}"
        ))?;

        self.machine.run("apt-get purge --yes overlay-agent")?;
        self.machine
            .run("test ! -e /etc/default/overlay-agent && test ! -e /var/lib/overlay")?;
        // That one no package has made.
        self.machine.run(&format!("test -e {CONFIG}"))?;
        let known = self.machine.output("systemctl cat overlay-agent")?;
        ensure!(!known.success, "the unit is left: {}", known.stdout);
        let left = self.machine.run("dpkg --list | grep overlay || true")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    }

    fn reaches_the_other(&self) -> Result<()> {
        let line = format!(
            "ip netns exec {} ping -n -c 1 -W 5 {}",
            self.container, self.target
        );
        self.machine.run(&line).map(drop)
    }

    /// That a question about the unit has an answer.
    fn says(&self, question: &str, answer: &str) -> Result<()> {
        let said = self.machine.output(&format!("{question} {UNIT}"))?;
        ensure!(
            said.stdout.trim() == answer,
            "{question}: {}{}",
            said.stdout,
            said.stderr
        );
        Ok(())
    }
}

/// Installs the package as an administrator would who was asked nothing.
fn install() -> String {
    format!("apt-get install --yes -o Dpkg::Options::=--force-confold {PACKAGE}")
}

/// A hundred pings a second, until they are stopped.
struct Pings(Child);

impl Pings {
    fn start(from: &str, to: &str) -> Result<Self> {
        let argv = words(inside(from, format!("ping -n -q -i 0.01 {to}")));
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            .stdout(Stdio::piped())
            .spawn()
            .context("run ping")?;
        Ok(Self(child))
    }

    /// The line that tells how many were sent and lost.
    fn stop(mut self) -> Result<String> {
        self.interrupt()?;
        let mut told = String::new();
        if let Some(mut out) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut out, &mut told).context("read what ping said")?;
        }
        let line = told.lines().find(|line| line.contains("packet loss"));
        line.map(str::to_owned)
            .with_context(|| format!("ping said {told}"))
    }

    fn interrupt(&mut self) -> Result<()> {
        if self.0.try_wait().context("wait for ping")?.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).context("read a process id")?);
            kill(pid, Signal::SIGINT).context("end ping")?;
            self.0.wait().context("wait for ping")?;
        }
        Ok(())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        if let Err(error) = self.interrupt() {
            eprintln!("ping was not ended: {error:#}");
        }
    }
}
