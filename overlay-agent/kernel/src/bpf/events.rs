//! Events of watched programs, read from their ring buffer.

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use bytemuck::pod_read_unaligned;
use overlay_common::journal::{Decision, EVENTS, LOST, Lost, Sighting, Step, kinds};
use tokio::io::{Interest, unix::AsyncFd};

use super::failure::failed;
use crate::{KernelError, Result};

/// Bytes of the ring: those of a thousand whole packets, or of many heads.
pub(super) const RING: u32 = 4 << 20;

/// Something that a program has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It made a decision and went on.
    Decision {
        /// Which one.
        step: Step,
        /// By what: see the step's description,
        value: u64,
        /// and by what else.
        more: u64,
    },
    /// It was done with a packet.
    Packet {
        /// Its outcome.
        sighting: Sighting,
        /// Its first bytes as it came,
        before: Vec<u8>,
        /// and as it went, if it was sent.
        after: Vec<u8>,
    },
}

impl Event {
    /// `None` for what no program of this build writes.
    fn of(bytes: &[u8]) -> Option<Self> {
        let kind = u32::from_ne_bytes(*bytes.first_chunk()?);
        if kind == kinds::DECISION {
            let decision: Decision = pod_read_unaligned(bytes.get(..size_of::<Decision>())?);
            return Some(Self::Decision {
                step: *Step::ALL.get(decision.step as usize)?,
                value: decision.value,
                more: decision.more,
            });
        }
        let (head, packet) = bytes.split_at_checked(size_of::<Sighting>())?;
        let sighting: Sighting = pod_read_unaligned(head);
        let (before, after) = packet.split_at_checked(sighting.shown_before as usize)?;
        (kind == kinds::SIGHTING).then(|| Self::Packet {
            sighting,
            before: before.to_vec(),
            after: after.to_vec(),
        })
    }

    /// What a message in the log stands for, which has so many bytes of every packet; `None` for
    /// what no program of this build writes.
    pub(super) fn of_message(bytes: &[u8]) -> Option<Self> {
        let (head, packet) = bytes.split_at_checked(size_of::<Sighting>())?;
        let sighting: Sighting = pod_read_unaligned(head);
        let shown = packet.len().min(sighting.shown_before as usize);
        (sighting.kind == kinds::SIGHTING).then(|| Self::Packet {
            sighting,
            before: packet[..shown].to_vec(),
            after: Vec::new(),
        })
    }
}

/// The ring buffer of loaded programs.
pub(super) struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self> {
        let operation = || format!("open map {EVENTS}");
        let map = ebpf.take_map(EVENTS).ok_or_else(|| {
            KernelError::new(operation(), "these programs are not built to be watched")
        })?;
        let ring = RingBuf::try_from(map).map_err(|error| failed(operation(), &error))?;
        Ok(Self(ring))
    }

    /// The next event that is there.
    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = Event::of(&self.0.next()?) {
                return Some(event);
            }
        }
    }
}

/// Events of attached programs. Programs that nobody listens to lose theirs.
pub struct Events {
    ring: AsyncFd<RingFd>,
    lost: PerCpuArray<MapData, Lost>,
}

impl Events {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self> {
        let operation = "listen to the programs";
        let lost = ebpf.take_map(LOST).ok_or_else(|| {
            KernelError::new(operation, "these programs are not built to be watched")
        })?;
        let lost = PerCpuArray::try_from(lost).map_err(|error| failed(operation, &error))?;
        let ring = RingFd(Ring::of(ebpf)?);
        // SAFETY: the ring owns its descriptor from here until it is dropped, and `as_raw_fd`
        // returns no other.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| KernelError::io(operation, &error.into_parts().1))?;
        Ok(Self { ring, lost })
    }

    /// Waits for events and takes up to `most` of those that are there.
    pub async fn next(&mut self, most: usize) -> Result<Vec<Event>> {
        loop {
            let mut ready = self
                .ring
                .readable_mut()
                .await
                .map_err(|error| KernelError::io("wait for the programs", &error))?;
            let ring = &mut ready.get_inner_mut().0;
            let events: Vec<Event> = std::iter::from_fn(|| ring.next()).take(most).collect();
            if events.len() < most {
                ready.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Those that are there.
    pub fn rest(&mut self) -> Vec<Event> {
        let ring = &mut self.ring.get_mut().0;
        std::iter::from_fn(|| ring.next()).collect()
    }

    /// Events that were lost so far, by all CPUs.
    pub fn lost(&self) -> Result<Lost> {
        let values = self.lost.get(&0, 0);
        let values = values.map_err(|error| failed(format!("read map {LOST}"), &error))?;
        let add = |sum: Lost, cpu: &Lost| Lost {
            over_budget: sum.over_budget + cpu.over_budget,
            ring_full: sum.ring_full + cpu.ring_full,
        };
        Ok(values.iter().fold(Lost::default(), add))
    }
}

/// The ring by its descriptor, to be waited for.
struct RingFd(Ring);

impl std::os::fd::AsRawFd for RingFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::bytes_of;
    use overlay_common::journal::{Decision, NONE, Sighting, Step, kinds, outcomes};

    use super::Event;

    #[test]
    fn events_come_back_as_they_were_written() {
        let decision = Decision {
            kind: kinds::DECISION,
            step: Step::Peer as u32,
            value: 7,
            more: 1450,
        };
        let expected = Event::Decision {
            step: Step::Peer,
            value: 7,
            more: 1450,
        };
        assert_eq!(Event::of(bytes_of(&decision)), Some(expected));

        let sighting = Sighting {
            kind: kinds::SIGHTING,
            program: overlay_common::programs::Program::FromHost as u32,
            time_ns: 1,
            interface: 2,
            handed_to: NONE,
            outcome: outcomes::SENT,
            reason: NONE,
            peer: 1,
            segment: 0,
            length_before: 100,
            shown_before: 3,
            length_after: 150,
            shown_after: 2,
        };
        let bytes = [bytes_of(&sighting), &[1, 2, 3, 4, 5]].concat();
        let expected = Event::Packet {
            sighting,
            before: vec![1, 2, 3],
            after: vec![4, 5],
        };
        assert_eq!(Event::of(&bytes), Some(expected));
    }

    #[test]
    fn what_nobody_writes_is_no_event() {
        assert_eq!(Event::of(&[]), None);
        assert_eq!(Event::of(&[9, 0, 0, 0]), None);
        assert_eq!(Event::of(&kinds::SIGHTING.to_ne_bytes()), None);
        assert_eq!(Event::of(&[0xff; 56]), None);
    }
}
