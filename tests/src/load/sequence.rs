//! Numbered packets: received, lost, doubled, late.

use std::{collections::BTreeMap, fmt, time::Duration};

/// A numbered packet as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counted from 0.
    pub number: u64,
    /// When it was sent, since the load began.
    pub sent: Duration,
}

impl Stamp {
    /// Bytes that it takes.
    pub const SIZE: usize = 16;

    /// As it stands in a packet.
    pub fn bytes(self) -> [u8; Self::SIZE] {
        let nanoseconds = u64::try_from(self.sent.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        bytes
    }

    /// The stamp at the beginning of a payload; `None` when it is too short for one.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let (nanoseconds, _) = rest.split_first_chunk()?;
        Some(Self {
            number: u64::from_be_bytes(*number),
            sent: Duration::from_nanos(u64::from_be_bytes(*nanoseconds)),
        })
    }
}

/// A packet that came after one that was sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The packet.
    pub stamp: Stamp,
    /// When it came, since the load began.
    pub received: Duration,
    /// The number of the latest packet that came before it.
    pub overtaken_by: u64,
}

/// Packets in a row that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First number.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// When the packet after them was sent, since the load began.
    pub before: Duration,
}

/// The numbers that have come so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    next: u64,
    /// First missing number → number after the last one, and when that was sent.
    missing: BTreeMap<u64, (u64, Duration)>,
    /// Packets that came, each counted once.
    pub received: u64,
    /// Packets that had come already.
    pub doubled: u64,
    /// Packets that others had overtaken.
    pub late: Vec<Late>,
}

impl Sequence {
    /// Notes a packet that has come.
    pub fn note(&mut self, stamp: Stamp, received: Duration) {
        let number = stamp.number;
        if number >= self.next {
            if number > self.next {
                self.missing.insert(self.next, (number, stamp.sent));
            }
            self.next = number + 1;
        } else if !self.fill(number) {
            self.doubled += 1;
            return;
        } else {
            self.late.push(Late {
                stamp,
                received,
                overtaken_by: self.next - 1,
            });
        }
        self.received += 1;
    }

    /// Takes a number out of the missing ones; false when it is not among them.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &(end, before))) = self.missing.range(..=number).next_back() else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, (number, before));
        }
        if number + 1 < end {
            self.missing.insert(number + 1, (end, before));
        }
        true
    }

    /// The packets between those that came which did not.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.missing.iter().map(|(&first, &(end, before))| Gap {
            first,
            count: end - first,
            before,
        })
    }
}

/// A numbered stream after its end.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Packets that the sender's kernel took.
    pub sent: u64,
    /// Times that it took none, such as while a device was away.
    pub refused: u64,
    /// How long it was sent.
    pub time: Duration,
    /// The packets that were received.
    pub came: Sequence,
    /// Packets that the receiver's socket had no room for.
    pub overflowed: u64,
}

impl Stream {
    /// Packets that were sent and never came.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.came.received)
    }

    /// Packets a second that were sent.
    pub fn rate(&self) -> u64 {
        let milliseconds = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        self.sent * 1000 / milliseconds.max(1)
    }

    /// Late packets that neither left nor came within one of these times.
    pub fn late_outside<'a>(
        &'a self,
        windows: &'a [(Duration, Duration)],
    ) -> impl Iterator<Item = &'a Late> {
        let excused = |late: &Late| {
            let during =
                |&(from, to): &(Duration, Duration)| late.received >= from && late.stamp.sent <= to;
            windows.iter().any(during)
        };
        self.came.late.iter().filter(move |late| !excused(late))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let farthest = self.came.late.iter();
        let farthest = farthest.map(|late| late.overtaken_by - late.stamp.number);
        write!(
            f,
            "{} sent at {}/s, {} lost, {} doubled, {} late (by {} at most)",
            self.sent,
            self.rate(),
            self.lost(),
            self.came.doubled,
            self.came.late.len(),
            farthest.max().unwrap_or(0)
        )?;
        if self.overflowed > 0 {
            write!(f, ", {} found no room in the socket", self.overflowed)?;
        }
        if self.refused > 0 {
            write!(f, ", refused {} times", self.refused)?;
        }
        for gap in self.came.gaps().take(SHOWN) {
            write!(
                f,
                "; {} missing from {} on, before {:.3} s",
                gap.count,
                gap.first,
                gap.before.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Sequence, Stamp};

    fn came(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        for &number in numbers {
            let sent = Duration::from_millis(number);
            sequence.note(Stamp { number, sent }, sent);
        }
        sequence
    }

    #[test]
    fn what_comes_in_order_is_nothing_to_tell() {
        let sequence = came(&[0, 1, 2, 3]);
        assert_eq!((sequence.received, sequence.doubled), (4, 0));
        assert!(sequence.late.is_empty() && sequence.gaps().next().is_none());
    }

    #[test]
    fn lost_late_and_doubled_are_told_apart() {
        let sequence = came(&[0, 1, 6, 4, 4, 1, 7]);
        assert_eq!((sequence.received, sequence.doubled), (5, 2));
        let late: Vec<_> = sequence
            .late
            .iter()
            .map(|late| (late.stamp.number, late.overtaken_by))
            .collect();
        assert_eq!(late, [(4, 6)]);
        let gaps: Vec<_> = sequence.gaps().map(|gap| (gap.first, gap.count)).collect();
        assert_eq!(gaps, [(2, 2), (5, 1)]);
    }

    #[test]
    fn a_stamp_comes_back() {
        let stamp = Stamp {
            number: 7,
            sent: Duration::from_nanos(12_345_678_901),
        };
        assert_eq!(Stamp::read(&stamp.bytes()), Some(stamp));
        assert_eq!(Stamp::read(&stamp.bytes()[..15]), None);
    }
}
