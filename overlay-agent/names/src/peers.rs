//! Questions that are put to peers: those for names of the network that this node does not know.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::Name,
};

use crate::{PORT, ask::BUFFER, room::Room};

/// How long those that were asked last may take. Who has no such service stays silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Peers that are asked at once.
const TURN: usize = 64;
/// How long they have before the next ones are asked, too.
const PAUSE: Duration = Duration::from_millis(50);
/// Questions that are sent in a second: a container that asks for names that nobody has must not keep a
/// large overlay busy.
const BUDGET: u32 = 20_000;
/// Names whose peer is remembered.
const MAX_REMEMBERED: usize = 4_096;

/// A cache of peers' answers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    told: Mutex<HashMap<(Name, bool), IpAddr>>,
    spent: Mutex<Option<(Instant, u32)>>,
}

impl Peers {
    /// Asks them from this node's gateway, and puts what one of them knows into the answer: the one that has
    /// told the name before first, and then the others in turns.
    ///
    /// It stays as it is, "no such name", where nobody knows the name: a peer that is silent does not
    /// make it a failure, because not every peer has an agent, or has names turned on.
    ///
    /// # Errors
    /// When there is no socket, or too much was asked just now.
    pub(crate) fn ask(&self, answer: &mut Message, room: &Room, gateway: IpAddr) -> io::Result<()> {
        let Some(query) = answer.queries.first().cloned() else {
            return Ok(());
        };
        let about = (query.name().to_lowercase(), gateway.is_ipv4());
        let before = lock(&self.told).get(&about).copied();
        let mut others = room.peers.clone();
        others.retain(|peer| peer.is_ipv4() == gateway.is_ipv4() && Some(*peer) != before);
        // It may be no peer any more.
        let first: Vec<IpAddr> = before
            .into_iter()
            .filter(|it| room.peers.contains(it))
            .collect();
        let mut asking = Asking::begin(gateway, query)?;
        let turns = [first.as_slice()].into_iter().chain(others.chunks(TURN));
        for turn in turns.filter(|turn| !turn.is_empty()) {
            self.spend(turn)?;
            asking.send(turn);
            if let Some(peer) = asking.listen(answer, PAUSE)? {
                self.remember(about, peer);
                return Ok(());
            }
        }
        match asking.listen(answer, PATIENCE)? {
            Some(peer) => self.remember(about, peer),
            None => {
                lock(&self.told).remove(&about);
            }
        }
        Ok(())
    }

    fn remember(&self, about: (Name, bool), peer: IpAddr) {
        let mut told = lock(&self.told);
        if told.len() >= MAX_REMEMBERED {
            // All are found again, by asking all.
            told.clear();
        }
        told.insert(about, peer);
    }

    fn spend(&self, turn: &[IpAddr]) -> io::Result<()> {
        let mut spent = lock(&self.spent);
        let now = Instant::now();
        let (since, sum) = spent
            .filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(1))
            .unwrap_or((now, 0));
        let sum = sum.saturating_add(u32::try_from(turn.len()).unwrap_or(u32::MAX));
        if sum > BUDGET {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        *spent = Some((since, sum));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One question, and those whose answer is awaited.
struct Asking {
    socket: UdpSocket,
    query: Query,
    id: u16,
    bytes: Vec<u8>,
    silent: Vec<IpAddr>,
    buffer: Vec<u8>,
}

impl Asking {
    fn begin(gateway: IpAddr, query: Query) -> io::Result<Self> {
        let mut question = Message::query();
        question.metadata.recursion_desired = false;
        question.add_query(query.clone());
        Ok(Self {
            socket: UdpSocket::bind(SocketAddr::new(gateway, 0))?,
            query,
            id: question.metadata.id,
            bytes: question.to_vec().map_err(io::Error::other)?,
            silent: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    fn send(&mut self, peers: &[IpAddr]) {
        let reached = peers.iter().copied().filter(|peer| {
            // One that cannot be reached is like one that is silent.
            let at = SocketAddr::new(*peer, PORT);
            self.socket.send_to(&self.bytes, at).is_ok()
        });
        self.silent.extend(reached);
    }

    /// Waits until one knows the name, all have said that they do not, or the time is over.
    fn listen(&mut self, answer: &mut Message, patience: Duration) -> io::Result<Option<IpAddr>> {
        let deadline = Instant::now() + patience;
        while !self.silent.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if is_timeout(&error) => break,
                Err(error) => return Err(error),
            };
            let asked = from.port() == PORT && self.silent.contains(&from.ip());
            let told = told(&self.buffer[..length], self.id, &self.query);
            let Some(told) = told.filter(|_| asked) else {
                continue;
            };
            self.silent.retain(|peer| *peer != from.ip());
            if told.metadata.response_code == ResponseCode::NoError {
                answer.metadata.response_code = ResponseCode::NoError;
                answer.add_answers(told.answers);
            }
            if !answer.answers.is_empty() {
                answer.authorities.clear();
                // It is the peer's to know.
                answer.metadata.authoritative = false;
                return Ok(Some(from.ip()));
            }
        }
        Ok(None)
    }
}

/// A message, if it answers that question.
fn told(bytes: &[u8], id: u16, query: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let is_answer = message.metadata.id == id && message.queries.first() == Some(query);
    is_answer.then_some(message)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{BUDGET, Peers, TURN};

    #[test]
    fn no_more_is_asked_in_a_second_than_there_is_a_budget_for() {
        let peers = Peers::default();
        let turn = [IpAddr::from([10, 0, 0, 1]); TURN];
        let paid = (0..=BUDGET)
            .take_while(|_| peers.spend(&turn).is_ok())
            .count();
        assert_eq!(paid, usize::try_from(BUDGET).unwrap() / TURN);
    }
}
