//! Nobody watches: calls that leave no instruction behind. The other
//! [`journal`](../journal.rs) says what they are for.

use overlay_common::{
    journal::Step,
    programs::Program,
    reasons::{DropReason, PassReason},
};

use crate::verdict::{Sender, Sent};

#[inline(always)]
pub(crate) fn tell<const N: usize>(_: Step, _: [u64; N]) {}

#[inline(always)]
pub(crate) fn came<P>(_: Program, _: &P) {}

#[inline(always)]
pub(crate) fn sent<P>(_: Program, _: &P, _: &Sent) {}

#[inline(always)]
pub(crate) fn passed<P>(_: Program, _: &P, _: PassReason) {}

#[inline(always)]
pub(crate) fn dropped<P>(_: Program, _: &P, _: DropReason, _: Sender) {}
