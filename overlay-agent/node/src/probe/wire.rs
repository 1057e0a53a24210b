//! The format of probes and their answers: one for both, all numbers big-endian.
//!
//! | offset | bytes | field | in a question | in its answer |
//! |---|---|---|---|---|
//! | 0 | 4 | magic | `ovlp` | the same |
//! | 4 | 1 | version | 1 | the same |
//! | 5 | 1 | kind | 1; 3 when it is about a size | 2; 4 |
//! | 6 | 2 | size | of the IP packet that it is sent in | of the one that arrived |
//! | 8 | 4 | VNI | the network's | the same |
//! | 12 | 4 | sequence | counted for each peer and kind | the question's |
//! | 16 | 8 | time | the asker's, in ns since a moment of its own | the question's |
//! | 24 | 4 | heard | ms since the sender has heard the other one; all bits set: never | 0 |
//! | 28 | 4 | ABI | layout of the sender's maps | the answerer's |
//! | 32 | 16 | agent | version of the sender's agent, padded with zeros | the answerer's |
//! | 48 | 64 | node | name of the sender's node, padded with zeros | the answerer's |
//! | 112 | 2 | MTU | largest packet that the sender's containers send through the network; 0: not said | the answerer's |
//! | 114 | 2 | arrives | largest packet that the sender has found to arrive at the other one; 0: not known | the answerer's |
//!
//! A question about a size is followed by as many zeros as it takes. An answer never is: it is no
//! longer than the shortest question, nor than the one that it answers, so that nobody can have more sent to a
//! third than he sends. A later version may append fields and keeps these: the last two came so, and
//! agents of 0.2.0 send 112 bytes.

use std::{mem::offset_of, net::IpAddr, ops::Range, time::Duration};

use bytemuck::{Pod, Zeroable};

const MAGIC: [u8; 4] = *b"ovlp";
const VERSION: u8 = 1;
/// Stands for "never".
const NEVER: u32 = u32::MAX;

/// Bytes of a message that says all that it can, and of one that says what it must.
pub(crate) const LENGTH: usize = size_of::<Layout>();
const LEAST: usize = LENGTH - 2 * size_of::<u16>();

/// Where the texts are, which live as long as the datagram.
const AGENT: Range<usize> = offset_of!(Layout, agent)..offset_of!(Layout, node);
const NODE: Range<usize> = offset_of!(Layout, node)..LEAST;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    size: [u8; 2],
    vni: [u8; 4],
    sequence: [u8; 4],
    time: [u8; 8],
    heard: [u8; 4],
    abi: [u8; 4],
    agent: [u8; 16],
    node: [u8; 64],
    mtu: [u8; 2],
    arrives: [u8; 2],
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Are you there?
    Question = 1,
    /// I am.
    Answer = 2,
    /// Does this arrive, long as it is?
    SizeQuestion = 3,
    /// It did.
    SizeAnswer = 4,
}

/// A message as it was understood; its texts are printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind,
    pub(crate) size: u16,
    pub(crate) vni: u32,
    pub(crate) sequence: u32,
    pub(crate) time: u64,
    /// How long before it was sent its sender has heard the other one.
    pub(crate) heard: Option<Duration>,
    pub(crate) abi: u32,
    pub(crate) agent: &'a str,
    pub(crate) node: &'a str,
    pub(crate) sizes: Sizes,
}

/// A sender's report on the packet sizes of a network towards the receiver, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The largest that it sends.
    pub(crate) mtu: Option<u16>,
    /// The largest that it has found to arrive.
    pub(crate) arrives: Option<u16>,
}

impl<'a> Message<'a> {
    /// Understands a datagram; `None` when it is not one of these.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        let known = datagram.get(..LENGTH).or_else(|| datagram.get(..LEAST))?;
        bytes.get_mut(..known.len())?.copy_from_slice(known);
        let layout: Layout = bytemuck::cast(bytes);
        if layout.magic != MAGIC || layout.version != VERSION {
            return None;
        }
        let heard = u32::from_be_bytes(layout.heard);
        Some(Self {
            kind: Kind::of(layout.kind)?,
            size: u16::from_be_bytes(layout.size),
            vni: u32::from_be_bytes(layout.vni),
            sequence: u32::from_be_bytes(layout.sequence),
            time: u64::from_be_bytes(layout.time),
            heard: (heard != NEVER).then(|| Duration::from_millis(heard.into())),
            abi: u32::from_be_bytes(layout.abi),
            agent: text(datagram.get(AGENT)?)?,
            node: text(datagram.get(NODE)?)?,
            sizes: Sizes {
                mtu: said(layout.mtu),
                arrives: said(layout.arrives),
            },
        })
    }

    /// The message as it is sent, without what makes a question longer. Texts are cut to
    /// what there is room for.
    pub(crate) fn bytes(&self) -> [u8; LENGTH] {
        let heard = self.heard.map_or(NEVER, |heard| {
            u32::try_from(heard.as_millis()).map_or(NEVER - 1, |heard| heard.min(NEVER - 1))
        });
        let layout = Layout {
            magic: MAGIC,
            version: VERSION,
            kind: self.kind as u8,
            size: self.size.to_be_bytes(),
            vni: self.vni.to_be_bytes(),
            sequence: self.sequence.to_be_bytes(),
            time: self.time.to_be_bytes(),
            heard: heard.to_be_bytes(),
            abi: self.abi.to_be_bytes(),
            agent: padded(self.agent),
            node: padded(self.node),
            mtu: self.sizes.mtu.unwrap_or_default().to_be_bytes(),
            arrives: self.sizes.arrives.unwrap_or_default().to_be_bytes(),
        };
        bytemuck::cast(layout)
    }
}

impl Kind {
    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Question),
            2 => Some(Self::Answer),
            3 => Some(Self::SizeQuestion),
            4 => Some(Self::SizeAnswer),
            _ => None,
        }
    }

    /// The answer to a question.
    pub(crate) const fn answer(self) -> Option<Self> {
        match self {
            Self::Question => Some(Self::Answer),
            Self::SizeQuestion => Some(Self::SizeAnswer),
            Self::Answer | Self::SizeAnswer => None,
        }
    }
}

/// Bytes of the IP and UDP headers before a message to an address.
pub(crate) const fn headers(address: IpAddr) -> u16 {
    const UDP: u16 = 8;
    match address {
        IpAddr::V4(_) => 20 + UDP,
        IpAddr::V6(_) => 40 + UDP,
    }
}

/// A number that stands for nothing when it is 0.
fn said(bytes: [u8; 2]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes)).filter(|&number| number != 0)
}

/// A text of at least one character, and nothing but zeros behind it.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0);
    let (text, rest) = field.split_at(end.unwrap_or(field.len()));
    let clean = !text.is_empty()
        && text.iter().all(u8::is_ascii_graphic)
        && rest.iter().all(|&byte| byte == 0);
    std::str::from_utf8(text).ok().filter(|_| clean)
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message<'static>> {
        let kinds = prop_oneof![
            Just(Kind::Question),
            Just(Kind::Answer),
            Just(Kind::SizeQuestion),
            Just(Kind::SizeAnswer)
        ];
        let heard = proptest::option::of(0..NEVER);
        let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>());
        let size = || proptest::option::of(1..=u16::MAX);
        let sizes = (size(), size());
        (kinds, numbers, heard, any::<u32>(), sizes).prop_map(
            |(kind, (size, vni, sequence, time), heard, abi, (mtu, arrives))| Message {
                kind,
                size,
                vni,
                sequence,
                time,
                heard: heard.map(|ms| Duration::from_millis(ms.into())),
                abi,
                agent: "10.200.3000-rc1",
                node: "a-node.with_63.characters.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                sizes: Sizes { mtu, arrives },
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_sent_is_understood(message in message(), more in 0..2000_usize) {
            let mut datagram = message.bytes().to_vec();
            datagram.resize(LENGTH + more, 0);
            prop_assert_eq!(Message::parse(&datagram), Some(message));
        }

        #[test]
        fn rubbish_is_not(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Message::parse(&datagram), None);
        }

        /// Whatever a byte is changed to: what is understood says what was received.
        #[test]
        fn a_changed_byte_is_refused_or_read(
            message in message(), place in 0..LENGTH, value: u8
        ) {
            let mut datagram = message.bytes();
            datagram[place] = value;
            if let Some(read) = Message::parse(&datagram) {
                prop_assert_eq!(read.bytes(), datagram);
            }
        }

        #[test]
        fn a_message_cut_short_is_refused(message in message(), length in 0..LEAST) {
            let bytes = message.bytes();
            prop_assert_eq!(Message::parse(&bytes[..length]), None);
        }
    }

    #[test]
    fn the_form_is_a_contract() {
        let message = Message {
            kind: Kind::SizeQuestion,
            size: 1450,
            vni: 7,
            sequence: 0x0102_0304,
            time: 0x1112_1314_1516_1718,
            heard: None,
            abi: 4,
            agent: "0.1.0",
            node: "n1",
            sizes: Sizes {
                mtu: Some(1450),
                arrives: Some(1400),
            },
        };
        let mut expected = b"ovlp\x01\x03\x05\xaa\x00\x00\x00\x07\x01\x02\x03\x04".to_vec();
        expected.extend(*b"\x11\x12\x13\x14\x15\x16\x17\x18\xff\xff\xff\xff\x00\x00\x00\x04");
        expected.extend(*b"0.1.0\0\0\0\0\0\0\0\0\0\0\0n1");
        expected.resize(112, 0);
        expected.extend(*b"\x05\xaa\x05\x78");
        assert_eq!(message.bytes().as_slice(), expected);
        // One of 0.2.0.
        let earlier = Message {
            sizes: Sizes::default(),
            ..message
        };
        assert_eq!(Message::parse(&expected[..112]), Some(earlier));
    }

    #[test]
    fn the_longest_silence_is_not_never() {
        let message = |heard| Message {
            kind: Kind::Question,
            size: 140,
            vni: 1,
            sequence: 1,
            time: 1,
            heard,
            abi: 3,
            agent: "1",
            node: "n",
            sizes: Sizes::default(),
        };
        let sent = message(Some(Duration::from_hours(24 * 365))).bytes();
        assert!(Message::parse(&sent).is_some_and(|read| read.heard.is_some()));
        let sent = message(None).bytes();
        assert!(Message::parse(&sent).is_some_and(|read| read.heard.is_none()));
    }
}
