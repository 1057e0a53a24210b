//! Counting: each packet once, under the one way in which it left.

use overlay_common::{
    maps::Count,
    reasons::{DropReason, PassReason},
};

use crate::{
    tables,
    verdict::{Account, Sender, Sent},
    verifier::forget_range,
};

/// A packet went where it should, on the fast path.
pub(crate) fn sent(sent: &Sent) {
    match sent.account {
        Account::To(index) => {
            tables::count_for_peer(index, |stats| add(&mut stats.tx, sent.bytes));
        }
        Account::From(index) => {
            tables::count_for_peer(index, |stats| add(&mut stats.rx, sent.bytes));
        }
    }
}

/// A packet was left to the kernel.
pub(crate) fn passed(reason: PassReason, bytes: usize) {
    tables::count_pass(|passes| {
        if let Some(count) = passes.counts_mut().get_mut(forget_range(reason as usize)) {
            add(count, bytes);
        }
    });
}

/// A packet was dropped, charged to its sender.
pub(crate) fn dropped(reason: DropReason, sender: Sender, bytes: usize) {
    tables::count_drop(|drops| {
        if let Some(count) = drops.counts_mut().get_mut(forget_range(reason as usize)) {
            add(count, bytes);
        }
    });
    tables::count_for_peer(sender.0, |stats| add(&mut stats.dropped, bytes));
}

fn add(count: &mut Count, bytes: usize) {
    count.packets += 1;
    count.bytes += bytes as u64;
}
