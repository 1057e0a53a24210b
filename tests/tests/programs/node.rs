//! A node without an agent: the agent's embedded programs, maps filled by hand, and
//! packets run through them by `BPF_PROG_TEST_RUN`.

mod maps;

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    programs::{SchedClassifier, TestRunOptions, Xdp},
};
use nix::sched::{CloneFlags, unshare};
use overlay_common::{
    globals::STRIP,
    journal::{WATCH, Watch},
    maps::{SenderKey, SenderKind},
    programs::{
        FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, GENERIC_GUARD, TO_ENDPOINT, UNDERLAY_GUARD,
    },
};

use crate::{
    counters::{Counters, Outcome},
    frames::IPV6,
};

/// The loopback device, on which test runs take place: it plays each device of a node.
const INTERFACE: u32 = 1;
/// Where `struct __sk_buff` of `linux/bpf.h` keeps `gso_size`, and its size.
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 192;

/// Actions of `linux/pkt_cls.h`.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
/// Actions of `linux/bpf.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The result of one run.
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) bytes: Vec<u8>,
    /// The slot of the peer of which it was left to the kernel, if that is known.
    pub(crate) passed_of: Option<u32>,
}

pub(crate) struct Node {
    ebpf: Ebpf,
}

impl Node {
    /// Loads the programs and fills their maps, in a network namespace that ends with
    /// the test's thread.
    pub(crate) fn new() -> Self {
        Self::around(load)
    }

    /// The same with programs that strip packets in XDP.
    pub(crate) fn stripping() -> Self {
        Self::around(|| load_with(STRIP, &1_u32))
    }

    /// The same with programs that tell what they do.
    pub(crate) fn watched(watch: &Watch) -> Self {
        Self::around(|| load_watched(&mut EbpfLoader::new(), watch))
    }

    /// The same with loaded programs.
    pub(crate) fn of(ebpf: Ebpf) -> Self {
        Self::around(|| ebpf)
    }

    fn around(load: impl FnOnce() -> Ebpf) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the programs need CAP_SYS_ADMIN");
        let mut node = Self { ebpf: load() };
        node.fill();
        node
    }

    /// Runs a packet, of GSO segments of `segment` bytes unless that is 0, through a
    /// program, and sees to it that exactly one way out was counted, with its length,
    /// and that the packet is unchanged if it did not take the fast path.
    pub(crate) fn run(&mut self, name: &'static str, packet: &[u8], segment: u32) -> Run {
        let before = self.counters();
        let mut context = [0; CONTEXT];
        context[GSO_SIZE..][..4].copy_from_slice(&segment.to_ne_bytes());
        let mut bytes = vec![0; packet.len() + 256];
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).unwrap().try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap();
        bytes.truncate(usize::try_from(result.data_size_out).unwrap());
        let after = self.counters();
        let outcomes = after.since(&before);
        let [(outcome, counted)] = outcomes[..] else {
            panic!("not exactly one way out was counted: {outcomes:?}");
        };
        let (action, length) = match outcome {
            // What is routed has no padding any more.
            Outcome::To(_) => (TC_ACT_REDIRECT, bytes.len() - overhead(&bytes)),
            Outcome::Local => (TC_ACT_REDIRECT, bytes.len()),
            Outcome::From(_) => (TC_ACT_REDIRECT, packet.len() - overhead(packet)),
            Outcome::Pass(_) => (TC_ACT_UNSPEC, packet.len()),
            Outcome::Drop(..) => (TC_ACT_SHOT, packet.len()),
        };
        assert_eq!(counted, length as u64, "bytes of {outcome:?}");
        assert_eq!(result.return_value.cast_signed(), action, "{outcome:?}");
        if action != TC_ACT_REDIRECT {
            assert_eq!(bytes, packet, "changed, then left: {outcome:?}");
        }
        let account = self.account(name, outcome, counted);
        assert_eq!(account, Account::since(&before, &after), "{outcome:?}");
        let passed_of = after.passed_since(&before);
        for (key, bytes) in &passed_of {
            assert_eq!((Outcome::Pass(key.reason), *bytes), (outcome, counted));
        }
        Run {
            outcome,
            bytes,
            passed_of: passed_of.first().map(|(key, _)| key.slot),
        }
    }

    /// What else a packet must have been counted under.
    fn account(&self, program: &'static str, outcome: Outcome, bytes: u64) -> Account {
        let sender = self.slot().filter(|_| program != FROM_UNDERLAY);
        let by_sender = |counter| sender.map(|slot| (slot, counter, bytes));
        let (left, mine, others) = match outcome {
            Outcome::To(_) => (false, by_sender("tx"), None),
            Outcome::Local => (false, by_sender("tx_local"), Some("rx_local")),
            Outcome::From(_) => (false, None, Some("rx")),
            Outcome::Pass(_) => (true, by_sender("passed"), None),
            Outcome::Drop(..) => (true, by_sender("dropped"), None),
        };
        let endpoint = sender.map(|slot| (SenderKind::Endpoint, slot));
        let charged = match outcome {
            Outcome::Drop(reason, peer) => endpoint
                .or(peer.map(|slot| (SenderKind::Peer, slot)))
                .map(|(kind, slot)| (SenderKey { kind, slot, reason }, bytes)),
            _ => None,
        };
        Account {
            program: left.then_some(program),
            mine,
            others: others.map(|counter| (counter, bytes)),
            charged,
        }
    }

    /// Runs a packet through the guard, and sees to it that it counts what it drops and
    /// nothing else, and changes nothing.
    pub(crate) fn guard(&mut self, packet: &[u8]) -> Option<Outcome> {
        let (outcome, bytes) = self.strip(packet);
        assert_eq!(bytes, packet);
        outcome
    }

    /// The same for one that may change packets: with the bytes, from the note on.
    pub(crate) fn strip(&mut self, packet: &[u8]) -> (Option<Outcome>, Vec<u8>) {
        let before = self.counters();
        let mut bytes = vec![0; packet.len() + 256];
        let result = guard_of(&mut self.ebpf)
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ..TestRunOptions::default()
            })
            .unwrap();
        bytes.truncate(usize::try_from(result.data_size_out).unwrap());
        let after = self.counters();
        let outcomes = after.since(&before);
        let outcome = match (result.return_value, &outcomes[..]) {
            (XDP_PASS, []) => None,
            (XDP_DROP, &[(outcome @ Outcome::Drop(..), counted)]) => {
                assert_eq!(counted, packet.len() as u64, "bytes of {outcome:?}");
                Some(outcome)
            }
            (action, outcomes) => panic!("action {action} with {outcomes:?}"),
        };
        let charged = outcome.and_then(|outcome| match outcome {
            Outcome::Drop(reason, Some(slot)) => {
                let kind = SenderKind::Peer;
                Some((SenderKey { kind, slot, reason }, packet.len() as u64))
            }
            _ => None,
        });
        let account = Account {
            program: outcome.map(|_| UNDERLAY_GUARD),
            charged,
            ..Account::default()
        };
        assert_eq!(account, Account::since(&before, &after), "{outcome:?}");
        (outcome, bytes)
    }

    /// The loaded object.
    pub(crate) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    /// The same, to run its programs.
    pub(crate) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::of(&self.ebpf)
    }
}

/// Whatever a packet was counted under besides its way out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// The program that passed or dropped it.
    program: Option<&'static str>,
    /// A counter of the endpoint that sent it: slot, counter, bytes.
    mine: Option<(u32, &'static str, u64)>,
    /// One of the endpoint that got it; which one that is, is another matter.
    others: Option<(&'static str, u64)>,
    /// Who sent what was dropped.
    charged: Option<(SenderKey, u64)>,
}

impl Account {
    fn since(before: &Counters, after: &Counters) -> Self {
        let mut account = Self::default();
        for (slot, counter, bytes) in after.endpoints_since(before) {
            if counter.starts_with("rx") {
                assert_eq!(account.others.replace((counter, bytes)), None);
            } else {
                assert_eq!(account.mine.replace((slot, counter, bytes)), None);
            }
        }
        for sender in after.senders_since(before) {
            assert_eq!(account.charged.replace(sender), None);
        }
        for program in after.programs_since(before) {
            assert_eq!(account.program.replace(program), None);
        }
        account
    }
}

/// The agent's object, loaded and verified but neither pinned nor attached.
pub(crate) fn load() -> Ebpf {
    load_object(&mut EbpfLoader::new(), overlay_kernel::PROGRAMS)
}

/// The same, with a global set.
pub(crate) fn load_with<T: aya::Pod>(global: &str, value: &T) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.override_global(global, value, true);
    load_object(&mut loader, overlay_kernel::PROGRAMS)
}

/// The object that is built to be watched, with what the loader sets besides.
pub(crate) fn load_watched<'a>(loader: &mut EbpfLoader<'a>, watch: &'a Watch) -> Ebpf {
    loader.override_global(WATCH, watch, true);
    load_object(loader, overlay_kernel::WATCHED)
}

fn load_object(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Ebpf {
    let mut ebpf = loader
        .load(object)
        .expect("tests of the programs need CAP_BPF");
    for name in [FROM_ENDPOINT, FROM_HOST, FROM_UNDERLAY, TO_ENDPOINT] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    for name in [UNDERLAY_GUARD, GENERIC_GUARD] {
        let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    ebpf
}

fn guard_of(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(UNDERLAY_GUARD)
        .unwrap()
        .try_into()
        .unwrap()
}

/// Bytes before the inner IP packet.
fn overhead(packet: &[u8]) -> usize {
    if packet[12..14] == IPV6.to_be_bytes() {
        70
    } else {
        50
    }
}
