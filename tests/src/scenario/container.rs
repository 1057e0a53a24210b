//! Containers with nothing but the kernel's means: namespaces, a cgroup, few capabilities, a root
//! of their own with busybox in it.
//!
//! ```text
//!   sh ── joins its cgroup ── setpriv: uid 100000 ── unshare: seven namespaces
//!      ── setpriv: few capabilities ── sh inside.sh: mounts, pivot_root ── httpd, as PID 1
//! ```

use std::path::{Path, PathBuf};

use crate::{
    means::{Controller, Means},
    script::{Section, Step},
    state,
    topology::{Container, Topology},
};

/// Whom root of a container is outside it.
const USER: u32 = 100_000;
/// Capabilities of a container's root: those that most programs of Debian's packages ask for, and fewer
/// than Docker gives.
const CAPABILITIES: &str =
    "+chown,+dac_override,+fowner,+kill,+setgid,+setuid,+net_bind_service,+net_raw";
/// Capabilities to mount and to change the root, which the container's own program no longer has.
const UNTIL_INSIDE: &str = "sys_admin,sys_chroot";

/// The containers, each with a name for its network namespace, for which the agents look.
pub(super) fn sections(topology: &Topology, busybox: &Path, means: &Means) -> Vec<Section> {
    let folder = state::folder(&topology.shape.name);
    let folder = folder.display();
    let containers = || topology.nodes.iter().flat_map(|node| &node.containers);
    let mut sections = vec![
        state::section(&topology.shape.name),
        Section::new(
            "The root of a container will be mounted on a folder, and get busybox",
            [
                Step::run(format!("mkdir -p {folder}/root")),
                Step::run(format!(
                    "install -m 755 {} {folder}/busybox",
                    busybox.display()
                )),
            ],
        ),
        Section::new(
            "What the first process of a container does before it becomes the container's program",
            [Step::Write {
                path: inside_script(topology),
                text: inside(topology),
            }],
        ),
    ];
    sections.extend(limits(topology, means));
    sections.push(Section::new(
        if means.users {
            "Each container: in its cgroup, as a user without rights, in namespaces of all seven kinds"
        } else {
            "Each container: in its cgroup, in six namespaces; this kernel lets no user have one of users"
        },
        containers().map(|container| start(topology, container, means)),
    ));
    let joined = containers().flat_map(|container| named(topology, container));
    sections.push(Section::new(
        "Once it is inside, its network namespace gets a name, by which the agent finds it",
        joined,
    ));
    sections
}

/// The folder of a container's cgroup in a hierarchy.
pub fn cgroup(hierarchy: &Path, container: &Container) -> PathBuf {
    hierarchy.join(format!("overlay-{}", container.namespace))
}

/// Holds the process id of the container's keeper, whose only child is its first process.
pub fn keeper_file(topology: &Topology, container: &Container) -> PathBuf {
    state::folder(&topology.shape.name).join(format!("{}.pid", container.namespace))
}

/// The container's first process, for a shell.
pub fn first_process(topology: &Topology, container: &Container) -> String {
    let file = keeper_file(topology, container);
    format!("$(pgrep -P $(cat {}))", file.display())
}

/// The commands that end the containers and remove their cgroups.
pub(super) fn down(topology: &Topology, means: &Means) -> Section {
    let containers = || topology.nodes.iter().flat_map(|node| &node.containers);
    let kills = containers().map(|container| {
        let file = keeper_file(topology, container);
        shell(format!("kill -KILL $(cat {})", file.display()))
    });
    let folders = containers().flat_map(|container| {
        let folder = |hierarchy: &PathBuf| cgroup(hierarchy, container);
        means.hierarchies().iter().map(folder).collect::<Vec<_>>()
    });
    let removed = folders.map(|folder| {
        let folder = folder.display();
        shell(format!("until rmdir {folder}; do sleep 0.1; done"))
    });
    Section::new(
        "A container ends with its keeper; then its cgroup can go",
        kills.chain(removed),
    )
}

fn inside_script(topology: &Topology) -> PathBuf {
    state::folder(&topology.shape.name).join("inside.sh")
}

fn shell(line: String) -> Step {
    Step::Run(vec!["sh".to_owned(), "-c".to_owned(), line])
}

fn limits(topology: &Topology, means: &Means) -> Vec<Section> {
    let missing: Vec<&str> = means.missing().map(Controller::name).collect();
    let mut sections = Vec::new();
    if let Some(root) = &means.unified {
        let named = means.unified_controllers();
        let enabled: Vec<String> = named.map(|one| format!("+{}", one.name())).collect();
        sections.push(Section::new(
            "Control groups below the root may be limited",
            [shell(format!(
                "echo {} >{}/cgroup.subtree_control",
                enabled.join(" "),
                root.display()
            ))],
        ));
    }
    let containers = topology.nodes.iter().flat_map(|node| &node.containers);
    let of_container = |container: &Container| {
        let hierarchies = means.hierarchies();
        let made = hierarchies.into_iter().map(|hierarchy| {
            let folder = cgroup(&hierarchy, container);
            Step::run(format!("mkdir {}", folder.display()))
        });
        let set = means.limits().into_iter().map(|limit| {
            let file = cgroup(&limit.hierarchy, container).join(limit.file);
            shell(format!("echo {} >{}", limit.value, file.display()))
        });
        made.chain(set).collect::<Vec<_>>()
    };
    let title = match missing.as_slice() {
        [] => "A cgroup for each container: 64 MiB, 64 processes, half a core".to_owned(),
        missing => format!(
            "A cgroup for each container; this machine has no controller for {}",
            missing.join(" and ")
        ),
    };
    sections.push(Section::new(title, containers.flat_map(of_container)));
    sections
}

fn start(topology: &Topology, container: &Container, means: &Means) -> Step {
    let name = &container.namespace;
    let mut lines = vec![format!(
        "echo $$ >{}",
        keeper_file(topology, container).display()
    )];
    for hierarchy in means.hierarchies() {
        let folder = cgroup(&hierarchy, container);
        lines.push(format!("echo $$ >{}/cgroup.procs", folder.display()));
    }
    let (user, namespace) = if means.users {
        (
            format!("setpriv --reuid {USER} --regid {USER} --clear-groups "),
            " --user --map-root-user",
        )
    } else {
        (String::new(), "")
    };
    let inheritable: Vec<String> = UNTIL_INSIDE
        .split(',')
        .map(|one| format!("+{one}"))
        .collect();
    lines.push(format!(
        "exec {user}unshare{namespace} --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
         setpriv --inh-caps={} setpriv --bounding-set=-all,{CAPABILITIES} sh {} {name}",
        inheritable.join(","),
        inside_script(topology).display()
    ));
    Step::Start {
        task: name.clone(),
        argv: vec!["sh".to_owned(), "-ec".to_owned(), lines.join("\n")],
        log: state::log_file(&topology.shape.name, name),
    }
}

fn named(topology: &Topology, container: &Container) -> [Step; 3] {
    let (name, first) = (&container.namespace, first_process(topology, container));
    let is_inside = format!("grep -qx {name} /proc/{first}/root/etc/hostname");
    [
        Step::Await {
            argv: vec!["sh".to_owned(), "-c".to_owned(), is_inside],
            task: name.clone(),
        },
        shell(format!("ip netns attach {name} {first}")),
        Step::run(format!("ip -n {name} link set lo up")),
    ]
}

/// The capabilities for mounting are only inherited: the kernel gives them to root's programs as
/// long as they are in that set, whatever the bounding set has.
fn inside(topology: &Topology) -> String {
    let folder = state::folder(&topology.shape.name);
    let folder = folder.display();
    let dropped: Vec<String> = UNTIL_INSIDE
        .split(',')
        .map(|one| format!("-{one}"))
        .collect();
    let (mark, dropped) = (crate::processes::MARK, dropped.join(","));
    format!(
        "set -e\n\
         mount -t tmpfs -o mode=755 tmpfs {folder}/root\n\
         cd {folder}/root\n\
         mkdir bin dev etc old proc sys tmp www\n\
         cp {folder}/busybox bin\n\
         chroot . /bin/busybox --install -s /bin\n\
         for device in null zero full random urandom; do\n  \
           : >dev/$device\n  \
           mount --bind /dev/$device dev/$device\n\
         done\n\
         mount -t proc proc proc\n\
         mount -t sysfs -o ro sysfs sys\n\
         hostname $1\n\
         echo $1 >www/index.html\n\
         # The hostname's file comes last: who waits for it finds all of the root.\n\
         pivot_root . old\n\
         cd /\n\
         umount -l old\n\
         rmdir old\n\
         echo $1 >etc/hostname\n\
         exec env -i PATH=/bin HOME=/ {mark}=\"${mark}\" \\\n  \
           setpriv --inh-caps {dropped} --nnp httpd -f -p 80 -h /www\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::sections;
    use crate::{
        means::Means,
        script::Script,
        shape::{Scenario, Shape},
        topology::Topology,
    };

    #[test]
    fn a_kernel_without_namespaces_of_users_is_told_about() {
        let shape = Shape::usual("tctext", Scenario::Container).unwrap();
        let means = Means::read(
            "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            "memory pids",
            false,
        );
        let sections = sections(&Topology::new(shape), Path::new("/bin/busybox"), &means);
        let text = Script { sections }.to_string();
        assert!(text.contains("no controller for cpu"), "{text}");
        assert!(text.contains("echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control"));
        assert!(text.contains("in six namespaces"), "{text}");
        assert!(!text.contains("--map-root-user"), "{text}");
    }
}
