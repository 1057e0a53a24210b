//! Instructions that a processor takes for a packet, where its clock counts them: in a machine
//! that `cargo xtask bench --icount` boots, whose nanoseconds are instructions.
//!
//! One processor does all: what sends a datagram carries it through both nodes into the socket of
//! the receiver, within the call that sends it. So nothing waits, and the time that passes is
//! the packet's.

use std::{
    env, io,
    net::{IpAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use overlay_common::programs;
use overlay_tests::{
    assembly::{EXIT, set},
    bpf::{Hook, Link, Program},
    counters,
    guard::Guard,
    lab, netns,
    run_time::{self, RunTime, Statistics},
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};
use serde_json::json;

/// What is said in front of each figure.
const MARK: &str = "icount: ";
/// Another build of the agent to count beside this one.
const BASELINE: &str = "OVERLAY_BASELINE";
/// Payloads: a small datagram's, and the longest of a packet that the tunnel takes whole.
const PAYLOADS: [usize; 2] = [64, 1_422];
/// Sent before they are received: they fit into the receiver's buffer.
const BATCH: u32 = 32;
/// Batches that are counted. The kernel's clock ticks in one of ten.
const BATCHES: usize = 41;
/// Batches until all that is made at the first packet, or the tenth, is made.
const WARM_UP: usize = 8;

/// Two sockets, and what is between them.
struct Ends<'a> {
    subject: &'a str,
    sender: UdpSocket,
    receiver: UdpSocket,
    /// Namespaces of the nodes, the sender's first.
    nodes: [&'a str; 2],
}

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Nodes,
    Containers,
}

impl<'a> Ends<'a> {
    fn open(guard: &'a Guard, subject: &'a str, between: Between) -> Result<Self> {
        let [one, two] = guard.topology().two_nodes();
        let (from, to, address) = match between {
            Between::Nodes => (&one.namespace, &two.namespace, two.underlay),
            Between::Containers => {
                let (from, to) = (&one.containers[0], &two.containers[0]);
                (&from.namespace, &to.namespace, to.address)
            }
        };
        let address = IpAddr::V4(address);
        let receiver = netns::inside(to, || UdpSocket::bind((address, 0)))??;
        let sender = netns::inside(from, || UdpSocket::bind("0.0.0.0:0"))??;
        sender.connect(receiver.local_addr()?)?;
        let ends = Self {
            subject,
            sender,
            receiver,
            nodes: [&one.namespace, &two.namespace],
        };
        ends.meet()?;
        Ok(ends)
    }

    /// Sends until one arrives: neighbours have to be found first.
    fn meet(&self) -> Result<()> {
        const TRIES: usize = 50;
        const PATIENCE: Duration = Duration::from_millis(200);
        self.receiver.set_read_timeout(Some(PATIENCE))?;
        let arrives = |_| self.sender.send(&[0]).is_ok() && self.receiver.recv(&mut [0]).is_ok();
        ensure!((0..TRIES).any(arrives), "{}: nothing arrives", self.subject);
        // What was waiting for a neighbour comes late.
        while self.receiver.recv(&mut [0]).is_ok() {}
        self.receiver.set_nonblocking(true)?;
        Ok(())
    }

    /// Instructions for each packet of a batch that is received.
    fn whole(&self, payload: usize) -> Result<f64> {
        let (sent, mut received) = (vec![0; payload], vec![0; payload]);
        let began = Instant::now();
        for _ in 0..BATCH {
            self.sender.send(&sent)?;
        }
        for _ in 0..BATCH {
            let length = self.receiver.recv(&mut received);
            let length = length.context("a datagram was not there when it had been sent")?;
            debug_assert_eq!(length, payload);
        }
        Ok(each(began.elapsed()))
    }

    /// The same, of a batch that ends at the other node's card.
    fn sent(&self, payload: usize) -> Result<f64> {
        let sent = vec![0; payload];
        let began = Instant::now();
        for _ in 0..BATCH {
            self.sender.send(&sent)?;
        }
        Ok(each(began.elapsed()))
    }

    /// Counts all of a payload, and tells it.
    fn count(&self, payload: usize) -> Result<()> {
        self.tell("whole", payload, || self.whole(payload))?;
        let wall = wall(self.nodes[1])?;
        self.tell("sent", payload, || self.sent(payload))?;
        drop(wall);
        let waiting = self.receiver.recv(&mut [0]);
        let none = waiting.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        ensure!(
            none,
            "{}: what was to end at the card arrived",
            self.subject
        );
        Ok(())
    }

    fn tell(&self, what: &str, payload: usize, batch: impl Fn() -> Result<f64>) -> Result<f64> {
        for _ in 0..WARM_UP {
            batch()?;
        }
        let mut counts = (0..BATCHES)
            .map(|_| batch())
            .collect::<Result<Vec<f64>>>()?;
        counts.sort_by(f64::total_cmp);
        let median = counts[BATCHES / 2];
        say(self.subject, what, payload, median);
        Ok(median)
    }

    /// Counts what the programs take, by the kernel's own statistics.
    fn count_programs(&self, payload: usize) -> Result<[f64; 2]> {
        let [one, two] = self.nodes;
        let programs = [
            (one, programs::FROM_ENDPOINT),
            (two, programs::FROM_UNDERLAY),
        ];
        let _statistics = Statistics::on()?;
        let mut each = [0.0; 2];
        for ((node, name), each) in programs.into_iter().zip(&mut each) {
            let id = run_time::find(node, name)?;
            let before = RunTime::of(id)?;
            for _ in 0..BATCHES {
                self.whole(payload)?;
            }
            let taken = RunTime::of(id)?.since(before).mean();
            *each = taken.with_context(|| format!("{name} did not run"))?;
            say(self.subject, name, payload, *each);
        }
        Ok(each)
    }
}

/// More than the programs took of a small datagram when this was written: 1,330, 1,137, and 13,801 the
/// whole way, on 6.12 and 7.2.
const MOST: [(&str, f64); 3] = [
    (programs::FROM_ENDPOINT, 1_600.0),
    (programs::FROM_UNDERLAY, 1_400.0),
    ("whole", 16_000.0),
];

/// A nanosecond is an instruction.
fn each(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e9 / f64::from(BATCH)
}

fn say(subject: &str, what: &str, payload: usize, instructions: f64) {
    let figure = json!({
        "subject": subject, "what": what, "payload": payload, "instructions": instructions,
    });
    println!("{MARK}{figure}");
}

/// Drops all that comes to a node's card, until the value goes.
fn wall(node: &str) -> Result<Link> {
    /// `TC_ACT_SHOT`
    const DROP: i32 = 2;
    netns::inside(node, || {
        let program = Program::load(&[set(0, DROP), EXIT])?;
        Ok(program.attach_first(if_nametoindex(UNDERLAY)?, Hook::Ingress)?)
    })?
}

fn raise(scenario: Scenario, agent: &Path) -> Result<Guard> {
    Ok(Guard::with_agent(Shape::usual("icount", scenario)?, agent)?)
}

fn count(guard: &Guard, subject: &str, between: Between) -> Result<()> {
    let ends = Ends::open(guard, subject, between)?;
    for payload in PAYLOADS {
        ends.count(payload)?;
    }
    Ok(())
}

/// An agent's nodes; the counters tell that it is the programs that carry.
fn count_agent(agent: &Path, subject: &str, without: Option<&str>) -> Result<()> {
    let guard = raise(Scenario::Overlay, agent)?;
    let [one, two] = [1, 2].map(|node| guard.agent(node));
    let carried = || {
        let (sent, received) = (
            counters::carried(&one.instance)?,
            counters::carried(&two.instance)?,
        );
        Ok::<_, anyhow::Error>([sent.sent, received.received])
    };
    let before = carried()?;
    count(&guard, subject, Between::Containers)?;
    let counted = u64::from(BATCH) * (BATCHES as u64) * (PAYLOADS.len() as u64);
    for (before, after) in before.into_iter().zip(carried()?) {
        ensure!(
            after >= before + counted,
            "{subject}: the programs do not carry"
        );
    }
    let ends = Ends::open(&guard, subject, Between::Containers)?;
    for payload in PAYLOADS {
        ends.count_programs(payload)?;
    }
    if let Some(without) = without {
        for agent in [one, two] {
            agent.fastpath(false)?;
        }
        count(&guard, without, Between::Containers)?;
    }
    Ok(guard.down()?)
}

#[test]
#[ignore = "it needs a machine whose clock counts instructions: cargo xtask bench --icount"]
fn per_packet() -> Result<()> {
    let agent = lab::agent_program();
    let guard = raise(Scenario::Direct, &agent)?;
    count(&guard, "bare", Between::Nodes)?;
    count(&guard, "direct", Between::Containers)?;
    guard.down()?;
    let guard = raise(Scenario::Vxlan, &agent)?;
    count(&guard, "vxlan", Between::Containers)?;
    guard.down()?;
    count_agent(&agent, "overlay", Some("overlay-off"))?;
    if let Some(baseline) = env::var_os(BASELINE) {
        count_agent(Path::new(&baseline), "baseline", None)?;
    }
    Ok(())
}

/// So coarse that it is about a path, not about a change.
#[test]
#[ignore = "it needs a machine whose clock counts instructions: cargo xtask bench --icount"]
fn a_small_datagram_takes_no_more_than_it_did() -> Result<()> {
    let guard = raise(Scenario::Overlay, &lab::agent_program())?;
    let ends = Ends::open(&guard, "overlay", Between::Containers)?;
    let whole = ends.tell("whole", PAYLOADS[0], || ends.whole(PAYLOADS[0]))?;
    let [encapsulates, decapsulates] = ends.count_programs(PAYLOADS[0])?;
    for (taken, (what, most)) in [encapsulates, decapsulates, whole].into_iter().zip(MOST) {
        assert!(
            taken <= most,
            "{what}: {taken:.0} instructions, {most} at most"
        );
    }
    Ok(guard.down()?)
}
