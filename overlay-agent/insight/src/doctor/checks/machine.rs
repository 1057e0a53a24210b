//! The machine: its kernel, its BPF file system, what the agent may do.

use overlay_control::{Finding, Severity};
use overlay_core::model::FastPath;
use overlay_kernel::capability;

use super::{Check, Fault, advice, command};
use crate::doctor::{commands, facts::Facts};

const KERNEL: Fault = Fault::warning(
    "kernel-too-old",
    "The programs cannot be loaded; the kernel's VXLAN device carries everything.",
);
const PRIVILEGES: Fault = Fault::problem(
    "privileges-missing",
    "Without them the agent cannot make devices, load programs or enter containers.",
);
const BPFFS: Fault = Fault::problem(
    "bpffs-missing",
    "Programs that are not pinned would go with the agent, and the traffic with them.",
);
const JIT: Fault = Fault::warning(
    "bpf-jit-off",
    "The kernel interprets the programs, several times slower than its VXLAN device.",
);
const STATISTICS: Fault = Fault::warning(
    "bpf-stats-on",
    "The kernel reads the clock twice for each packet that a program sees.",
);

pub(super) const CHECKS: [Check; 5] = [
    KERNEL.always(kernel),
    PRIVILEGES.always(privileges),
    BPFFS.always(bpffs),
    JIT.always(jit),
    STATISTICS.always(statistics),
];

fn wants_programs(facts: &Facts) -> bool {
    let mut networks = facts.networks.iter();
    networks.any(|network| network.fastpath != FastPath::Off)
}

fn kernel(facts: &Facts) -> Vec<Finding> {
    let judged = capability::judge_release(&facts.machine.release);
    let Some(error) = judged.err().filter(|_| wants_programs(facts)) else {
        return Vec::new();
    };
    let cure = error.cure().unwrap_or("boot a newer kernel").to_owned();
    let found = KERNEL.at("kernel", error.cause(), advice(cure));
    let mut networks = facts.networks.iter();
    let required = networks.any(|network| network.fastpath == FastPath::Required);
    vec![Finding {
        severity: if required {
            Severity::Problem
        } else {
            found.severity
        },
        ..found
    }]
}

fn privileges(facts: &Facts) -> Vec<Finding> {
    let missing = facts.machine.unprivileged.iter();
    let found = missing.map(|why| {
        PRIVILEGES.at(
            "agent",
            why,
            advice("run it as root, or grant them (systemd: AmbientCapabilities=)"),
        )
    });
    found.collect()
}

fn bpffs(facts: &Facts) -> Vec<Finding> {
    if !wants_programs(facts) {
        return Vec::new();
    }
    let folder = facts.machine.bpffs.display();
    let missing = facts.machine.no_bpffs.iter();
    let found = missing.map(|why| {
        let cure = command(
            "mount one there, and have it mounted at boot",
            format!("mount -t bpf bpf {folder}"),
        );
        BPFFS.at(folder.to_string(), why, cure)
    });
    found.collect()
}

fn jit(facts: &Facts) -> Vec<Finding> {
    setting(facts, &JIT, "net/core/bpf_jit_enable", "0", "1")
}

fn statistics(facts: &Facts) -> Vec<Finding> {
    setting(facts, &STATISTICS, "kernel/bpf_stats_enabled", "1", "0")
}

/// A setting that has a bad value, and a good one.
fn setting(facts: &Facts, fault: &Fault, key: &str, bad: &str, good: &str) -> Vec<Finding> {
    if facts.settings.get(key).is_none_or(|value| value != bad) {
        return Vec::new();
    }
    let cure = command(format!("set it to {good}"), commands::set(key, good));
    let what = format!("it is {bad}, and should be {good}");
    vec![fault.at(commands::setting(key), what, cure)]
}

#[cfg(test)]
mod tests {
    use overlay_control::Severity;
    use overlay_core::model::FastPath;

    use super::super::healthy::{broken, only};

    #[test]
    fn an_older_kernel_is_a_problem_where_the_programs_are_required() {
        let old = |fastpath| {
            broken(move |facts| {
                "5.15.0-100-generic".clone_into(&mut facts.machine.release);
                facts.networks[0].fastpath = fastpath;
            })
        };
        let [found] = old(FastPath::Auto).try_into().unwrap();
        assert_eq!(found.check, "kernel-too-old");
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.what.contains("this is Linux 5.15.0"), "{found:?}");
        let [found] = old(FastPath::Required).try_into().unwrap();
        assert_eq!(found.severity, Severity::Problem);
        assert!(old(FastPath::Off).is_empty());
    }

    #[test]
    fn privileges_and_bpffs_are_named() {
        let found = only("privileges-missing", |facts| {
            facts.machine.unprivileged = Some("the agent lacks CAP_BPF".to_owned());
        });
        assert_eq!(found.what, "the agent lacks CAP_BPF");
        let found = only("bpffs-missing", |facts| {
            facts.machine.no_bpffs = Some("/sys/fs/bpf is not a bpf filesystem".to_owned());
        });
        assert_eq!(found.cure.commands, ["mount -t bpf bpf /sys/fs/bpf"]);
    }

    #[test]
    fn settings_that_cost_time_are_told() {
        let set = |key: &'static str, value: &'static str| {
            move |facts: &mut crate::doctor::facts::Facts| {
                facts.settings.insert(key.to_owned(), value.to_owned());
            }
        };
        let found = only("bpf-jit-off", set("net/core/bpf_jit_enable", "0"));
        assert_eq!(found.cure.commands, ["sysctl -w net.core.bpf_jit_enable=1"]);
        let found = only("bpf-stats-on", set("kernel/bpf_stats_enabled", "1"));
        assert_eq!(found.object, "kernel.bpf_stats_enabled");
    }
}
