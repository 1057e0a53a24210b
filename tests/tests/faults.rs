//! A bad wire: what is lost, doubled, damaged, late or cut off harms nothing but itself, and
//! nothing of it is left when it is well again. The kernel's VXLAN is the measure.

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, ensure};
use nix::sys::signal::Signal;
use overlay_common::{
    maps::{DROPS, ENDPOINTS4, NETWORKS, PEERS4, PORTS, VTEPS4},
    wire,
};
use overlay_tests::{
    check::{self, Answer},
    counters,
    faults::{self, Fault, Faulty},
    guard::Guard,
    netns, poll, raw, run, scenario,
    script::{Step, inside, words},
    shape::{Scenario, Shape},
    snapshot::Snapshot,
    topology::{Container, UNDERLAY},
    traffic::Pair,
};
use serde_json::Value;

const PINGS: u64 = 40;
/// Long enough for a neighbour to be taken for gone.
const PARTITION: Duration = Duration::from_secs(8);
/// How long an answer is waited for that is not expected.
const MOMENT: Duration = Duration::from_millis(200);
/// How long a process may take to be gone.
const GRACE: Duration = Duration::from_secs(20);

/// Who carries packets between the nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Fast,
    Slow,
    /// No agent at all: the kernel's VXLAN, which sends no checksums either.
    Kernel,
}

/// Three nodes with a container each at a switch, and what they were like when all was well.
struct Stand {
    guard: Guard,
    path: Path,
    before: Vec<Snapshot>,
    maps: Vec<Vec<Value>>,
}

impl Stand {
    fn raise(name: &str, path: Path) -> Result<Self> {
        let scenario = match path {
            Path::Fast | Path::Slow => Scenario::Overlay,
            Path::Kernel => Scenario::Vxlan,
        };
        let shape = Shape::new(name.parse()?, scenario, Some(3), Some(1))?.on_port(wire::IANA_PORT);
        let guard = Guard::by(shape, |topology, agent| {
            let mut script = scenario::up(topology, agent);
            script.reword(|argv| {
                if argv.iter().any(|word| word == "vxlan") {
                    argv.push("noudpcsum".to_owned());
                }
            });
            script
        })?;
        faults::plain_frames(guard.topology(), UNDERLAY)?;
        if path == Path::Slow {
            guard
                .agents()
                .iter()
                .try_for_each(|agent| agent.fastpath(false))?;
        }
        let mut stand = Self {
            guard,
            path,
            before: Vec::new(),
            maps: Vec::new(),
        };
        stand.reaches_everyone()?;
        stand.before = stand.snapshots()?;
        stand.maps = stand.maps()?;
        Ok(stand)
    }

    fn container(&self, node: usize) -> &Container {
        &self.guard.topology().nodes[node].containers[0]
    }

    /// The one who asks, and the one who answers, behind the bad wire.
    fn pair(&self) -> Pair<'_> {
        Pair {
            client: &self.container(0).namespace,
            server: &self.container(1).namespace,
            address: self.container(1).address.into(),
        }
    }

    /// Makes the wire to the second node faulty.
    fn fault(&self, fault: Fault) -> Result<Faulty> {
        self.fault_towards(1, fault)
    }

    fn fault_towards(&self, node: usize, fault: Fault) -> Result<Faulty> {
        let topology = self.guard.topology();
        Ok(Faulty::towards(topology, &topology.nodes[node], fault)?)
    }

    fn reaches_everyone(&self) -> Result<()> {
        let matrix = check::all_pairs(self.guard.topology())?;
        assert_eq!(matrix.faults(), Vec::<String>::new(), "\n{matrix}");
        Ok(())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let nodes = self.guard.topology().nodes.iter();
        Ok(nodes
            .map(|node| Snapshot::of(&node.namespace))
            .collect::<Result<_, _>>()?)
    }

    /// What the programs look up, on each node that has them.
    fn maps(&self) -> Result<Vec<Vec<Value>>> {
        let of = |instance: &str| -> Result<Vec<Value>> {
            let mut entries = Vec::new();
            for map in [NETWORKS, PEERS4, VTEPS4, ENDPOINTS4, PORTS] {
                let mut found = counters::dump(instance, map)?;
                found.sort_by_key(ToString::to_string);
                entries.extend(found);
            }
            Ok(entries)
        };
        let agents = self.guard.agents();
        agents.iter().map(|agent| of(&agent.instance)).collect()
    }

    /// What the second node has received and sent by the fast path, and the drops of all.
    fn carried_by_second(&self) -> Result<(u64, u64)> {
        let carried = counters::carried(&self.guard.agent(2).instance)?;
        Ok((carried.received, carried.sent))
    }

    /// Everything is as it was before the fault, from the first packet on.
    fn is_unharmed(&self) -> Result<()> {
        let answer = check::ping(&self.container(0).namespace, self.container(1).address)?;
        assert!(
            matches!(answer, Answer::Ttl(_)),
            "{:?}: {answer:?}",
            self.path
        );
        self.reaches_everyone()?;
        for (now, before) in self.snapshots()?.iter().zip(&self.before) {
            let changes = now.changes_since(before);
            assert!(changes.lines.is_empty(), "{:?}: {changes}", self.path);
        }
        assert_eq!(self.maps()?, self.maps, "{:?}", self.path);
        for agent in self.guard.agents() {
            assert_eq!(agent.plan()?, Vec::<Value>::new(), "{:?}", self.path);
        }
        self.pair().tcp(&[1 << 20])?;
        Ok(())
    }
}

/// What `ping` said of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pings {
    answered: u64,
    doubled: u64,
}

fn pings(stand: &Stand) -> Result<Pings> {
    let to = stand.container(1).address;
    let line = format!("ping -n -q -c {PINGS} -i 0.02 -W 1 {to}");
    let out = run::output(&words(inside(&stand.container(0).namespace, line)))?;
    let number_before = |what: &str| -> Option<u64> {
        let (before, _) = out.stdout.split_once(what)?;
        before
            .rsplit([' ', '+', ','])
            .find(|word| !word.is_empty())?
            .parse()
            .ok()
    };
    Ok(Pings {
        answered: number_before(" received").context(out.stdout.clone())?,
        doubled: number_before(" duplicates").unwrap_or_default(),
    })
}

fn on_all_paths(name: &str, test: impl Fn(&Stand) -> Result<()>) -> Result<()> {
    for (path, letter) in [(Path::Kernel, 'k'), (Path::Fast, 'f'), (Path::Slow, 's')] {
        let stand = Stand::raise(&format!("{name}{letter}"), path)?;
        test(&stand).with_context(|| format!("{path:?}"))?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn what_is_lost_is_lost_once() -> Result<()> {
    on_all_paths("tloss", |stand| {
        let fault = stand.fault(Fault::Loss(3))?;
        let before = (stand.path == Path::Fast).then(|| stand.carried_by_second());
        let seen = pings(stand)?;
        assert!(
            (1..PINGS).contains(&seen.answered) && seen.doubled == 0,
            "{seen:?}"
        );
        if let Some(before) = before.transpose()? {
            let now = stand.carried_by_second()?;
            // What arrived was answered, and every answer came back.
            let counted = (now.0 - before.0, now.1 - before.1);
            assert_eq!(counted, (seen.answered, seen.answered));
        }
        drop(fault);
        let there = stand.fault(Fault::Loss(50))?;
        let back = stand.fault_towards(0, Fault::Loss(50))?;
        stand.pair().tcp(&[4 << 20])?;
        drop((there, back));
        stand.is_unharmed()
    })
}

#[test]
fn what_arrives_twice_counts_twice() -> Result<()> {
    on_all_paths("tdouble", |stand| {
        let fault = stand.fault(Fault::Duplication)?;
        let before = (stand.path == Path::Fast).then(|| stand.carried_by_second());
        let seen = pings(stand)?;
        // `ping` ends with the last answer, and does not wait for that one's double.
        assert_eq!(seen.answered, PINGS);
        assert!((PINGS - 1..=PINGS).contains(&seen.doubled), "{seen:?}");
        if let Some(before) = before.transpose()? {
            let counted = || -> Result<_> {
                let now = stand.carried_by_second()?;
                Ok((now.0 - before.0, now.1 - before.1))
            };
            poll::until_well(|| {
                let counted = counted().map_err(|error| error.to_string());
                (counted != Ok((2 * PINGS, 2 * PINGS))).then(|| format!("{counted:?}"))
            })
            .map_err(Error::msg)?;
        }
        stand.pair().tcp(&[4 << 20])?;
        drop(fault);
        stand.is_unharmed()
    })
}

#[test]
fn what_is_late_arrives_all_the_same() -> Result<()> {
    const DATAGRAMS: u32 = 500;
    const LENGTH: usize = 1000;
    on_all_paths("tlate", |stand| {
        let fault = stand.fault(Fault::Reordering(4))?;
        let to = stand.container(1);
        let server = netns::inside(&to.namespace, || UdpSocket::bind((to.address, 9)))??;
        let client = netns::inside(&stand.container(0).namespace, || {
            UdpSocket::bind((stand.container(0).address, 0))
        })??;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let receive = || -> Result<Vec<u32>> {
            let mut datagram = [0; LENGTH];
            let mut numbers = Vec::new();
            for _ in 0..DATAGRAMS {
                server.recv(&mut datagram)?;
                let number = datagram.first_chunk().context("it is longer")?;
                numbers.push(u32::from_be_bytes(*number));
            }
            Ok(numbers)
        };
        let numbers = thread::scope(|scope| -> Result<_> {
            let receiver = scope.spawn(receive);
            for number in 0..DATAGRAMS {
                let mut datagram = [0; LENGTH];
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                client.send_to(&datagram, (to.address, 9))?;
                // No queue is long enough for all of them at once.
                thread::sleep(Duration::from_micros(100));
            }
            receiver
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let overtaken = numbers.windows(2).filter(|two| two[0] > two[1]).count();
        assert!(overtaken > 0, "the wire kept the order");
        let all: BTreeSet<u32> = numbers.into_iter().collect();
        assert!(all.into_iter().eq(0..DATAGRAMS));
        stand.pair().tcp(&[4 << 20])?;
        drop(fault);
        stand.is_unharmed()
    })
}

/// Which of the bytes of a tunnel packet can be damaged so that a ping is still answered.
fn harmless_bytes(stand: &Stand) -> Result<Vec<u16>> {
    /// From the outer Ethernet header to the data of an echo request.
    const LAST: u16 = 14 + 20 + 8 + 8 + 14 + 20 + 8 + 16;
    let (from, to) = (&stand.container(0).namespace, stand.container(1).address);
    let mut harmless = Vec::new();
    for place in 0..LAST {
        let _fault = stand.fault(Fault::Corruption(place))?;
        let answer = check::ping_for(from, to.into(), MOMENT)?;
        if matches!(answer, Answer::Ttl(_)) {
            harmless.push(place);
        }
    }
    Ok(harmless)
}

#[test]
fn what_is_damaged_is_dropped_where_the_kernel_drops_it() -> Result<()> {
    let reference = Stand::raise("tdmgk", Path::Kernel)?;
    let expected = harmless_bytes(&reference)?;
    reference.is_unharmed()?;
    reference.guard.down()?;
    for (path, name) in [(Path::Fast, "tdmgf"), (Path::Slow, "tdmgs")] {
        let stand = Stand::raise(name, path)?;
        assert_eq!(harmless_bytes(&stand)?, expected, "{path:?}");
        stand.is_unharmed()?;
        let fault = stand.fault(Fault::RareCorruption(200, 50))?;
        stand.pair().tcp(&[2 << 20])?;
        drop(fault);
        stand.is_unharmed()?;
        stand.guard.down()?;
    }
    Ok(())
}

#[test]
fn what_was_cut_off_is_back_with_the_wire() -> Result<()> {
    on_all_paths("tpart", |stand| {
        let there = stand.fault(Fault::Partition)?;
        let back = stand.fault_towards(0, Fault::Partition)?;
        let (from, to) = (&stand.container(0).namespace, stand.container(1).address);
        let until = Instant::now() + PARTITION;
        while Instant::now() < until {
            let answer = check::ping_for(from, to.into(), Duration::from_secs(1))?;
            assert!(matches!(answer, Answer::None(_)), "{answer:?}");
        }
        drop((there, back));
        stand.is_unharmed()
    })
}

/// Ends the second node as a power failure does, and makes it anew; a machine with another
/// card has another MAC.
fn reboot(stand: &Stand, keeps_its_card: bool) -> Result<()> {
    let (guard, topology) = (&stand.guard, stand.guard.topology());
    let node = &topology.nodes[1];
    let mac = raw::mac_of(&node.namespace, UNDERLAY)?;
    let agent = guard.agent(2);
    if let Some(process) = agent.process()? {
        process.signal(Signal::SIGKILL)?;
        assert!(process.wait(Instant::now() + GRACE));
    }
    let own = [&node.namespace, &node.containers[0].namespace];
    // At once, while that of a namespace goes some time later.
    run::checked(&words(format!(
        "ip -n {} link del {UNDERLAY}",
        node.namespace
    )))?;
    for namespace in own {
        run::checked(&words(format!("ip netns del {namespace}")))?;
    }
    for folder in ["/sys/fs/bpf/overlay", "/run/overlay"] {
        run::checked(&words(format!("rm -rf {folder}/{}", agent.instance)))?;
    }

    let port = format!("n{}", node.number);
    // A namespace is named alone, or at the end of its path.
    let is_own = |argv: &[String]| {
        let mut names = argv.iter().map(|word| word.rsplit('/').next());
        names.any(|name| own.iter().any(|own| name == Some(own)) || name == Some(&port))
    };

    let script = match stand.path {
        Path::Kernel => scenario::up(topology, &overlay_tests::lab::agent_program()),
        Path::Fast | Path::Slow => scenario::underlay(topology),
    };
    let steps = script
        .sections
        .into_iter()
        .flat_map(|section| section.steps);
    for step in steps {
        let Step::Run(argv) = step else { continue };
        if !is_own(&argv) {
            continue;
        }
        run::checked(&argv)?;
        if keeps_its_card && argv.iter().any(|word| word == "veth") && argv.contains(&port) {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            run::checked(&words(format!(
                "ip -n {} link set {UNDERLAY} address {mac}",
                node.namespace
            )))?;
        }
    }
    is_plugged_in(stand, &port)?;
    if stand.path != Path::Kernel {
        agent.start()?;
        agent.fastpath(stand.path == Path::Fast)?;
    }
    Ok(())
}

/// Waits until the switch has noticed the cable.
fn is_plugged_in(stand: &Stand, port: &str) -> Result<()> {
    let switch = stand.guard.topology().shape.name.switch();
    let look = words(format!("bridge -n {switch} link show dev {port}"));
    poll::until_well(|| match run::checked(&look) {
        Ok(state) if state.contains("state forwarding") => None,
        other => Some(format!("{other:?}")),
    })
    .map_err(Error::msg)
}

fn is_reached_after_a_reboot(name: &str, keeps_its_card: bool) -> Result<()> {
    on_all_paths(name, |stand| {
        reboot(stand, keeps_its_card)?;
        if !keeps_its_card {
            // The others learn of a card from the first that it asks for anybody's MAC.
            let nodes = &stand.guard.topology().nodes;
            let answer = check::ping(&nodes[1].namespace, nodes[0].underlay)?;
            ensure!(matches!(answer, Answer::Ttl(_)), "underlay: {answer:?}");
        }
        let answer = check::ping(&stand.container(0).namespace, stand.container(1).address)?;
        ensure!(matches!(answer, Answer::Ttl(_)), "{answer:?}");
        stand.reaches_everyone()?;
        stand.pair().tcp(&[1 << 20])?;
        for agent in stand.guard.agents() {
            assert_eq!(agent.plan()?, Vec::<Value>::new());
            assert_eq!(counters::reasons(&agent.instance, DROPS)?, Vec::new());
        }
        Ok(())
    })
}

#[test]
fn a_peer_that_rebooted_is_reached_at_once() -> Result<()> {
    is_reached_after_a_reboot("tboot", true)
}

#[test]
fn a_peer_with_another_card_is_reached_as_soon_as_it_says_anything() -> Result<()> {
    is_reached_after_a_reboot("tcard", false)
}
