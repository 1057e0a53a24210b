//! Two nodes, their keys, and the wire between them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    check::{self, Answer},
    counters,
    families::Family,
    frames::{self, Ip, ethernet},
    guard::Guard,
    poll,
    raw::{self, Socket},
    run, scenario,
    topology::{UNDERLAY, VNI},
    traffic::Pair,
};

/// The first flag of a VXLAN header.
const I_FLAG: u32 = 1 << 27;

/// The containers of both nodes.
pub(crate) fn both(guard: &Guard) -> Pair<'_> {
    let nodes = &guard.topology().nodes;
    Pair::between(&nodes[0].containers[0], &nodes[1].containers[0], Family::V4)
}

/// A node's public key.
pub(crate) fn key_of(guard: &Guard, node: u8) -> Result<String> {
    Ok(guard.agent(node).tell(&["key"])?.trim().to_owned())
}

/// Has a node encrypt for its peer with this key.
pub(crate) fn with_key(guard: &Guard, node: u8, key: &str) -> Result<()> {
    with_keys(guard, node, key, None)
}

/// The same while the peer is about to have another one.
pub(crate) fn with_keys(guard: &Guard, node: u8, key: &str, next: Option<&str>) -> Result<()> {
    let next = next.map_or_else(String::new, |next| {
        format!("\nnext_public_key = \"{next}\"")
    });
    let described = &guard.topology().nodes[usize::from(node) - 1];
    let text = scenario::agents::config(guard.topology(), described).to_toml();
    let encrypted = text
        .replace("port = 4789", "port = 4789\nencryption = \"wireguard\"")
        .replace(
            "[[networks.peers]]",
            &format!("[[networks.peers]]\npublic_key = \"{key}\"{next}"),
        );
    anyhow::ensure!(encrypted.contains("wireguard") && encrypted.contains(key));
    fs::write(guard.agent(node).config_file(), encrypted)?;
    Ok(())
}

/// Has both nodes encrypt.
pub(crate) fn encrypt(guard: &Guard) -> Result<()> {
    for node in [1, 2] {
        with_key(guard, node, &key_of(guard, 3 - node)?)?;
    }
    Ok(())
}

/// Waits until both agents are content, and the programs carry what each container sends to the other.
pub(crate) fn flows_fast(guard: &Guard, after: &str) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (one, two) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let complaint = || -> Result<Option<String>> {
        for agent in guard.agents() {
            let status = agent.ask(&["status"])?;
            if !status.success {
                return Ok(Some(status.stdout + &status.stderr));
            }
            let plan = agent.plan()?;
            if !plan.is_empty() {
                return Ok(Some(format!("{}: {plan:?}", agent.instance)));
            }
        }
        let count = || -> Result<Vec<u64>> {
            let agents = guard.agents();
            let carried = agents.iter().map(|agent| {
                let carried = counters::carried(&agent.instance)?;
                Ok(carried.received)
            });
            carried.collect()
        };
        let before = count()?;
        for (from, to) in [(one, two), (two, one)] {
            if let Answer::None(why) = check::ping(&from.namespace, to.address)? {
                return Ok(Some(format!("{} → {}: {why}", from.namespace, to.address)));
            }
        }
        let after = count()?;
        let by_kernel = before
            .iter()
            .zip(&after)
            .any(|(before, after)| after <= before);
        Ok(by_kernel.then(|| format!("by the kernel: {before:?} {after:?}")))
    };
    let flowing =
        poll::until_well(|| complaint().unwrap_or_else(|error| Some(format!("{error:#}"))));
    let logs = guard.agent(1).log()? + &guard.agent(2).log()?;
    assert_eq!(flowing, Ok(()), "after {after}\n{logs}");
    Ok(())
}

/// What passes the first node's cable, frame by frame.
pub(crate) struct Wire {
    ends: Arc<AtomicBool>,
    frames: JoinHandle<overlay_tests::error::Result<Vec<Vec<u8>>>>,
}

/// What has passed.
pub(crate) struct Seen(Vec<Vec<u8>>);

impl Wire {
    pub(crate) fn open(guard: &Guard) -> Result<Self> {
        let socket = Socket::open(&guard.topology().nodes[0].namespace, UNDERLAY)?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let frames = thread::spawn(move || {
            let mut frames = Vec::new();
            loop {
                // What is still to be read when it ends, is read.
                let last = told.load(Ordering::Relaxed);
                while let Some(frame) = socket.receive(Duration::from_millis(100), |_| true)? {
                    frames.push(frame);
                }
                if last {
                    return Ok(frames);
                }
            }
        });
        Ok(Self { ends, frames })
    }

    pub(crate) fn close(self) -> Result<Seen> {
        self.ends.store(true, Ordering::Relaxed);
        let frames = self.frames.join();
        let frames = frames.map_err(|_| anyhow::anyhow!("the thread that listens panicked"))?;
        Ok(Seen(frames?))
    }
}

impl Seen {
    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        let mut frames = self.0.iter();
        frames.any(|frame| frame.windows(bytes.len()).any(|window| window == bytes))
    }

    /// The packets of IPv4, each with its protocol and, of UDP, the port that it is for.
    pub(crate) fn packets(&self) -> Vec<(u8, Option<u16>)> {
        const IPV4: [u8; 2] = frames::ethertype::IPV4.to_be_bytes();
        let packets = self
            .0
            .iter()
            .filter(|frame| frame.get(12..14) == Some(&IPV4));
        let told = packets.filter_map(|frame| {
            let ip = frame.get(14..)?;
            let header = usize::from(ip.first()? & 0xf) * 4;
            let protocol = *ip.get(9)?;
            let port = ip.get(header + 2..header + 4)?;
            let port = u16::from_be_bytes(port.try_into().ok()?);
            Some((
                protocol,
                (protocol == frames::protocol::UDP).then_some(port),
            ))
        });
        told.collect()
    }
}

/// Has a packet of a tunnel arrive at the first node that the second one has not encrypted, past
/// whatever the second one's kernel thinks of that.
pub(crate) fn inject(guard: &Guard) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (to, from) = (&nodes[0], &nodes[1]);
    let inner = Ip::new(
        from.containers[0].address.into(),
        to.containers[0].address.into(),
    );
    let mac = |node: &overlay_tests::topology::Node| {
        let [a, b, c, d] = node.underlay.octets();
        [0x02, 0x4f, a, b, c, d]
    };
    let frame = ethernet(
        mac(to),
        mac(from),
        inner.ethertype(),
        &inner.around_udp(1000, 9, b"in the clear"),
    );
    let outer = Ip::new(from.underlay.into(), to.underlay.into());
    let datagram = frames::udp(50_000, 4789, 0, &frames::vxlan(I_FLAG, VNI << 8, &frame));
    let packet = ethernet(
        raw::mac_of(&to.namespace, UNDERLAY)?,
        raw::mac_of(&from.namespace, UNDERLAY)?,
        outer.ethertype(),
        &Ip {
            protocol: frames::protocol::UDP,
            ..outer
        }
        .around(&datagram),
    );
    let socket = Socket::open(&from.namespace, UNDERLAY)?;
    Ok(socket.send(&packet)?)
}

/// Sends one from a socket of the second node.
pub(crate) fn send_plainly(guard: &Guard) -> Result<run::Output> {
    let nodes = &guard.topology().nodes;
    let (to, from) = (nodes[0].underlay, &nodes[1]);
    let send = format!(
        "printf '\\10\\0\\0\\0\\0\\0\\1\\0in the clear' | socat - UDP4-SENDTO:{to}:4789,bind={}",
        from.underlay
    );
    let argv = ["ip", "netns", "exec", &from.namespace, "sh", "-c", &send];
    run::output(argv.map(str::to_owned)).context("send in the clear")
}
