//! Drops on the kernel's path, under the names that the programs use.

use crate::explain::rule_of;
use overlay_common::reasons::DropReason;
use overlay_control::stats::{Counter, DropStats, ProgramCount, ProgramStats};
use overlay_core::objects::KERNEL_REASONS;
use overlay_kernel::nft::Dropped;

/// Who dropped it, in the place of a program's name.
const KERNEL: &str = "kernel";

/// The programs, and the kernel as one more where it has dropped something.
pub fn with_kernel(mut programs: Vec<ProgramStats>, by_kernel: &Dropped) -> Vec<ProgramStats> {
    let mut dropped = Counter::default();
    for &(packets, bytes) in by_kernel.values() {
        dropped += Counter { packets, bytes };
    }
    if dropped.packets > 0 {
        programs.push(ProgramStats {
            program: KERNEL.to_owned(),
            delivered: Counter::default(),
            passed: Counter::default(),
            dropped,
        });
    }
    programs
}

/// Drops by reason, wherever they were dropped. Nobody is known to have sent what the kernel
/// drops.
pub fn with_drops_of_kernel(mut drops: Vec<DropStats>, by_kernel: &Dropped) -> Vec<DropStats> {
    for (reason, &(packets, bytes)) in by_kernel {
        if packets == 0 {
            continue;
        }
        let count = Counter { packets, bytes };
        let share = ProgramCount {
            program: KERNEL.to_owned(),
            count,
        };
        if let Some(known) = drops.iter_mut().find(|known| known.reason == *reason) {
            known.count += count;
            known.unknown += count;
            known.programs.push(share);
            continue;
        }
        drops.push(DropStats {
            reason: reason.clone(),
            rule: rule_of(reason).map(str::to_owned),
            text: text(reason).to_owned(),
            count,
            programs: vec![share],
            senders: Vec::new(),
            unknown: count,
        });
    }
    drops
}

fn text(reason: &str) -> &'static str {
    let of_programs = DropReason::ALL.iter();
    let of_programs = of_programs.map(|known| (known.name(), known.text()));
    let mut known = of_programs.chain(KERNEL_REASONS);
    let found = known.find(|(name, _)| *name == reason);
    found.map_or("the kernel dropped it", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::{with_drops_of_kernel, with_kernel};

    #[test]
    fn what_the_kernel_drops_is_counted_once_under_its_reason() {
        let by_kernel = [
            ("tunnel_from_endpoint".to_owned(), (2, 180)),
            ("unknown_vtep".to_owned(), (0, 0)),
        ]
        .into();
        let once = with_drops_of_kernel(Vec::new(), &by_kernel);
        let twice = with_drops_of_kernel(once.clone(), &by_kernel);
        assert_eq!((once.len(), once[0].count.packets), (1, 2));
        assert_eq!((twice.len(), twice[0].count.packets), (1, 4));
        assert_eq!(with_kernel(Vec::new(), &by_kernel)[0].dropped.bytes, 180);
        assert_eq!(with_kernel(Vec::new(), &[].into()), []);
    }
}
