//! The RAM disk: a shell, the tests, and everything that they run.

mod programs;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use self::programs::{add_libraries, add_program, copy, find};
use super::{
    arch::Arch,
    kernel::{self, Kernel},
};
use crate::{console::Console, setup::cross::Target, test::programs::Program, workspace};

/// Programs that the tests run besides the agent.
const PROGRAMS: [&str; 16] = [
    "bpftool", "bridge", "curl", "ethtool", "ip", "iperf3", "nft", "nsenter", "ping", "socat",
    "ss", "sysctl", "tc", "tcpdump", "unshare", "wg",
];
/// Modules that the tests may need, by folder below `kernel/`.
const MODULES: [&str; 15] = [
    "crypto",
    "drivers/net",
    "drivers/virtio",
    "lib",
    "net/802",
    "net/8021q",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/llc",
    "net/netfilter",
    "net/sched",
    "net/xfrm",
    // Bonds need it.
    "net/tls",
];
/// What drivers of emulated network cards need besides.
const MODULES_OF_CARDS: [&str; 4] = [
    "drivers/dca",
    "drivers/i2c/algos",
    "drivers/pps",
    "drivers/ptp",
];
/// Folders of `drivers/net` for hardware that a virtual machine does not have.
const UNUSED: [&str; 6] = ["ethernet", "wireless", "wwan", "usb", "phy", "fddi"];
/// Where emulated network cards have their drivers among them.
const CARDS: [&str; 2] = ["ethernet/intel", "phy"];
/// Where another build of the agent is.
pub(super) const BASELINE: &str = "/bin/overlay-agent-baseline";
/// Where programs are looked for.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Packages that have [`PROGRAMS`], the shell, and what tests are linked to.
pub(super) const PACKAGES: [&str; 15] = [
    "bpftool",
    "busybox-static",
    "curl",
    "dash",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "libgcc-s1",
    "nftables",
    "procps",
    "socat",
    "tcpdump",
    "util-linux",
    "wireguard-tools",
];

/// How a RAM disk is packed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Packing {
    /// So that it fits into the machine beside what is unpacked.
    Small,
    /// So that an emulated processor need not unpack it: ten of the thirty seconds that a machine takes
    /// to boot whose clock counts instructions.
    Quick,
}

/// The content of a RAM disk.
pub(super) struct Contents<'a> {
    pub(super) arch: Arch,
    /// The shell of this machine's processor: it tells which applets there are.
    pub(super) busybox: &'a Path,
    /// Where the programs of another processor were unpacked; they are this machine's own else.
    pub(super) programs: Option<&'a Path>,
    pub(super) agent: &'a Path,
    /// Another build of it, to count beside it.
    pub(super) baseline: Option<&'a Path>,
    pub(super) tests: &'a [Program],
    /// Whether drivers of network cards other than virtio's are needed.
    pub(super) cards: bool,
    pub(super) packing: Packing,
}

/// Writes the RAM disk of a kernel into `folder`.
pub(super) fn build(
    console: Console,
    folder: &Path,
    kernel: &Kernel,
    contents: &Contents<'_>,
) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    let image = folder.join("initrd");
    for name in [
        "bin", "proc", "sys", "dev", "tmp", "run", "etc", "root", "tests",
    ] {
        let path = root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let add = |program: &Path, name: &Path| match contents.programs {
        None => add_program(&root, program, name),
        // Its libraries are there already.
        Some(_) => copy(program, &root.join(name)),
    };
    if let Some(programs) = contents.programs {
        add_libraries(&root, programs, contents.arch)?;
    }
    let find = |name: &str| find(contents.programs.unwrap_or(Path::new("/")), name);
    let busybox = match contents.programs {
        None => contents.busybox.to_owned(),
        Some(_) => find("busybox").context("busybox was not unpacked")?,
    };
    add(&busybox, Path::new("bin/busybox"))?;
    add_applets(&root, contents.busybox)?;
    for name in PROGRAMS {
        let program = find(name)
            .with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))?;
        add(&program, &Path::new("bin").join(name))?;
    }
    // busybox's own shell takes its applets for every program of the same name.
    let shell = find("dash").context("dash is not installed")?;
    add(&shell, Path::new("bin/sh"))?;
    let name = Path::new("bin/overlay-agent");
    add(contents.agent, name)?;
    strip(console, contents.arch, &root.join(name))?;
    if let Some(baseline) = contents.baseline {
        let name = Path::new(BASELINE.trim_start_matches('/'));
        add(baseline, name)?;
        strip(console, contents.arch, &root.join(name))?;
    }
    for test in contents.tests {
        let name = Path::new("tests").join(&test.name);
        add(&test.executable, &name)?;
        strip(console, contents.arch, &root.join(name))?;
    }
    add_data(&root)?;
    write(&root.join("etc/protocols"), PROTOCOLS, 0o644)?;
    add_modules(console, &root, kernel, contents)?;
    write(&root.join("init"), INIT, 0o755)?;
    pack(console, &root, &image, contents.packing)?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(image)
}

/// What runs first. Each test's end is a line of its own on the console.
/// `/tmp` stays a part of the RAM disk: the workspace may lie there, whose files tests read.
///
/// The machine's command line says what to run, and, when there are two of them, who this one
/// is: the second only does what the first one tells it to. What tests leave out elsewhere they
/// leave out for want of such a machine.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root OVERLAY_AGENT=/bin/overlay-agent
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# As udev makes them: nft reads its rules from there.
ln -s /proc/self/fd /dev/fd
for number in 0,stdin 1,stdout 2,stderr; do
    ln -s /proc/self/fd/${number%,*} /dev/${number#*,}
done
mkdir -p /dev/pts /run/netns
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
echo 1 > /proc/sys/kernel/printk
for module in vxlan veth bridge virtio_pci ${NIC:-virtio_net} crc32c_generic nf_tables nft_chain_nat nft_masq nft_ct \
    nft_limit nft_objref nft_fib_inet nft_reject_inet nft_meta_bridge sch_ingress sch_fq cls_bpf cls_u32 act_bpf act_mirred af_packet \
    xt_comment xfrm_user 8021q tun; do
    modprobe $module 2>/dev/null
done
# Kinds of devices that few tests ask for come when they do.
echo /bin/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
if [ "$NODE" ]; then
    ip link set eth0 name "$UNDERLAY"
    ip addr add "$ADDRESS4" dev "$UNDERLAY"
    ip addr add "$ADDRESS6" dev "$UNDERLAY" nodad
    if [ "$NODE" = 2 ]; then
        socat -t 600 TCP-LISTEN:514,reuseaddr,fork EXEC:/bin/sh &
    fi
    ip link set "$UNDERLAY" up
    export OVERLAY_SECOND="$OTHER:514"
fi
if [ "$NODE" = 2 ]; then
    while :; do sleep 3600; done
fi
if [ "$NODE" = 1 ]; then
    until ping -c 1 -W 1 "$OTHER" >/dev/null; do :; done
fi
cd /tests
for work in $(echo "$TESTS" | tr , ' '); do
    name=${work%%:*}
    filters=$(echo "${work#"$name"}" | tr : ' ')
    ./$name --test-threads=1 --show-output --include-ignored $filters
    echo "overlay-vm: $work $?"
done
echo "overlay-vm: end"
poweroff -f
"#;

/// Names by which rules of firewalls call protocols.
const PROTOCOLS: &str = "icmp 1\nigmp 2\ntcp 6\nudp 17\ndccp 33\ngre 47\nesp 50\nah 51\n\
                         ipv6-icmp 58\nsctp 132\nudplite 136\n";

/// Adds the shell's own names for what it does.
fn add_applets(root: &Path, busybox: &Path) -> Result<()> {
    let applets = Command::new(busybox)
        .arg("--list")
        .output()
        .context("run busybox")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        let path = root.join("bin").join(applet);
        if !path.exists() {
            symlink("busybox", &path).with_context(|| format!("link {}", path.display()))?;
        }
    }
    Ok(())
}

/// Takes away what only a debugger reads, which is most of a test.
fn strip(console: Console, arch: Arch, program: &Path) -> Result<()> {
    let doing = format!("strip {}", program.display());
    let mut strip = match arch {
        _ if Target::host() == Some(arch.target()) => Command::new("strip"),
        _ => Command::new(format!("{}-strip", arch.target().gnu())),
    };
    console.run("vm", &doing, strip.arg("--strip-debug").arg(program))
}

/// What the tests read from the workspace, under the path that they were built with.
fn add_data(root: &Path) -> Result<()> {
    let folder = workspace::root().join("tests/tests/programs/fuzz/regressions");
    let inside = root.join(folder.strip_prefix("/").unwrap_or(&folder));
    fs::create_dir_all(&inside).with_context(|| format!("create {}", inside.display()))?;
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let file = entry.with_context(|| format!("list {}", folder.display()))?;
        copy(&file.path(), &inside.join(file.file_name()))?;
    }
    Ok(())
}

fn add_modules(
    console: Console,
    root: &Path,
    kernel: &Kernel,
    contents: &Contents<'_>,
) -> Result<()> {
    let to = root.join("lib/modules").join(&kernel.version);
    let crypto = [contents.arch.crypto()];
    let of_cards: &[&str] = if contents.cards {
        &MODULES_OF_CARDS
    } else {
        &[]
    };
    let of_net = |folder: &str| Path::new("kernel/drivers/net").join(folder);
    for module in kernel::files(&kernel.modules, &[&MODULES, of_cards, &crypto].concat())? {
        let place = module
            .strip_prefix(&kernel.modules)
            .context("a module lies outside its folder")?;
        let is_in = |folders: &[&str]| folders.iter().any(|name| place.starts_with(of_net(name)));
        if is_in(&UNUSED) && !(contents.cards && is_in(&CARDS)) {
            continue;
        }
        let copied = to.join(place);
        copy(&module, &copied)?;
        // The shell's modprobe takes them as the kernel does.
        if copied
            .extension()
            .is_some_and(|extension| extension == "xz")
        {
            let status = Command::new("xz")
                .arg("--decompress")
                .arg(&copied)
                .status()
                .context("run xz")?;
            ensure!(status.success(), "decompress {}", copied.display());
        }
    }
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(root).arg(&kernel.version);
    console.run("vm", "list the modules", &mut depmod)
}

fn pack(console: Console, root: &Path, image: &Path, packing: Packing) -> Result<()> {
    let packer = match packing {
        Packing::Small => "gzip -1",
        Packing::Quick => "cat",
    };
    let mut pack = Command::new("sh");
    pack.current_dir(root)
        .args(["-ec", "find . | cpio --quiet -o -H newc | $1 > \"$0\""])
        .arg(image)
        .arg(packer);
    console.run("vm", "pack the RAM disk", &mut pack)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}
