//! Follows the store: lists, claims, watches; and again, when anything is in doubt.

use std::{collections::BTreeMap, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tokio::{sync::watch, time::sleep};
use tonic::Streaming;

use crate::{
    access::Access,
    book::{Book, Continuity, Entry},
    choose,
    claim::{Me, Step},
    client::{self, Client, ClientError},
    fragment,
    keys::{Keys, below},
    lease::Lease,
    network::Network,
    proto::{EventType, KeyValue, ResponseHeader, WatchResponse},
    subnet::Subnet,
    talk::{News, State},
};

/// flannel's: a node that is away for a day loses its subnet.
pub const TTL: i64 = 86_400;
/// A lease is renewed so often, a tenth earlier or later, so that nodes do not do it all at once.
const RENEWAL: Duration = Duration::from_hours(1);
/// The store is listed so often although nothing seems to be missing.
const LOOK: Duration = Duration::from_mins(10);
/// Timers stand still while the machine sleeps: the clock is looked at so often.
const TICK: Duration = Duration::from_secs(30);
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

/// What is known, over all connections.
#[derive(Debug)]
pub struct Session {
    keys: Keys,
    name: String,
    me: Me,
    /// What this node has in both families, whatever the network's are.
    whole: Lease,
    book: Book,
    store: Option<Store>,
    network: Option<Network>,
    own: Option<Subnet>,
    /// What is in the way of a subnet, or of the whole network.
    refusal: Option<String>,
    /// What has changed and is not followed.
    ignored: Option<String>,
    connection: Option<String>,
    endpoint: String,
    told: Option<String>,
    connections: u64,
    /// When a member last answered.
    answered: Option<Duration>,
    /// What members ask for; it changes when certificates are renewed.
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
        me: Me,
        book: Book,
        access: watch::Receiver<Access>,
    ) -> Self {
        Self {
            keys: Keys { prefix },
            name,
            whole: me.lease.clone(),
            me,
            book,
            store: None,
            network: None,
            own: None,
            refusal: None,
            ignored: None,
            connection: Some("not connected yet".to_owned()),
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
            self.connection = Some(failure.to_string());
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

    /// Lists everything and does what follows from it; the revision that was listed and the lease
    /// of this node, if the store can be watched from there.
    async fn look(&mut self, client: &Client) -> Result<Option<(i64, Option<i64>)>, ClientError> {
        let (_, config) = client.get(&self.keys.config()).await?;
        let list = client.list(&self.keys.subnets(), None).await?;
        let entries: Vec<Entry> = list.keys.iter().filter_map(|key| self.entry(key)).collect();
        let continuity = self.continuity(&list.header);
        self.book.listed(&entries, continuity, now());
        let Some(network) = self.network(config.as_ref()) else {
            return Ok(None);
        };
        if let Err(why) = self.me.fit(&self.whole, &network) {
            self.refusal = Some(why);
            return Ok(None);
        }
        let used = client.list(&self.keys.used(), None).await?;
        let used = used.keys.iter().filter_map(|key| {
            let subnet = below(&self.keys.used(), &key.key)?;
            Some((subnet.parse().ok()?, key.mod_revision))
        });
        let used: BTreeMap<Subnet, i64> = used.collect();
        let step = self.me.decide(&network, &entries, &used);
        let lease = self.carry_out(client, step).await?;
        let lease = match lease {
            Outcome::Again => return Ok(None),
            Outcome::Has(lease) => Some(lease),
            Outcome::HasNone => None,
        };
        Ok(Some((list.header.revision, lease)))
    }

    /// Whether the store is the one that was seen before, and not an earlier state of it.
    fn continuity(&mut self, header: &ResponseHeader) -> Continuity {
        let new = Store {
            cluster: header.cluster_id,
            revision: header.revision,
        };
        let kept = self
            .store
            .is_none_or(|before| before.cluster == new.cluster && before.revision <= new.revision);
        self.store = Some(new);
        if kept {
            Continuity::Kept
        } else {
            Continuity::Broken
        }
    }

    fn network(&mut self, config: Option<&KeyValue>) -> Option<Network> {
        let key = self.keys.config();
        let read = match config {
            None => Err(format!(
                "there is no {key} in etcd; make it with \"overlay-agent cluster init --cidr 10.244.0.0/16\""
            )),
            Some(config) => Network::read(&config.value)
                .map_err(|error| format!("{key} in etcd cannot be followed: {error}")),
        };
        self.ignored = None;
        match (read, &self.network) {
            (Ok(new), Some(before)) if *before != new && self.own.is_some() => {
                self.ignored = Some(format!(
                    "{key} in etcd has changed, and the network before is kept; restart the agent to follow it"
                ));
            }
            (Ok(new), _) => self.network = Some(new),
            (Err(why), Some(_)) => self.ignored = Some(why),
            (Err(why), None) => self.refusal = Some(why),
        }
        self.network.clone()
    }

    async fn carry_out(&mut self, client: &Client, step: Step) -> Result<Outcome, ClientError> {
        self.refusal = None;
        let (subnet, guard) = match step {
            Step::Keep { subnet, lease } => {
                if !client.keep_alive(lease).await? {
                    // It has just ended: the entry goes, too.
                    return Ok(Outcome::Again);
                }
                self.has(subnet);
                return Ok(Outcome::Has(lease));
            }
            Step::Refuse { why, subnet } => {
                self.refusal = Some(why);
                self.own = subnet.or(self.own);
                return Ok(Outcome::HasNone);
            }
            Step::Replace {
                subnet,
                mod_revision,
            } => {
                let guard = client::unchanged(&self.keys.lease(subnet), mod_revision);
                (subnet, guard)
            }
            Step::Create { subnet } => (subnet, client::version(&self.keys.lease(subnet), 0)),
        };
        let lease = client.grant(TTL).await?;
        let key = self.keys.lease(subnet);
        let used = format!("{}{subnet}", self.keys.used());
        let operations = vec![
            client::put(&key, &self.me.lease.write(), lease),
            client::put(&used, self.me.lease.node().unwrap_or_default(), 0),
        ];
        if client.transact(vec![guard], operations).await? {
            self.has(subnet);
            return Ok(Outcome::Has(lease));
        }
        client.revoke(lease).await?;
        Ok(Outcome::Again)
    }

    fn has(&mut self, subnet: Subnet) {
        self.own = Some(subnet);
        self.me.last = Some(subnet);
        self.me.fresh = false;
        // Whoever has got addresses of it since: a running node is not renumbered.
        self.me.bound = true;
    }

    /// Follows events until the store has to be listed again.
    async fn watch(
        &mut self,
        client: &Client,
        revision: i64,
        lease: Option<i64>,
        tell: &mut impl FnMut(News),
    ) -> Result<(), End> {
        let keys = (&*self.keys.config(), &*self.keys.subnets());
        let mut events = client.watch(keys, revision + 1).await?;
        let begin = now();
        let mut renewal = begin + RENEWAL.mul_f64(0.9 + self.part() / 5.0);
        let look = begin + LOOK.mul_f64(0.9 + self.part() / 5.0);
        let mut calm = None;
        loop {
            let next = [
                calm,
                Some(look),
                lease.map(|_| renewal),
                self.book.doubt_ends(),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(look);
            let wait = next.saturating_sub(now()).min(TICK);
            let message = tokio::select! {
                message = next_message(&mut events) => Some(message?),
                () = sleep(wait) => None,
                Ok(()) = self.access.changed() => return Err(End::Access),
            };
            if let Some(message) = message {
                self.answered = Some(now());
                if message.canceled && message.compact_revision == 0 {
                    return Err(End::Failed(ClientError::Refused {
                        call: "watch keys",
                        cause: message.cancel_reason,
                    }));
                }
                if self.take(&message, lease) {
                    return Ok(());
                }
                calm = calm
                    .or(Some(now() + CALM))
                    .filter(|_| !message.events.is_empty());
            }
            let now = now();
            if calm.is_some_and(|calm| now >= calm) {
                calm = None;
                tell(self.news());
            }
            if let Some(lease) = lease.filter(|_| now >= renewal) {
                if !client.keep_alive(lease).await? {
                    return Ok(());
                }
                renewal = now + RENEWAL.mul_f64(0.9 + self.part() / 5.0);
            }
            if now >= look || self.book.doubt_ends().is_some_and(|end| now >= end) {
                return Ok(());
            }
        }
    }

    /// Takes events in; whether the store has to be listed again.
    fn take(&mut self, message: &WatchResponse, lease: Option<i64>) -> bool {
        if message.compact_revision != 0 {
            return true;
        }
        if let (Some(store), Some(header)) = (&mut self.store, &message.header) {
            if header.cluster_id != store.cluster {
                return true;
            }
            store.revision = store.revision.max(header.revision);
        }
        let own = self.own.map(|own| self.keys.lease(own));
        let mut again = false;
        for event in &message.events {
            let Some(kv) = &event.kv else { continue };
            let Some(entry) = self.entry(kv) else {
                // The configuration.
                again = true;
                continue;
            };
            let deleted = event.r#type == i32::from(EventType::Delete);
            let is_own = own.as_ref().is_some_and(|own| own.as_bytes() == kv.key);
            again |= is_own && (deleted || Some(kv.lease) != lease);
            if deleted {
                self.book.deleted(&entry.key, now());
            } else {
                self.book.put(&entry, now());
            }
        }
        // Who waits for a subnet looks again when anything has changed.
        again || lease.is_none() && !message.events.is_empty()
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

    /// All that is known, as the agent wants it.
    fn news(&mut self) -> News {
        let mut problems: Vec<String> = self.refusal.iter().chain(&self.ignored).cloned().collect();
        let mut fragment = None;
        let mut nodes = 0;
        if let Some(network) = &self.network {
            let (peers, wrong) = self.book.peers(network, self.own);
            problems.extend(wrong);
            nodes = peers.len();
            fragment = self
                .own
                .map(|own| fragment::write(&self.name, network, own, &peers));
        }
        let fragment = fragment.filter(|text| self.told.as_ref() != Some(text));
        if fragment.is_some() {
            self.told.clone_from(&fragment);
        }
        problems.splice(0..0, self.connection.clone());
        News {
            state: match self.connection {
                Some(_) => State::Disconnected,
                None => State::Following,
            },
            endpoint: self.endpoint.clone(),
            problems,
            fragment,
            subnet: self.own.map(|own| own.to_string()),
            nodes,
            doubtful: self.book.doubtful(),
            revision: self.store.map_or(0, |store| store.revision),
            connections: self.connections,
            answered_ms: self
                .answered
                .and_then(|at| u64::try_from(at.as_millis()).ok()),
        }
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

/// What a claim has come to.
enum Outcome {
    /// The store has changed meanwhile.
    Again,
    /// The entry stands, by this lease.
    Has(i64),
    /// There is none.
    HasNone,
}

async fn next_message(events: &mut Streaming<WatchResponse>) -> Result<WatchResponse, End> {
    match events.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(End::Failed(ClientError::Refused {
            call: "watch keys",
            cause: "the member has ended it".to_owned(),
        })),
        Err(status) => Err(End::Failed(ClientError::of("watch keys", &status))),
    }
}

/// Since the machine has started, its sleep included.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
