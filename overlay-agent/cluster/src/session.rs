//! Follows the store: lists, claims, watches; and again, when anything is in doubt.

mod claiming;
mod telling;
mod watching;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::{sync::watch, time::sleep};

use crate::{
    access::Access,
    book::{Book, Entry},
    choose,
    claim::Me,
    client::{Client, ClientError},
    keys::{Keys, below},
    lease::Lease,
    network::Network,
    problem::Problem,
    proto::KeyValue,
    subnet::Subnet,
    talk::News,
};

use telling::Told;

/// Changes are collected so long before they are told.
const CALM: Duration = Duration::from_millis(100);
/// Before the next try at what the store has not or does not allow.
const AGAIN: Duration = Duration::from_secs(1);
/// Before the next connection, at first and at most.
const RECONNECT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Which store it was, and when: the same one never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store {
    cluster: u64,
    revision: i64,
}

/// The state over all connections.
#[derive(Debug)]
pub struct Session {
    keys: Keys,
    name: String,
    me: Me,
    /// Whether it encrypts the network.
    encrypted: bool,
    /// This node's lease in both families, whatever the network's are.
    whole: Lease,
    book: Book,
    store: Option<Store>,
    network: Option<Network>,
    own: Option<Subnet>,
    /// The obstacle for a subnet, or for the whole network.
    refusal: Option<Problem>,
    /// A change that is not followed.
    ignored: Option<Problem>,
    connection: Option<Problem>,
    endpoint: String,
    told: Option<Told>,
    connections: u64,
    /// When a member last answered.
    answered: Option<Duration>,
    /// Credentials for the members; they change when certificates are renewed.
    access: watch::Receiver<Access>,
}

/// Why a watch has ended.
enum End {
    /// The store must be listed again.
    List,
    /// Members are to be shown something else.
    Access,
    /// The connection is of no use any more.
    Failed(ClientError),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

impl Session {
    /// With what is remembered of the last time.
    pub fn new(
        (prefix, name): (String, String),
        (me, encrypted): (Me, bool),
        (book, store): (Book, Option<(u64, i64)>),
        access: watch::Receiver<Access>,
    ) -> Self {
        Self {
            keys: Keys { prefix },
            name,
            encrypted,
            whole: me.lease.clone(),
            me,
            book,
            store: store.map(|(cluster, revision)| Store { cluster, revision }),
            network: None,
            own: None,
            refusal: None,
            ignored: None,
            connection: Some(Problem::new(
                "etcd",
                "not connected yet",
                "start etcd, or correct cluster.etcd",
            )),
            endpoint: String::new(),
            told: None,
            connections: 0,
            answered: None,
            access,
        }
    }

    /// Follows the store for ever, and tells what it learns.
    pub async fn follow(&mut self, members: &[String], mut tell: impl FnMut(News)) {
        let [shortest, longest] = RECONNECT;
        let mut pause = shortest;
        // Not all nodes at the first one.
        let count = u64::try_from(members.len()).unwrap_or(1).max(1);
        let first = usize::try_from(choose::seed(self.node()) % count).unwrap_or(0);
        let mut turn = members.iter().cycle().skip(first).peekable();
        while let Some(member) = turn.peek() {
            self.endpoint.clone_from(member);
            let access = self.access.borrow_and_update().clone();
            let end = match Client::connect(member, &access).await {
                Err(error) => End::Failed(error),
                Ok(client) => loop {
                    match self.follow_one(&client, &mut tell).await {
                        End::List => {
                            pause = shortest;
                            // A member that ends each watch at once is not asked in a circle.
                            sleep(CALM).await;
                        }
                        end => break end,
                    }
                },
            };
            let End::Failed(failure) = end else { continue };
            turn.next();
            if self.connection.is_none() {
                pause = shortest;
            }
            self.connection = Some(failure.problem());
            tell(self.news());
            // Jitter, so that nodes do not come back all at once.
            let rest = sleep(pause.mul_f64(0.5 + self.part()));
            tokio::select! {
                () = rest => pause = (pause * 2).min(longest),
                Ok(()) = self.access.changed() => pause = shortest,
            }
        }
    }

    /// Lists, claims, and watches until that has to be done again.
    async fn follow_one(&mut self, client: &Client, tell: &mut impl FnMut(News)) -> End {
        match self.look(client).await {
            Ok(Some((revision, lease))) => {
                self.connected();
                tell(self.news());
                match self.watch(client, revision, lease, tell).await {
                    Ok(()) => End::List,
                    Err(end) => end,
                }
            }
            Ok(None) => {
                self.connected();
                tell(self.news());
                sleep(AGAIN).await;
                End::List
            }
            Err(error) => End::Failed(error),
        }
    }

    fn connected(&mut self) {
        if self.connection.take().is_some() {
            self.connections += 1;
        }
        self.answered = Some(now());
    }

    fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        Some(Entry {
            key: below(&self.keys.subnets(), &kv.key)?,
            value: kv.value.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            lease: kv.lease,
        })
    }

    fn node(&self) -> &str {
        self.me.lease.node().unwrap_or_default()
    }

    /// A number from 0 to 1 that differs between nodes.
    fn part(&self) -> f64 {
        let seed = choose::seed(self.node());
        f64::from(u16::try_from(seed & 0xffff).unwrap_or(0)) / f64::from(u16::MAX)
    }
}

/// Since the machine has started, its sleep included.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
