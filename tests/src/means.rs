//! Means of this machine's kernel to keep containers apart: control groups of either version,
//! namespaces of users.

use std::{fs, path::PathBuf};

use nix::unistd::geteuid;

use crate::run;

/// A controller of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Memory, with what a tmpfs holds.
    Memory,
    /// The number of processes and threads.
    Pids,
    /// Time on processors.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// A file of a cgroup and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The controller that enforces it.
    pub controller: Controller,
    /// Where the hierarchy is mounted.
    pub hierarchy: PathBuf,
    /// The file's name.
    pub file: &'static str,
    /// 64 MiB, 64 processes, or half a core.
    pub value: &'static str,
}

/// The means of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    /// Where cgroup v2 is mounted, if it has any of the controllers.
    pub unified: Option<PathBuf>,
    /// Each controller that there is, where, and whether that is version 2.
    controllers: Vec<(Controller, PathBuf, bool)>,
    /// Whether a user without rights can have a namespace of users, and be root in it.
    pub users: bool,
}

impl Means {
    /// Looks at this machine. What cannot be read is not there, which scripts say in their titles.
    pub fn here() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let unified = mounted(&mounts, |kind, _| kind == "cgroup2");
        let controllers = unified
            .and_then(|root| fs::read_to_string(root.join("cgroup.controllers")).ok())
            .unwrap_or_default();
        // Some systems have the namespaces and keep their rights back.
        let ordinary = if geteuid().is_root() {
            "setpriv --reuid 100000 --regid 100000 --clear-groups "
        } else {
            ""
        };
        let trial =
            format!("{ordinary}unshare --user --map-root-user --mount mount -t tmpfs tmpfs /tmp");
        let users = run::output(trial).is_ok_and(|out| out.success);
        Self::read(&mounts, &controllers, users)
    }

    /// From the text of `/proc/self/mounts` and of cgroup v2's `cgroup.controllers`.
    pub fn read(mounts: &str, controllers: &str, users: bool) -> Self {
        let unified = mounted(mounts, |kind, _| kind == "cgroup2");
        let find = |controller: Controller| {
            let name = controller.name();
            let second = unified
                .clone()
                .filter(|_| controllers.split_whitespace().any(|one| one == name));
            let first = || {
                mounted(mounts, |kind, options| {
                    kind == "cgroup" && options.split(',').any(|one| one == name)
                })
            };
            match second {
                Some(root) => Some((controller, root, true)),
                None => Some((controller, first()?, false)),
            }
        };
        let controllers: Vec<_> = Controller::ALL.into_iter().filter_map(find).collect();
        Self {
            unified: unified.filter(|_| controllers.iter().any(|(.., second)| *second)),
            controllers,
            users,
        }
    }

    /// The controllers of cgroup v2.
    pub fn unified_controllers(&self) -> impl Iterator<Item = Controller> {
        let second = self.controllers.iter().filter(|(.., second)| *second);
        second.map(|&(controller, ..)| controller)
    }

    /// The controllers that this machine does not have.
    pub fn missing(&self) -> impl Iterator<Item = Controller> {
        let has = |one: &Controller| self.controllers.iter().any(|(there, ..)| there == one);
        Controller::ALL.into_iter().filter(move |one| !has(one))
    }

    /// Where a container has a cgroup, each place once.
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for (_, root, _) in &self.controllers {
            if !all.contains(root) {
                all.push(root.clone());
            }
        }
        all
    }

    /// A container's limits, as they stand in the files of its cgroup.
    pub fn limits(&self) -> Vec<Limit> {
        let of = |(controller, hierarchy, second): &(Controller, PathBuf, bool)| {
            let files: &[(&str, &str)] = match (controller, second) {
                (Controller::Memory, true) => &[("memory.max", "64M"), ("memory.swap.max", "0")],
                (Controller::Memory, false) => &[("memory.limit_in_bytes", "64M")],
                (Controller::Pids, _) => &[("pids.max", "64")],
                (Controller::Cpu, true) => &[("cpu.max", "50000 100000")],
                (Controller::Cpu, false) => &[("cpu.cfs_quota_us", "50000")],
            };
            let limit = |&(file, value): &(&'static str, &'static str)| Limit {
                controller: *controller,
                hierarchy: hierarchy.clone(),
                file,
                value,
            };
            files.iter().map(limit).collect::<Vec<_>>()
        };
        self.controllers.iter().flat_map(of).collect()
    }
}

/// The first mount point of this kind with these options.
fn mounted(mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        is_it(kind, options).then(|| place.into())
    })
}

#[cfg(test)]
mod tests {
    use super::{Controller, Means};

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn a_controller_is_where_it_is_mounted() {
        let means = Means::read(HYBRID, "hugetlb", true);
        assert_eq!(means.unified, None);
        assert_eq!(means.missing().collect::<Vec<_>>(), [Controller::Pids]);
        let files: Vec<String> = means
            .limits()
            .into_iter()
            .map(|limit| format!("{}/{}", limit.hierarchy.display(), limit.file))
            .collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
            ]
        );
    }

    #[test]
    fn one_hierarchy_has_one_folder() {
        let means = Means::read(
            "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            "cpu memory pids",
            true,
        );
        assert_eq!(means.hierarchies().len(), 1);
        assert_eq!(means.unified_controllers().count(), 3);
    }
}
