//! All that a node's programs have counted, read from the pinned maps, and the sums that hold.

use std::{collections::BTreeMap, ops::Sub, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapInfo, PerCpuArray, PerCpuHashMap};
use bytemuck::{Pod, cast_slice, cast_slice_mut, checked};
use overlay_common::{
    maps::{
        Count, DROPS, DROPS_BY_SENDER, ENDPOINT_STATS, EndpointStats, FIRST_ENDPOINT_SLOT,
        LOCAL_INDEX, NODE_SLOT, PASSES, PASSES_BY_PEER, PEER_STATS, PassedKey, PeerStats,
        SenderKey, SenderKind,
    },
    programs::Program,
    reasons::{DropReason, Drops, PassReason, Passes},
};
use overlay_tests::{agent::Agent, counters, run};
use serde_json::Value;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// The counters of one moment, or what was counted between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// How often the kernel ran each program while it was asked to count that.
    runs: BTreeMap<Program, u64>,
    drops: BTreeMap<(Program, DropReason), Sum>,
    passes: BTreeMap<(Program, PassReason), Sum>,
    peers: BTreeMap<(u32, &'static str), Sum>,
    endpoints: BTreeMap<(u32, &'static str), Sum>,
    senders: BTreeMap<SenderKey, Sum>,
    passed_by_peer: BTreeMap<PassedKey, Sum>,
}

impl Ledger {
    /// Reads all of it at one moment: one at which nothing is under way.
    pub(crate) fn of(agent: &Agent) -> Result<Self> {
        let programs = programs(&agent.instance)?;
        let read = || -> Result<Self> {
            let mut ledger = Self::counted(&agent.instance)?;
            ledger.runs = runs(&programs)?;
            Ok(ledger)
        };
        // Twice the same: the runs alone stand still where the kernel was not asked to count them.
        let mut before = read()?;
        for _ in 0..100 {
            let now = read()?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        bail!("there is always a packet under way");
    }

    fn counted(instance: &str) -> Result<Self> {
        let mut ledger = Self::default();
        let drops = slots::<Drops>(instance, DROPS)?;
        let passes = slots::<Passes>(instance, PASSES)?;
        for program in Program::ALL {
            let drops = drops.get(program as usize).context("a slot of drops")?;
            let passes = passes.get(program as usize).context("a slot of passes")?;
            let drops = DropReason::ALL
                .iter()
                .map(|&reason| ((program, reason), drops.of(reason).into()));
            ledger.drops.extend(drops);
            let passes = PassReason::ALL
                .iter()
                .map(|&reason| ((program, reason), passes.of(reason).into()));
            ledger.passes.extend(passes);
        }
        for (slot, stats) in (0..).zip(slots::<PeerStats>(instance, PEER_STATS)?) {
            let counts = [
                ("tx", stats.tx),
                ("rx", stats.rx),
                ("dropped", stats.dropped),
            ];
            insert(&mut ledger.peers, slot, &counts);
        }
        for (slot, stats) in (0..).zip(slots::<EndpointStats>(instance, ENDPOINT_STATS)?) {
            let counts = [
                ("tx", stats.tx),
                ("tx_local", stats.tx_local),
                ("rx", stats.rx),
                ("rx_local", stats.rx_local),
                ("passed", stats.passed),
                ("dropped", stats.dropped),
            ];
            insert(&mut ledger.endpoints, slot, &counts);
        }
        let senders = rows::<[u32; 3]>(instance, DROPS_BY_SENDER)?;
        let senders = senders.into_iter();
        ledger.senders = senders
            .map(|(key, sum)| (checked::cast(key), sum))
            .collect();
        let of_peers = rows::<[u32; 2]>(instance, PASSES_BY_PEER)?.into_iter();
        ledger.passed_by_peer = of_peers
            .map(|(key, sum)| (checked::cast(key), sum))
            .collect();
        Ok(ledger)
    }

    /// What was counted since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            runs: less(&self.runs, &before.runs),
            drops: less(&self.drops, &before.drops),
            passes: less(&self.passes, &before.passes),
            peers: less(&self.peers, &before.peers),
            endpoints: less(&self.endpoints, &before.endpoints),
            senders: less(&self.senders, &before.senders),
            passed_by_peer: less(&self.passed_by_peer, &before.passed_by_peer),
        }
    }

    /// Packets that went through the programs.
    pub(crate) fn packets(&self) -> u64 {
        self.runs.values().sum()
    }

    /// Asserts that peers, endpoints, programs and reasons tell of the same packets and bytes.
    pub(crate) fn sums_must_hold(&self, node: &str) {
        let endpoints = |counter| sum(&self.endpoints, |&(_, name)| name == counter);
        let peers = |counter| {
            sum(&self.peers, |&(slot, name)| {
                name == counter && slot != LOCAL_INDEX
            })
        };
        assert_eq!(endpoints("tx"), peers("tx"), "{node}: sent");
        assert_eq!(endpoints("rx"), peers("rx"), "{node}: received");
        let local = self.peer(LOCAL_INDEX, "tx");
        assert_eq!(endpoints("tx_local"), local, "{node}: sent here");
        assert_eq!(endpoints("rx_local"), local, "{node}: received here");
        let left_by = |counts: Sum, counter| {
            assert_eq!(endpoints(counter), counts, "{node}: {counter}");
        };
        let is_egress = |program| matches!(program, Program::FromEndpoint | Program::FromHost);
        let has_port = |reason| reason != PassReason::UnknownPort;
        left_by(
            sum(&self.passes, |&(program, reason)| {
                is_egress(program) && has_port(reason)
            }),
            "passed",
        );
        left_by(
            sum(&self.drops, |&(program, _)| is_egress(program)),
            "dropped",
        );
        self.senders_must_add_up(node);
        self.passes_by_peer_must_add_up(node);
    }

    /// What is left to the kernel for these reasons has been found to be a peer's.
    fn passes_by_peer_must_add_up(&self, node: &str) {
        const AFTER_THE_SENDER: [PassReason; 6] = [
            PassReason::UnverifiedChecksum,
            PassReason::NodeAddress,
            PassReason::ForeignMac,
            PassReason::TtlExpired,
            PassReason::NotResizable,
            PassReason::Translated,
        ];
        for &reason in PassReason::ALL {
            let known = sum(&self.passed_by_peer, |key| key.reason == reason);
            let all = self.passed(Program::FromUnderlay, reason);
            assert!(known.packets <= all.packets, "{node}: {}", reason.name());
            if AFTER_THE_SENDER.contains(&reason) {
                assert_eq!(known, all, "{node}: {}", reason.name());
            }
        }
    }

    /// Asserts of each program that runs = delivered + passed + dropped.
    pub(crate) fn programs_must_add_up(&self, node: &str) {
        for (&program, &runs) in &self.runs {
            let of_program = sum(&self.passes, |&(other, _)| other == program).packets
                + sum(&self.drops, |&(other, _)| other == program).packets;
            let delivered = sum(&self.endpoints, |&(slot, counter)| {
                let from_node = slot == NODE_SLOT;
                match program {
                    Program::FromEndpoint => counter.starts_with("tx") && !from_node,
                    Program::FromHost => counter == "tx" && from_node,
                    Program::FromUnderlay => counter == "rx",
                    Program::UnderlayGuard => false,
                }
            });
            if program != Program::UnderlayGuard {
                let exits = delivered.packets + of_program;
                assert_eq!(exits, runs, "{node}: {}", program.name());
            }
        }
    }

    /// Drops of known senders are those of the endpoints and of the peers, each by reason.
    fn senders_must_add_up(&self, node: &str) {
        for (&(slot, counter), &dropped) in &self.endpoints {
            if counter == "dropped" {
                let by_reason = sum(&self.senders, |key| {
                    key.kind == SenderKind::Endpoint && key.slot == slot
                });
                assert_eq!(by_reason, dropped, "{node}: endpoint {slot}");
            }
        }
        for (&(slot, counter), &dropped) in &self.peers {
            if counter == "dropped" {
                let by_reason = sum(&self.senders, |key| {
                    key.kind == SenderKind::Peer && key.slot == slot
                });
                assert_eq!(by_reason, dropped, "{node}: peer {slot}");
            }
        }
        for &reason in DropReason::ALL {
            let known = sum(&self.senders, |key| key.reason == reason);
            let all = self.dropped(reason);
            if reason == DropReason::UnknownVtep {
                assert_eq!(known, Sum::default(), "{node}: {}", reason.name());
            } else {
                assert_eq!(known, all, "{node}: {}", reason.name());
            }
        }
    }

    /// A counter of a peer.
    pub(crate) fn peer(&self, slot: u32, counter: &'static str) -> Sum {
        self.peers
            .get(&(slot, counter))
            .copied()
            .unwrap_or_default()
    }

    /// A counter of an endpoint.
    pub(crate) fn endpoint(&self, slot: u32, counter: &'static str) -> Sum {
        self.endpoints
            .get(&(slot, counter))
            .copied()
            .unwrap_or_default()
    }

    /// Drops for a reason, by whatever program.
    pub(crate) fn dropped(&self, reason: DropReason) -> Sum {
        sum(&self.drops, |&(_, other)| other == reason)
    }

    /// Drops of a sender for a reason.
    pub(crate) fn dropped_of(&self, kind: SenderKind, slot: u32, reason: DropReason) -> Sum {
        let key = SenderKey { kind, slot, reason };
        self.senders.get(&key).copied().unwrap_or_default()
    }

    /// Passes of a program for a reason.
    pub(crate) fn passed(&self, program: Program, reason: PassReason) -> Sum {
        self.passes
            .get(&(program, reason))
            .copied()
            .unwrap_or_default()
    }

    /// Sums over everybody that never shrink, whoever comes and goes.
    pub(crate) fn of_endpoints(&self, counter: &str) -> Sum {
        sum(&self.endpoints, |&(slot, name)| {
            name == counter && slot != NODE_SLOT
        })
    }

    /// The endpoints' slots in which something was counted.
    pub(crate) fn used_slots(&self) -> Vec<u32> {
        let used = self.endpoints.iter().filter(|((slot, counter), sum)| {
            *slot >= FIRST_ENDPOINT_SLOT && *counter == "tx" && sum.packets > 0
        });
        used.map(|((slot, _), _)| *slot).collect()
    }
}

impl From<Count> for Sum {
    fn from(Count { packets, bytes }: Count) -> Self {
        Self { packets, bytes }
    }
}

impl Sub for Sum {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

fn insert(
    into: &mut BTreeMap<(u32, &'static str), Sum>,
    slot: u32,
    counts: &[(&'static str, Count)],
) {
    for &(name, count) in counts
        .iter()
        .filter(|(_, count)| *count != Count::default())
    {
        into.insert((slot, name), count.into());
    }
}

fn sum<K>(counts: &BTreeMap<K, Sum>, wanted: impl Fn(&K) -> bool) -> Sum {
    let wanted = counts.iter().filter(|(key, _)| wanted(key));
    wanted.fold(Sum::default(), |sum, (_, count)| Sum {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

fn less<K: Ord + Copy, V: Sub<Output = V> + Copy + Default>(
    now: &BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let counts = now.iter();
    counts
        .map(|(key, &now)| (*key, now - before.get(key).copied().unwrap_or_default()))
        .collect()
}

fn open(pin: &Path) -> Result<Map> {
    Ok(Map::from_map_data(MapData::from_pin(pin)?)?)
}

/// The rows of a map of counters, all CPUs together.
fn rows<K: aya::Pod>(instance: &str, map: &str) -> Result<Vec<(K, Sum)>> {
    let map = PerCpuHashMap::<_, K, Count>::try_from(open(&counters::pin(instance, map)?)?)?;
    map.iter()
        .map(|row| row.map(|(key, cpus)| (key, total(&cpus).into())))
        .collect::<Result<_, _>>()
        .map_err(Into::into)
}

/// The values of a map of counters, slot by slot, all CPUs together.
fn slots<V: aya::Pod + Pod + Default>(instance: &str, map: &str) -> Result<Vec<V>> {
    let array = PerCpuArray::<_, V>::try_from(open(&counters::pin(instance, map)?)?)?;
    array.iter().map(|cpus| Ok(total(&cpus?))).collect()
}

fn total<V: Pod + Default>(cpus: &[V]) -> V {
    let mut total = [V::default()];
    for cpu in cpus {
        let counts: &[u64] = cast_slice(std::slice::from_ref(cpu));
        let sums: &mut [u64] = cast_slice_mut(&mut total);
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }
    total[0]
}

/// The programs that count in an instance's maps.
fn programs(instance: &str) -> Result<BTreeMap<Program, Vec<u64>>> {
    let map = MapInfo::from_pin(counters::pin(instance, ENDPOINT_STATS)?)?.id();
    let mut found = BTreeMap::new();
    for shown in bpftool("prog show")?.as_array().context("a list")? {
        let maps = shown["map_ids"].as_array();
        let counts = maps.is_some_and(|maps| maps.iter().any(|id| *id == map));
        let program = Program::ALL
            .into_iter()
            .find(|program| shown["name"] == program.name());
        if let Some((program, id)) = program.zip(shown["id"].as_u64()).filter(|_| counts) {
            found.entry(program).or_insert_with(Vec::new).push(id);
        }
    }
    Ok(found)
}

fn runs(programs: &BTreeMap<Program, Vec<u64>>) -> Result<BTreeMap<Program, u64>> {
    let mut runs = BTreeMap::new();
    for (&program, ids) in programs {
        for id in ids {
            let shown = bpftool(&format!("prog show id {id}"))?;
            *runs.entry(program).or_default() += shown["run_cnt"].as_u64().unwrap_or(0);
        }
    }
    Ok(runs)
}

fn bpftool(arguments: &str) -> Result<Value> {
    let text = run::checked(format!("bpftool --json {arguments}"))?;
    Ok(serde_json::from_str(&text)?)
}
