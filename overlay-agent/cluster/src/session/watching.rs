//! Follows the store from a list on.

use std::time::Duration;

use tokio::time::sleep;
use tonic::Streaming;

use super::{CALM, End, Session, Store, now};
use crate::{
    client::{Client, ClientError},
    proto::{EventType, WatchResponse},
    subnet::Subnet,
    talk::News,
};

/// A lease is renewed so often, a tenth earlier or later, so that nodes do not do it all at once.
const RENEWAL: Duration = Duration::from_hours(1);
/// The store is listed so often although nothing seems to be missing.
const LOOK: Duration = Duration::from_mins(10);
/// Who has gone is told with the next who comes, or so much later: he is kept for longer anyway,
/// and what is told is all that is known.
const LAZY: Duration = Duration::from_secs(5);
/// So many whose doubt is over are looked up one by one; for more the store is listed.
const SINGLY: usize = 64;
/// Timers stand still while the machine sleeps: the clock is looked at so often.
const TICK: Duration = Duration::from_secs(30);

impl Session {
    /// Follows events until the store has to be listed again.
    pub(super) async fn watch(
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
                if !message.events.is_empty() {
                    let put = i32::from(EventType::Put);
                    let urgent = message.events.iter().any(|event| event.r#type == put);
                    let due = now() + if urgent { CALM } else { LAZY };
                    calm = Some(calm.map_or(due, |calm: Duration| calm.min(due)));
                }
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
            if now >= look {
                return Ok(());
            }
            let due = self.book.due(now);
            if !due.is_empty() {
                if due.len() > SINGLY || !self.look_up(client, &due).await? {
                    return Ok(());
                }
                let later = now + LAZY;
                calm = Some(calm.map_or(later, |calm| calm.min(later)));
            }
        }
    }

    /// Asks for the entries of some that were missing; false if it is not the store of before that
    /// has answered.
    async fn look_up(&mut self, client: &Client, missing: &[Subnet]) -> Result<bool, ClientError> {
        for &subnet in missing {
            let (header, kv) = client.get(&self.keys.lease(subnet)).await?;
            let same = |store: Store| {
                store.cluster == header.cluster_id && store.revision <= header.revision
            };
            if !self.store.is_some_and(same) {
                return Ok(false);
            }
            let entry = kv.and_then(|kv| self.entry(&kv));
            self.book.looked_up(subnet, entry.as_ref(), now());
        }
        Ok(true)
    }

    /// Takes events in; whether the store has to be listed again.
    fn take(&mut self, message: &WatchResponse, lease: Option<i64>) -> bool {
        if message.compact_revision != 0 {
            return true;
        }
        // etcd's grpc-proxy does not say which store it is where it has watched already for somebody
        // else; its revision is the one that was asked for then, which the store may not have reached.
        let header = message
            .header
            .as_ref()
            .filter(|header| header.cluster_id != 0);
        if let (Some(store), Some(header)) = (&mut self.store, header) {
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
