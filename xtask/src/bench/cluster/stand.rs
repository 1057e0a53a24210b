//! A node with an agent, and beside it etcd and the addresses of some peers; all goes with the value.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{netns, run, script::words};

use super::{
    peers::{CONFIG, LIVE, PREFIX, Peer},
    store::{Store, leases},
};
use crate::setup::servers;

const NAME: &str = "bench-cluster";
const NODE: &str = "bench-cluster-n1";
const CONTAINER: &str = "bench-cluster-c1";
/// Where etcd is, and the peers that are looked after.
pub(super) const STORE: &str = "bench-cluster-etcd";
const ETCD: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 253);
/// The kernel's VXLAN port, and flannel's.
const PORT: u16 = 8472;

pub(super) struct Stand {
    agent: PathBuf,
    folder: PathBuf,
    etcd: Option<Child>,
    watcher: Option<Child>,
    process: Option<Child>,
}

/// Resources that processes have used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) cpu: Duration,
    /// Resident at its peak, in MiB.
    pub(super) rss: f64,
}

impl Stand {
    /// Makes the namespaces and starts etcd with so many nodes in it, and a plain watcher of it;
    /// the remains of a run that was killed are removed.
    pub(super) fn make(agent: &Path, peers: u32, live: u32) -> Result<Self> {
        let mut stand = Self {
            agent: agent.to_owned(),
            folder: std::env::temp_dir().join(NAME),
            etcd: None,
            watcher: None,
            process: None,
        };
        stand.clear()?;
        fs::create_dir_all(&stand.folder)?;
        for command in [
            format!("ip netns add {NODE}"),
            format!("ip netns add {STORE}"),
            format!("ip netns add {CONTAINER}"),
            format!("ip -n {NODE} link set lo up"),
            format!("ip -n {STORE} link set lo up"),
            format!("ip -n {NODE} link add eth1 type veth peer name eth1 netns {STORE}"),
            format!("ip -n {NODE} addr add 172.31.255.254/12 dev eth1"),
            format!("ip -n {STORE} addr add {ETCD}/12 dev eth1"),
            format!("ip -n {NODE} link set eth1 up"),
            format!("ip -n {STORE} link set eth1 up"),
        ] {
            run::checked(command)?;
        }
        let add = |number| format!("addr add {}/32 dev eth1\n", Peer(number).vtep());
        let batch = stand.folder.join("batch");
        fs::write(&batch, (LIVE..LIVE + live).map(add).collect::<String>())?;
        run::checked(format!("ip -n {STORE} -batch {}", batch.display()))?;
        stand.start_etcd(peers)?;
        Ok(stand)
    }

    fn start_etcd(&mut self, peers: u32) -> Result<()> {
        let program = |name| servers::program(name).with_context(|| format!("find {name}"));
        let url = format!("http://{ETCD}:2379");
        let own = format!("http://{ETCD}:2380");
        let etcd = format!(
            "--data-dir {} --name m --listen-client-urls {url} --advertise-client-urls {url} --listen-peer-urls {own} \
             --initial-advertise-peer-urls {own} --initial-cluster m={own} --log-level error",
            self.folder.join("etcd").display()
        );
        self.etcd = Some(self.spawn(STORE, &program("etcd")?, &etcd, "etcd.log")?);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let filled = with_store(|store| {
                store.put(&format!("{PREFIX}/config"), CONFIG)?;
                let nodes = (1..peers).chain([LIVE]).map(Peer);
                store.fill(&leases(nodes))
            });
            match filled {
                Ok(()) => break,
                Err(error) => ensure!(Instant::now() < deadline, "fill etcd: {error:#}"),
            }
            thread::sleep(Duration::from_millis(100));
        }
        let watch = format!("--endpoints {url} watch --prefix {PREFIX}/subnets/");
        self.watcher = Some(self.spawn(STORE, &program("etcdctl")?, &watch, "watcher.log")?);
        Ok(())
    }

    fn spawn(&self, namespace: &str, program: &Path, arguments: &str, log: &str) -> Result<Child> {
        let log = fs::File::create(self.folder.join(log))?;
        let errors = log.try_clone()?;
        let inside = format!("--net=/run/netns/{namespace}");
        let mut command = Command::new("nsenter");
        command
            .arg(inside)
            .arg(program)
            .args(words(arguments))
            .env("ETCDCTL_API", "3");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn();
        child.with_context(|| format!("start {}", program.display()))
    }

    /// Starts the agent with an empty memory; when that was.
    pub(super) fn start(&mut self) -> Result<Instant> {
        let config = self.folder.join("node.toml");
        fs::write(
            &config,
            format!(
                "[node]\nname = \"{NODE}\"\nunderlay = \"eth1\"\nprobe = \"off\"\n\n[cluster]\netcd = \
                 [\"http://{ETCD}:2379\"]\nnetwork = \"lab\"\n\n[[endpoints]]\nname = \"c1\"\nnetwork = \
                 \"lab\"\nnetns = \"{CONTAINER}\"\n"
            ),
        )?;
        let log = fs::File::create(self.folder.join("agent.log"))?;
        let start = Instant::now();
        let mut command = self.command(&["run", "--netns", NODE, "--config"]);
        let child = command
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(child.with_context(|| format!("start {}", self.agent.display()))?);
        Ok(start)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.agent);
        command
            .args(arguments)
            .env("OVERLAY_STATE_DIR", self.folder.join("state"))
            .env("OVERLAY_RUNTIME_DIR", self.folder.join("run"))
            .env_remove("OVERLAY_LOG");
        command
    }

    /// Waits until something that the container sends to somebody behind a peer arrives there.
    pub(super) fn arrives(&self, peer: Peer) -> Result<Instant> {
        let receiver = netns::inside(STORE, || UdpSocket::bind((peer.vtep(), PORT)))??;
        receiver.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut sender = None;
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            // Until the container has its address there is no way out of it.
            let bound =
                sender.get_or_insert(netns::inside(CONTAINER, || UdpSocket::bind("0.0.0.0:0"))??);
            if bound.send_to(&[0], (peer.container(), 9)).is_err() {
                sender = None;
            }
            if receiver.recv(&mut [0; 64]).is_ok() {
                return Ok(Instant::now());
            }
            ensure!(
                Instant::now() < deadline,
                "nothing arrives at {}: {}",
                peer.vtep(),
                fs::read_to_string(self.folder.join("agent.log"))?
            );
        }
    }

    /// Resources of the agent, its helper, and the plain watcher.
    pub(super) fn taken(&self) -> Result<[Taken; 3]> {
        let agent = self.process.as_ref().context("no agent")?.id();
        let watcher = self.watcher.as_ref().context("no watcher")?.id();
        let children = format!("/proc/{agent}/task/{agent}/children");
        let mut helper = None;
        for task in fs::read_dir(format!("/proc/{agent}/task"))? {
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            helper = helper.or(children
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok()));
        }
        let helper = helper.with_context(|| format!("find the helper in {children}"))?;
        Ok([of(agent)?, of(helper)?, of(watcher)?])
    }

    /// Removes everything, and says whether that worked.
    pub(super) fn down(mut self) -> Result<()> {
        self.end();
        self.clear()
    }

    fn end(&mut self) {
        let all = [&mut self.process, &mut self.watcher, &mut self.etcd];
        for mut child in all.into_iter().filter_map(Option::take) {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("a process was not ended: {error}");
            }
        }
    }

    fn clear(&self) -> Result<()> {
        let down = self
            .command(&["down", "--instance", NODE])
            .output()
            .context("run the agent")?;
        let listed = run::checked("ip netns list")?;
        let there = listed
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let mut any = false;
        for name in there.filter(|name| name.starts_with(NAME)) {
            any = true;
            run::checked(format!("ip netns del {name}"))?;
        }
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        let text = String::from_utf8_lossy(&down.stderr);
        ensure!(down.status.success() || !any, "down: {text}");
        Ok(())
    }
}

/// Speaks with etcd, by a connection of its own.
pub(super) fn with_store<T: Send>(work: impl FnOnce(&mut Store) -> Result<T> + Send) -> Result<T> {
    let address = SocketAddr::from((ETCD, 2379));
    netns::inside(STORE, || work(&mut Store::connect(address)?))?
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.folder.exists() {
            self.end();
            if let Err(error) = self.clear() {
                eprintln!("the node was not removed: {error:#}");
            }
        }
    }
}

/// What programs have run that it started and that have ended, such as `nft`.
fn of_children(pid: u32) -> Result<Duration> {
    /// `USER_HZ`.
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    // cutime and cstime of proc_pid_stat(5), of which the third field is the first here.
    let times = fields.split_whitespace().skip(13).take(2);
    let ticks = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

fn of(pid: u32) -> Result<Taken> {
    let mut cpu = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile does not count.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let ran = text.split_whitespace().next();
        let ran = ran.and_then(|ran| ran.parse().ok()).context("schedstat")?;
        cpu += Duration::from_nanos(ran);
    }
    cpu += of_children(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |key: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    Ok(Taken {
        cpu,
        rss: mib("VmHWM:").context("VmHWM")?,
    })
}
