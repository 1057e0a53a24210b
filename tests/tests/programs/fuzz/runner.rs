//! Runs packets in batches, and compares what the programs did with what they counted.

use std::{fmt, ops::Sub};

use aya::{
    Ebpf, TestRun as _,
    maps::PerCpuArray,
    programs::{Program, ProgramError, SchedClassifier, TestRunOptions, TestRunResult, Xdp},
};
use overlay_common::{
    maps::{DROPS, PASSES, PEER_STATS, PeerStats},
    programs::{self, UNDERLAY_GUARD},
    reasons::{DropReason, Drops, PassReason, Passes},
};

use super::corpus::Input;
use crate::node::Node;

/// Slots of `PEER_STATS` that the node's peers have, and the one of local deliveries.
const SLOTS: u32 = 8;
/// Where `struct __sk_buff` of `linux/bpf.h` keeps `gso_size`, and its size.
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 192;
/// What the tunnel's headers may add, and more.
const ROOM: usize = 256;

/// Actions of `linux/pkt_cls.h`.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
/// Actions of `linux/bpf.h`.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Packets by the way they left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) passed: u64,
    pub(super) dropped: u64,
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            passed: self.passed - earlier.passed,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

pub(super) struct Runner {
    node: Node,
    output: Vec<u8>,
}

impl Runner {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            output: Vec::new(),
        }
    }

    /// Runs packets; says what they did that they should not.
    pub(super) fn batch(&mut self, inputs: &[Input]) -> Result<(), String> {
        let before = self.tally();
        let mut done = Tally::default();
        for input in inputs {
            self.run(input, &mut done)?;
        }
        let counted = self.tally() - before;
        if counted == done {
            Ok(())
        } else {
            Err(format!("the programs did {done:?} and counted {counted:?}"))
        }
    }

    /// The first of a failing batch's packets that fails alone.
    pub(super) fn culprit(&mut self, inputs: &[Input]) -> Option<(Input, String)> {
        inputs.iter().find_map(|input| {
            let fault = self.batch(std::slice::from_ref(input)).err()?;
            Some((input.clone(), fault))
        })
    }

    fn run(&mut self, input: &Input, done: &mut Tally) -> Result<(), String> {
        self.output.resize(input.packet.len() + ROOM, 0);
        let result = if input.program == UNDERLAY_GUARD {
            self.run_before_skb(input)
        } else {
            self.run_with_skb(input)
        };
        let result = match result {
            Ok(result) => result,
            // The kernel runs nothing that is shorter than the header it announces.
            Err(ProgramError::SyscallError(_)) if input.packet.len() < shortest(&input.packet) => {
                return Ok(());
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        let left = &self.output[..usize::try_from(result.data_size_out).unwrap()];
        let action = result.return_value.cast_signed();
        match (input.program == UNDERLAY_GUARD, action) {
            (false, TC_ACT_REDIRECT) => {
                done.sent += 1;
                return Ok(());
            }
            (false, TC_ACT_UNSPEC) => done.passed += 1,
            // What the guard lets through is counted by who gets it next.
            (true, XDP_PASS) => {}
            (false, TC_ACT_SHOT) | (true, XDP_DROP) => done.dropped += 1,
            _ => return Err(format!("returned {action}")),
        }
        if left == input.packet {
            Ok(())
        } else {
            Err(format!("returned {action} after it had changed the packet"))
        }
    }

    fn run_with_skb(&mut self, input: &Input) -> Result<TestRunResult, ProgramError> {
        let mut context = [0; CONTEXT];
        context[GSO_SIZE..][..4].copy_from_slice(&input.segment.to_ne_bytes());
        let program: &mut SchedClassifier = program(self.node.ebpf_mut(), &input.program);
        program.test_run(TestRunOptions {
            data_in: Some(&input.packet),
            data_out: Some(&mut self.output),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
    }

    fn run_before_skb(&mut self, input: &Input) -> Result<TestRunResult, ProgramError> {
        let program: &mut Xdp = program(self.node.ebpf_mut(), &input.program);
        program.test_run(TestRunOptions {
            data_in: Some(&input.packet),
            data_out: Some(&mut self.output),
            ..TestRunOptions::default()
        })
    }

    /// All that the programs have counted so far.
    pub(super) fn tally(&self) -> Tally {
        let peers = |slot| self.per_cpu::<PeerStats>(PEER_STATS, slot);
        let sent = (0..SLOTS)
            .flat_map(peers)
            .map(|stats| stats.tx.packets + stats.rx.packets);
        let all = || programs::Program::ALL.into_iter();
        let passed = all().flat_map(|program| self.per_cpu(PASSES, program as u32));
        let passed = passed.flat_map(|passes: Passes| {
            PassReason::ALL
                .iter()
                .map(move |&reason| passes.of(reason).packets)
        });
        let dropped = all().flat_map(|program| self.per_cpu(DROPS, program as u32));
        let dropped = dropped.flat_map(|drops: Drops| {
            DropReason::ALL
                .iter()
                .map(move |&reason| drops.of(reason).packets)
        });
        Tally {
            sent: sent.sum(),
            passed: passed.sum(),
            dropped: dropped.sum(),
        }
    }

    fn per_cpu<T: aya::Pod>(&self, name: &str, index: u32) -> Vec<T> {
        let map = PerCpuArray::<_, T>::try_from(self.node.ebpf().map(name).unwrap()).unwrap();
        map.get(&index, 0).unwrap().to_vec()
    }
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> &'e mut P
where
    &'e mut P: TryFrom<&'e mut Program, Error: fmt::Debug>,
{
    ebpf.program_mut(name).unwrap().try_into().unwrap()
}

/// Bytes below which a test run is refused: an Ethernet header, and the IP header that its
/// type announces.
fn shortest(packet: &[u8]) -> usize {
    const IPV4: [u8; 2] = [0x08, 0x00];
    const IPV6: [u8; 2] = [0x86, 0xdd];
    14 + match packet.get(12..14) {
        Some(kind) if kind == IPV4 => 20,
        Some(kind) if kind == IPV6 => 40,
        _ => 0,
    }
}
