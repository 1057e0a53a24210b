//! What can be asked of a packet wherever it was received: by TC in an skb, or by XDP from
//! its driver.

use crate::{family::Family, headers::Headers, outer::Outer};

/// A packet at some hook.
pub(crate) trait Received {
    /// No other program of ours sees it after this one.
    const IS_LAST: bool;

    /// The interface by which it has come.
    fn arrived_by(&self) -> u32;

    /// What a program before ours has marked it with, for routes and filters on the kernel's way.
    fn mark(&self) -> u32;

    /// Bytes from the Ethernet header to the end of the payload, all segments included.
    fn length(&self) -> usize;

    /// Payload bytes of each segment of a GSO packet; 0 when it is not one.
    fn segment_size(&self) -> usize;

    /// The outer UDP checksum, which it has, is known to be right.
    fn checksum_is_verified<O: Family>(&mut self, outer: &Outer<O>) -> bool;

    /// `N` bytes at any place of the packet.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// `LEN` bytes from `offset` on, pulled into the linear part where they are not there yet.
    ///
    /// `None` when the packet is shorter, or the kernel has no memory to pull them.
    fn headers<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>>;

    /// `LEN` bytes from `offset` on, if they are in the linear part: headers that were read
    /// are, and stay there when others before them are added or taken away.
    fn linear<const LEN: usize>(&mut self, offset: usize) -> Option<Headers<'_, LEN>>;
}
