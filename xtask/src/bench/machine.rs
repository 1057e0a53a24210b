//! The machine: what it is, and whether it is quiet.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::utsname;
use overlay_tests::{
    run::{self, output},
    script::words,
};
use serde::Serialize;

use super::{cores::Cores, interrupt, labs::Agents, measure::CpuTime};
use crate::workspace;

/// All that a reader needs to judge the figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) virtualised: bool,
    pub(crate) memory_mib: u64,
    pub(crate) system: String,
    pub(crate) kernel: String,
    pub(crate) clock_source: String,
    /// The cores of the ends.
    pub(crate) client_core: usize,
    pub(crate) server_core: usize,
    pub(crate) agent: String,
    /// The other build that it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) iperf3: String,
    pub(crate) sockperf: String,
    pub(crate) iproute2: String,
    pub(crate) bpftool: String,
}

impl Machine {
    pub(crate) fn describe(agents: &Agents, cores: Cores) -> Result<Self> {
        let agent = |program: &Path| version(&format!("{} --version", program.display()), "");
        let cpuinfo = read("/proc/cpuinfo")?;
        let fields = |name: &'static str| {
            cpuinfo.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let kernel = utsname::uname().context("ask the kernel for its version")?;
        Ok(Self {
            cpu: fields("model name")
                .next()
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: fields("processor").count(),
            virtualised: is_virtual(&cpuinfo, &firmware()),
            memory_mib: memory(&read("/proc/meminfo")?).context("read /proc/meminfo")?,
            system: system(),
            kernel: kernel.release().to_string_lossy().into_owned(),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")?
                .trim()
                .to_owned(),
            client_core: cores.client,
            server_core: cores.server,
            agent: agent(&agents.measured)?,
            baseline: agents.baseline.as_deref().map(agent).transpose()?,
            commit: commit(),
            iperf3: version("iperf3 --version", "iperf")?,
            sockperf: version("sockperf --version", "sockperf, version ")?,
            iproute2: version("ip -V", "ip utility, ")?,
            bpftool: version("bpftool version", "bpftool ")?,
        })
    }
}

/// Whether the processor or the firmware says that a hypervisor is beneath.
///
/// x86 has a flag for it. arm64 lists `Features`, none of which tells; there the device tree or
/// the firmware's vendor does.
fn is_virtual(cpuinfo: &str, vendor: &str) -> bool {
    const HYPERVISORS: [&str; 5] = ["QEMU", "KVM", "linux,dummy-virt", "Amazon EC2", "VMware"];
    let flagged = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(key, flags)| {
            key.trim() == "flags" && flags.split(' ').any(|flag| flag == "hypervisor")
        });
    flagged || HYPERVISORS.iter().any(|name| vendor.contains(name))
}

/// What the firmware says of the machine's make; nothing where there is none.
fn firmware() -> String {
    const PLACES: [&str; 3] = [
        "/sys/class/dmi/id/sys_vendor",
        "/sys/class/dmi/id/product_name",
        "/proc/device-tree/compatible",
    ];
    let told = PLACES.map(|place| fs::read_to_string(place).unwrap_or_default());
    told.concat()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

fn memory(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

/// The distribution; its kernel's name where it does not say.
fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || std::env::consts::OS.to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// The first line of a program's answer, from after `before` on.
fn version(line: &str, before: &str) -> Result<String> {
    let out = output(words(line))?;
    ensure!(out.success, "`{line}` failed: {}", out.stderr.trim());
    let all = out.stdout + &out.stderr;
    let first = all.lines().find(|line| line.contains(before));
    let first = first.with_context(|| format!("`{line}` does not tell a version"))?;
    Ok(first.replacen(before, "", 1).trim().to_owned())
}

/// What was measured, where the sources are a repository.
fn commit() -> Option<String> {
    let root = workspace::root().display();
    let line = format!("git -C {root} describe --always --dirty --abbrev=12");
    let out = output(words(line)).ok().filter(|out| out.success)?;
    Some(out.stdout.trim().to_owned())
}

/// The congestion control that TCP has when nobody asks for another.
pub(crate) fn congestion() -> Result<String> {
    let default = read("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(default.trim().to_owned())
}

/// Whether RCU grace periods, which attaching by TCX waits for, are shortened at the price of
/// interrupts on all CPUs.
pub(crate) fn rcu_expedited() -> Result<bool> {
    Ok(read("/sys/kernel/rcu_expedited")?.trim() != "0")
}

/// The date and time in UTC.
pub(crate) fn now() -> Result<String> {
    let date = run::checked("date --utc +%Y-%m-%dT%H:%M:%SZ")?;
    Ok(date.trim().to_owned())
}

/// The share of the CPUs' time that may be used by others.
pub(crate) const QUIET: f64 = 0.05;
/// How long one look takes.
const LOOK: Duration = Duration::from_secs(1);
/// How long the machine may take to become quiet; whoever started this may have just built it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until nothing else runs.
///
/// # Errors
/// When something else keeps running.
pub(crate) fn wait_until_quiet(mut say: impl FnMut(&str)) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let load = load()?;
        if load <= QUIET {
            return Ok(load);
        }
        ensure!(!interrupt::requested(), "interrupted");
        if Instant::now() > deadline {
            let average = read("/proc/loadavg")?;
            let average = average.split(' ').next().unwrap_or_default();
            bail!(
                "the machine is busy: {:.0} % of its CPUs' time is used by others (load average \
                 {average}), which would be measured too. End what runs, or measure all the \
                 same with --force",
                load * 100.0
            );
        }
        say(&format!(
            "the machine is busy ({:.0} %): waiting for it to become quiet",
            load * 100.0
        ));
    }
}

/// The share of the CPUs' time that is used now.
pub(crate) fn load() -> Result<f64> {
    let (before, started) = (CpuTime::read()?, Instant::now());
    thread::sleep(LOOK);
    let (after, elapsed) = (CpuTime::read()?, started.elapsed());
    Ok(after.load_since(&before, elapsed).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_shows_in_flags_or_in_the_firmware() {
        assert!(is_virtual(
            "processor\t: 0\nflags\t\t: fpu hypervisor lm\n",
            ""
        ));
        assert!(!is_virtual("flags\t\t: fpu lm\n", "LENOVO\n"));
        let arm = "processor\t: 0\nFeatures\t: fp asimd evtstrm\n";
        assert!(is_virtual(arm, "linux,dummy-virt\0"));
        assert!(!is_virtual(arm, "raspberrypi,5-model-b\0brcm,bcm2712\0"));
    }

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:        8137032 kB\nMemFree:         2137032 kB\n";
        assert_eq!(memory(text), Some(7_946));
        assert_eq!(memory(""), None);
    }

    #[test]
    fn a_version_is_the_rest_of_its_line() {
        assert_eq!(
            version("echo ip utility, iproute2-6.1.0", "ip utility, ").unwrap(),
            "iproute2-6.1.0"
        );
        assert!(version("echo nothing", "ip utility, ").is_err());
        assert!(version("false", "").is_err());
    }
}
