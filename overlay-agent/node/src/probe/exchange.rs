//! Questions and answers as bytes, and what follows from them: everything but the sockets.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use overlay_control::{PeerState, ProbeMessages};
use overlay_core::model::{Family, Probe, Vni};

use super::{
    health::{self, Identity},
    mesh::{Mesh, NetworkPeers},
    pace::Pace,
    wire::{Kind, LENGTH, Message, headers},
};

/// All that the thread and `status` share.
#[derive(Debug)]
pub struct Exchange {
    identity: Identity,
    /// From which times in messages are counted.
    epoch: Instant,
    pub(crate) mesh: Mesh,
    /// `None` while nobody is asked.
    pace: Option<Pace>,
    pub(crate) messages: ProbeMessages,
}

/// A question on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) to: IpAddr,
    pub(crate) vni: Vni,
    /// Of the outer address that it goes to.
    pub(crate) tunnel: Family,
    pub(crate) peer: usize,
    pub(crate) datagram: Vec<u8>,
    about_size: bool,
}

/// Why a question was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// It is larger than the device takes.
    TooLong,
    /// Anything else.
    Other,
}

impl Exchange {
    pub(crate) fn new(identity: Identity, now: Instant) -> Self {
        Self {
            identity,
            epoch: now,
            mesh: Mesh::default(),
            pace: None,
            messages: ProbeMessages::default(),
        }
    }

    /// This node's identity in its messages.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes another configuration.
    pub(crate) fn follow(&mut self, mode: Probe, networks: Vec<NetworkPeers>, now: Instant) {
        self.mesh.follow(networks);
        match (mode, &mut self.pace) {
            (Probe::Every(interval), Some(pace)) => pace.change(interval),
            (Probe::Every(interval), pace) => *pace = Some(Pace::new(interval, now)),
            (Probe::Off | Probe::Answer, pace) => {
                if pace.take().is_some() {
                    self.mesh.stop_asking();
                }
            }
        }
    }

    /// The time between two questions to a peer.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let pace = self.pace.as_ref()?;
        Some(pace.interval(self.mesh.len()))
    }

    /// After how long without an answer a peer counts as silent.
    pub(crate) fn silence(&self) -> Duration {
        health::silence(self.interval().unwrap_or_default())
    }

    /// When there is something to send.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pace.as_ref().map(Pace::due)
    }

    /// The messages that are due.
    pub(crate) fn questions(&mut self, now: Instant) -> Vec<Question> {
        let Some(pace) = &mut self.pace else {
            return Vec::new();
        };
        let turns = pace.turns(self.mesh.len(), now);
        let mut questions = Vec::with_capacity(turns.len());
        for peer in turns {
            questions.extend(self.question(peer, now));
            let about_size = self.question_about_size(peer, now);
            if let (Some(_), Some(pace)) = (&about_size, &mut self.pace) {
                pace.also_sent(1);
            }
            questions.extend(about_size);
        }
        questions
    }

    fn question(&mut self, peer: usize, now: Instant) -> Option<Question> {
        let (_, target, _) = self.mesh.target(peer)?;
        let sequence = self.mesh.health(peer).ask(now);
        self.form(peer, Kind::Question, smallest(target), sequence, now)
    }

    fn question_about_size(&mut self, peer: usize, now: Instant) -> Option<Question> {
        let (_, target, _) = self.mesh.target(peer)?;
        let limit = self.mesh.peer(peer).0.mtu;
        let health = self.mesh.health(peer);
        let next = health.size_to_try(now, smallest(target), limit)?;
        self.form(peer, Kind::SizeQuestion, next.size, next.sequence, now)
    }

    fn form(
        &mut self,
        peer: usize,
        kind: Kind,
        size: u16,
        sequence: u32,
        now: Instant,
    ) -> Option<Question> {
        let (vni, to, tunnel) = self.mesh.target(peer)?;
        let last_heard = self.mesh.health(peer).last_heard;
        let message = Message {
            kind,
            size,
            vni: vni.get(),
            sequence,
            time: nanoseconds(now.saturating_duration_since(self.epoch)),
            heard: last_heard.map(|at| now.saturating_duration_since(at)),
            abi: self.identity.abi,
            agent: &self.identity.version,
            node: &self.identity.node,
            sizes: self.mesh.sizes(peer),
        };
        let mut datagram = message.bytes().to_vec();
        datagram.resize(size.saturating_sub(headers(to)).into(), 0);
        Some(Question {
            to,
            vni,
            tunnel,
            peer,
            datagram,
            about_size: kind == Kind::SizeQuestion,
        })
    }

    /// Notes what became of a question.
    pub(crate) fn sent(&mut self, question: &Question, outcome: Result<(), Unsent>) {
        match outcome {
            Ok(()) => self.messages.asked += 1,
            Err(why) => {
                self.messages.unsent += 1;
                if question.about_size && why == Unsent::TooLong {
                    self.mesh.health(question.peer).search.refused();
                }
            }
        }
    }

    /// Takes what has arrived through a network from an address; the answer, if there is to be one.
    pub(crate) fn receive(
        &mut self,
        vni: Vni,
        from: IpAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let Some(peer) = self.mesh.find(vni, from) else {
            self.messages.strangers += 1;
            return None;
        };
        let understood = Message::parse(datagram).filter(|message| message.vni == vni.get());
        let Some(message) = understood else {
            self.messages.malformed += 1;
            return None;
        };
        let sizes = self.mesh.sizes(peer);
        let health = self.mesh.health(peer);
        health.hear(now, &message);
        match message.kind {
            Kind::Question | Kind::SizeQuestion => {
                if !health.asked(now, message.heard) {
                    self.messages.limited += 1;
                    return None;
                }
                self.messages.answers += 1;
                let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
                let answer = Message {
                    kind: message.kind.answer()?,
                    size: length.saturating_add(headers(from)),
                    heard: Some(Duration::ZERO),
                    abi: self.identity.abi,
                    agent: &self.identity.version,
                    node: &self.identity.node,
                    sizes,
                    ..message
                };
                let mut answer = answer.bytes().to_vec();
                answer.truncate(datagram.len());
                return Some(answer);
            }
            Kind::Answer => {
                let sent = self.epoch.checked_add(Duration::from_nanos(message.time));
                // Who answers before he was asked has a clock of his own.
                if let Some(sent) = sent.filter(|sent| *sent <= now) {
                    health.answered(now, message.sequence, sent);
                }
            }
            Kind::SizeAnswer => health.size_answered(now, message.sequence, message.size),
        }
        self.messages.answered += 1;
        None
    }

    /// Takes in that a question to an address of a network has come back: nobody listens there.
    pub(crate) fn refused(&mut self, vni: Vni, to: IpAddr, now: Instant) {
        if let Some(peer) = self.mesh.find(vni, to) {
            self.mesh.health(peer).last_refused = Some(now);
        }
    }

    /// How a peer stands now, if that has changed since it was asked for the last time.
    pub(crate) fn news(
        &mut self,
        peer: usize,
        now: Instant,
    ) -> Option<(Option<PeerState>, PeerState)> {
        let silence = self.silence();
        let health = self.mesh.health(peer);
        let reach = health.reach(now, silence);
        let before = health.noted.replace(reach);
        (before != Some(reach)).then_some((before, reach))
    }
}

/// The smallest IP packet with a message for an address.
fn smallest(address: IpAddr) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "116")]
    const MESSAGE: u16 = LENGTH as u16;
    MESSAGE + headers(address)
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
