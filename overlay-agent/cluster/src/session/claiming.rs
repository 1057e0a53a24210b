//! A list of the store, and what follows from it for this node's own subnet.

use std::collections::BTreeMap;

use super::{Session, Store, now};
use crate::{
    book::{Continuity, Entry},
    claim::Step,
    client::{self, Client, ClientError},
    keys::below,
    network::Network,
    problem::Problem,
    proto::{KeyValue, ResponseHeader},
    subnet::Subnet,
};

/// flannel's: a node that is away for a day loses its subnet.
const TTL: i64 = 86_400;

impl Session {
    /// Lists everything and does what follows from it; the revision that was listed and the lease
    /// of this node, if the store can be watched from there.
    pub(super) async fn look(
        &mut self,
        client: &Client,
    ) -> Result<Option<(i64, Option<i64>)>, ClientError> {
        let list = client.list(&self.keys.subnets()).await?;
        // After the list, from whose revision on it is watched: so no change of it is missed.
        let (_, config) = client.get(&self.keys.config()).await?;
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
        let used = client.list(&self.keys.used()).await?;
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
            None => Err(Problem::new(
                "config",
                format_args!("there is no {key} in etcd"),
                "make it with \"overlay-agent cluster init --config FILE --cidr 10.244.0.0/16\"",
            )),
            Some(config) => match Network::read(&config.value) {
                Ok(network) => Ok(Network {
                    encrypted: self.encrypted,
                    ..network
                }),
                Err(error) => {
                    let what = format!("{key} in etcd cannot be followed: {error}");
                    Err(Problem::new("config", what, error.cure()))
                }
            },
        };
        self.ignored = None;
        match (read, &self.network) {
            (Ok(new), Some(before)) if *before != new && self.own.is_some() => {
                self.ignored = Some(Problem::new(
                    "config",
                    format_args!("{key} in etcd has changed, and the network before is kept"),
                    "restart the agent to follow it",
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
        match client.transact(vec![guard], operations).await {
            Ok(true) => {
                self.has(subnet);
                Ok(Outcome::Has(lease))
            }
            Ok(false) => {
                client.revoke(lease).await?;
                Ok(Outcome::Again)
            }
            Err(error) => {
                // Not to leave one behind at each try. Where the member does not answer at all it
                // ends by itself, and an entry that was written all the same is claimed again.
                let _ = client.revoke(lease).await;
                Err(error)
            }
        }
    }

    fn has(&mut self, subnet: Subnet) {
        self.own = Some(subnet);
        self.me.last = Some(subnet);
        self.me.fresh = false;
        // Whoever has got addresses of it since: a running node is not renumbered.
        self.me.bound = true;
    }
}

/// The outcome of a claim.
enum Outcome {
    /// The store has changed meanwhile.
    Again,
    /// The entry stands, by this lease.
    Has(i64),
    /// There is none.
    HasNone,
}
