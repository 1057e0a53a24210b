//! Real runtimes from the distribution, unpacked into a folder of the test: nothing is installed.
//! Where a package cannot be had, the test says so and is skipped.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, poll};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{attachments, lab, nothing_is_left, plugin, reaches, veths};

/// Unpacked packages, a busybox as root file system of containers, and configurations.
struct Client {
    folder: TempDir,
}

impl Client {
    /// Downloads and unpacks packages by this machine's apt; `None` where it has not all of them.
    fn unpack(packages: &[&str]) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mut apt = Command::new("apt-get");
        apt.arg("download").args(packages).current_dir(&folder);
        let downloaded = apt.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !downloaded.is_ok_and(|status| status.success()) {
            eprintln!("skipped: apt-get download has not all of {packages:?} here");
            return Ok(None);
        }
        let client = Self { folder };
        for entry in fs::read_dir(client.folder.path())? {
            let archive = entry?.path();
            let unpacked = Command::new("dpkg-deb")
                .arg("-x")
                .args([&archive, &client.path("root")])
                .status()?;
            ensure!(
                unpacked.success(),
                "{} cannot be unpacked",
                archive.display()
            );
        }
        let bin = client.path("rootfs/bin");
        fs::create_dir_all(&bin)?;
        fs::copy(client.path("root/bin/busybox"), bin.join("busybox"))?;
        for name in ["sh", "ip", "ping", "sleep", "nc", "head", "wc", "cat"] {
            symlink("busybox", bin.join(name))?;
        }
        fs::create_dir_all(client.path("opt/cni/bin"))?;
        fs::copy(plugin::program(), client.path("opt/cni/bin/overlay-cni"))?;
        Ok(Some(client))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Copies plugins of the distribution beside ours.
    fn take_plugins(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let from = self.path("root/usr/lib/cni").join(name);
            fs::copy(from, self.path("opt/cni/bin").join(name))?;
        }
        Ok(())
    }

    /// Writes the list of plugins that runtimes of a node find in `/etc/cni/net.d`.
    fn configure(&self, node: &str, chained: &[Value]) -> Result<()> {
        let folder = self.path(node).join("cni/net.d");
        fs::create_dir_all(&folder)?;
        let ours = json!({ "type": "overlay-cni", "instance": node, "network": "lab" });
        let plugins: Vec<&Value> = std::iter::once(&ours).chain(chained).collect();
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins });
        Ok(fs::write(
            folder.join("10-overlay.conflist"),
            list.to_string(),
        )?)
    }

    /// A command in a node's namespace, with mounts of its own, in which the plugins and their
    /// configuration are where the distribution's runtimes look.
    fn on(&self, node: &str, command: &str) -> Command {
        let script = format!(
            "set -e; mkdir -p $T/{node}/up $T/{node}/work; \
             mount -t overlay -o lowerdir=/etc,upperdir=$T/{node}/up,workdir=$T/{node}/work overlay /etc; \
             mkdir -p /etc/cni/net.d; mount --bind $T/{node}/cni/net.d /etc/cni/net.d; \
             mount --bind $T/opt /opt; exec {command}"
        );
        let mut shell = Command::new("nsenter");
        shell
            .arg(format!("--net=/run/netns/{node}"))
            .args([
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                &script,
            ])
            .env("T", self.folder.path())
            .env(
                "PATH",
                format!(
                    "{0}/usr/sbin:{0}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    self.path("root").display()
                ),
            );
        shell
    }

    fn ctr(&self, node: &str, arguments: &str) -> Result<String> {
        let socket = self.path("c.sock");
        let command = format!("ctr --address {} {arguments}", socket.display());
        let output = self.on(node, &command).output()?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{command}: {out}{err}");
        Ok(out)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// containerd, without the part that serves Kubernetes.
struct Containerd(Child);

impl Containerd {
    fn start(client: &Client) -> Result<Self> {
        let config = client.path("containerd.toml");
        let folder = client.folder.path().display();
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{folder}/c.root\"\nstate = \"{folder}/c.state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = \"{folder}/c.sock\"\n"
            ),
        )?;
        let path = format!(
            "{0}/usr/sbin:{0}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            client.path("root").display()
        );
        let log = fs::File::create(client.path("containerd.log"))?;
        let child = Command::new(client.path("root/usr/bin/containerd"))
            .arg("--config")
            .arg(&config)
            .env("PATH", path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let started = Self(child);
        let socket = client.path("c.sock");
        poll::until_well(|| (!socket.exists()).then_some("containerd does not listen"))
            .map_err(anyhow::Error::msg)?;
        Ok(started)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("containerd was not ended: {error}");
        }
    }
}

/// A container that goes with the test, also when that has failed.
struct Container<'a> {
    client: &'a Client,
    node: &'static str,
    id: &'static str,
}

impl Container<'_> {
    fn remove(&self) -> Result<()> {
        let Self { client, node, id } = self;
        // It may have ended by itself.
        if let Err(error) = client.ctr(node, &format!("task kill --signal 9 {id}")) {
            eprintln!("{error}");
        }
        poll::until_well(|| {
            let deleted = client.ctr(node, &format!("task delete {id}"));
            deleted.err().map(|error| error.to_string())
        })
        .map_err(anyhow::Error::msg)?;
        client.ctr(node, &format!("container delete {id}"))?;
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("container {} was not removed: {error}", self.id);
        }
    }
}

fn only_address(agent: &Agent) -> Result<Ipv4Addr> {
    let all = attachments(agent)?;
    let [only] = all.as_slice() else {
        anyhow::bail!("not one attachment: {all:?}");
    };
    let address = only["addresses"][0].as_str().context("no address")?;
    Ok(address.parse()?)
}

fn run_detached(client: &Client, node: &str, id: &str, command: &str) -> Result<()> {
    let rootfs = client.path("rootfs");
    let rootfs = rootfs.display();
    client.ctr(
        node,
        &format!("run --detach --cni --rootfs {rootfs} {id} {command}"),
    )?;
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn containerd_connects_containers_of_two_nodes() -> Result<()> {
    let Some(client) = Client::unpack(&[
        "containerd",
        "runc",
        "busybox-static",
        "containernetworking-plugins",
    ])?
    else {
        return Ok(());
    };
    let guard = lab("tctd")?;
    let (first, second) = (guard.agent(1), guard.agent(2));
    let before = [veths(&first)?, veths(&second)?];
    // Plugins of the distribution that are called after ours change what is inside.
    client.take_plugins(&["tuning", "firewall"])?;
    let sysctl = json!({ "net.ipv4.conf.eth0.arp_notify": "1" });
    let tuning = json!({ "type": "tuning", "mtu": 1300, "sysctl": sysctl });
    client.configure("tctd-n1", &[tuning])?;
    client.configure("tctd-n2", &[])?;
    let containerd = Containerd::start(&client)?;

    let id = "tctd-server";
    run_detached(
        &client,
        "tctd-n1",
        id,
        "/bin/sh -c 'while :; do nc -l -p 7000 -e /bin/cat; done'",
    )?;
    let container = Container {
        client: &client,
        node: "tctd-n1",
        id,
    };
    let server = only_address(&first)?;
    reaches("tctd-n2c1", IpAddr::V4(server))?;
    first.kill()?;
    first.start()?;
    // A container of the other node: addresses, then a megabyte there and back.
    let rootfs = client.path("rootfs");
    let ask = format!(
        "ip -o addr; ip -o link show lo; ping -c 2 -W 5 {server}; \
         head -c 1000000 /dev/zero | nc -w 5 {server} 7000 | wc -c"
    );
    let run = format!(
        "run --rm --cni --rootfs {} tctd-client /bin/sh -c '{ask}'",
        rootfs.display()
    );
    let said = client.ctr("tctd-n2", &run)?;
    ensure!(said.contains("10.244.2."), "no address: {said}");
    ensure!(said.contains("2 packets received"), "no answer: {said}");
    ensure!(
        said.lines().any(|line| line.trim() == "1000000"),
        "no megabyte: {said}"
    );
    ensure!(said.contains("LOOPBACK,UP"), "lo is down: {said}");
    nothing_is_left(&second, before[1])?;

    let inside = client.ctr(
        "tctd-n1",
        "task exec --exec-id look tctd-server /bin/ip link show eth0",
    )?;
    ensure!(
        inside.contains("mtu 1300"),
        "the agent has undone what tuning did: {inside}"
    );
    // A detached container gets no DEL from ctr: what it leaves goes with its namespace.
    drop(container);
    poll::until_well(|| {
        let left = attachments(&first).ok()?;
        (!left.is_empty()).then(|| format!("left: {left:?}"))
    })
    .map_err(anyhow::Error::msg)?;
    nothing_is_left(&first, before[0])?;
    drop(containerd);
    ensure!(is_empty(
        &client.path("c.state/io.containerd.runtime.v2.task/default")
    ));
    Ok(())
}
