//! Requests of container runtimes' plugins. Each can be repeated: who asks may have been killed
//! before it got its answer.

mod check;
mod hold;
mod identify;
mod vanished;

use std::fmt::Display;

use overlay_api::{Attached, AttachedAddress, Believed, Kind, Refusal, Unwanted, Wanted};
use overlay_control::Reply;
use overlay_core::{
    desired::{Problem, default_route},
    identity::Bound,
    model::{Endpoint, Family},
    objects::{LinkId, Scope},
    trouble::{self, Trouble},
};
use overlay_kernel::{netlink::Netlink, netns::LOOPBACK};
use tracing::warn;

use super::Reconciler;
pub(super) use hold::Held;
use identify::{full, within_limits};

type Result<T> = std::result::Result<T, Refusal>;

fn refused(kind: Kind, message: impl Display) -> Refusal {
    Refusal {
        kind,
        message: message.to_string(),
    }
}

fn answer<T>(result: Result<T>, reply: impl FnOnce(T) -> Reply) -> Reply {
    result.map_or_else(Reply::Refused, reply)
}

impl Reconciler {
    /// Attaches a container for its runtime. The one that is there already is told again.
    pub(super) async fn attachment_add(&mut self, wanted: &Wanted) -> Reply {
        answer(self.add(wanted).await, |attached| {
            Reply::Attached(Box::new(attached))
        })
    }

    /// Detaches it.
    pub(super) async fn attachment_del(&mut self, unwanted: &Unwanted) -> Reply {
        answer(self.delete(unwanted).await, |()| Reply::Done)
    }

    /// Compares it with what its runtime believes of it.
    pub(super) async fn attachment_check(&mut self, believed: &Believed) -> Reply {
        answer(self.check(believed).await, |()| Reply::Done)
    }

    /// The keys of those of one source.
    pub(super) fn attachment_list(&self, source: &str) -> Reply {
        let endpoints = self.store.content().endpoints.iter();
        let keys = endpoints.filter_map(Endpoint::key);
        Reply::Attachments(keys.filter(|key| key.source == source).collect())
    }

    /// Whether one could be added to a network.
    pub(super) fn attachment_ready(&self, network: Option<&str>) -> Reply {
        answer(self.ready(network), |()| Reply::Done)
    }

    fn ready(&self, network: Option<&str>) -> Result<()> {
        let network = self.network_of(network)?;
        if !self.facts.mtus.contains_key(&network.name) {
            let text = format!(
                "network {} is not up: {}",
                network.name,
                trouble::list(&self.problems)
            );
            return Err(refused(Kind::Busy, text));
        }
        if !self.store.content().has_room(network) {
            return Err(full(network));
        }
        Ok(())
    }

    async fn add(&mut self, wanted: &Wanted) -> Result<Attached> {
        let what = format!("attach container {}", wanted.key.container);
        within_limits(wanted)?;
        // It is newer than what has been left there.
        if let Err(error) = self.spool.remove(&wanted.key) {
            return Err(refused(Kind::Failed, format!("{what}: {error}")));
        }
        let found = self.same_namespace(&wanted.netns, &what)?;
        let network = self.network_of(wanted.network.as_deref())?.name.clone();
        if let Some(there) = self.by_key(&wanted.key) {
            let here = self.store.content().is_bound(&there.name, found);
            if here && there.network == network {
                return self.attached_again(&there, &what).await;
            }
            if !here && !wanted.replace && self.is_alive(&there) {
                return Err(refused(
                    Kind::ExistsElsewhere,
                    format!(
                        "{what}: it is attached as endpoint {} in {}; delete that first",
                        there.name,
                        there.netns.path().display()
                    ),
                ));
            }
            self.forget_or_refuse(&there.name, &what).await?;
        }
        self.forget_predecessors(wanted, found, &what).await?;
        let endpoint = self.endpoint_of(wanted, &network, &what)?;
        let name = endpoint.name.clone();
        let bound = Bound::to(found).map_err(|error| refused(Kind::Failed, error))?;
        let admitted = self.admit(&endpoint, Some(bound));
        admitted.map_err(|error| refused(Kind::Failed, error))?;
        match self.bring_up(&endpoint, &what).await {
            Ok(attached) => Ok(attached),
            Err(refusal) => {
                if let Err(error) = self.forget(&name).await {
                    warn!("{what}: {error}");
                }
                Err(refusal)
            }
        }
    }

    async fn bring_up(&mut self, endpoint: &Endpoint, what: &str) -> Result<Attached> {
        if let Some(network) = self.model.network(&endpoint.network) {
            let given = self.store.content().allocations.get(&endpoint.name);
            if given.is_none_or(|given| given.addresses.len() < network.ranges.len()) {
                return Err(full(network));
            }
        }
        // Its runtime is told what is in its way, and nobody else has to hear of it.
        let before = self.look_for(endpoint).await;
        if let Some(problem) = self.in_the_way_of(endpoint) {
            return Err(self.refused_for(&problem, what));
        }
        if !self.attach(endpoint, before).await {
            self.reconcile().await;
        }
        self.follow_names();
        for address in &endpoint.addresses {
            self.held.release(*address);
        }
        let attached = self.attached(endpoint, false);
        let attached = attached.ok_or_else(|| self.why_not(endpoint, what))?;
        let inside = endpoint.netns.path();
        let raised = async { Netlink::open_in(&inside)?.set_up(LOOPBACK, true).await };
        let raised = raised.await;
        raised.map_err(|error| refused(Kind::Failed, format!("{what}: {error}")))?;
        let handed_over = self.store.hand_over(&endpoint.name);
        handed_over.map_err(|error| refused(Kind::Failed, error))?;
        Ok(attached)
    }

    async fn attached_again(&mut self, endpoint: &Endpoint, what: &str) -> Result<Attached> {
        let handed_over = self.store.content().is_handed_over(&endpoint.name);
        match self.attached(endpoint, true).filter(|_| handed_over) {
            Some(attached) => Ok(attached),
            // Whoever was to attach it has not come to its end.
            None => self.bring_up(endpoint, what).await,
        }
    }

    /// The attachment, if it is whole.
    fn attached(&self, endpoint: &Endpoint, existed: bool) -> Option<Attached> {
        let status = self.endpoint_status(&endpoint.name)?;
        let objects = &self.observed.objects;
        let scope = Scope::Endpoint(endpoint.name.clone());
        let id = LinkId {
            scope: scope.clone(),
            name: endpoint.interface,
        };
        let inside = objects.links.get(&id)?;
        let network = self.model.network(&endpoint.network)?;
        let addresses = network.ranges.iter().map(|range| {
            let mut given = status.addresses.iter().copied();
            let address = given.find(|address| Family::of(*address) == range.family())?;
            let key = default_route(scope.clone(), range.family());
            Some(AttachedAddress {
                net: range.on_link(address),
                gateway: range.gateway(),
                default_route: objects.routes.contains_key(&key),
            })
        });
        Some(Attached {
            key: endpoint.key()?,
            name: endpoint.name.to_string(),
            network: endpoint.network.to_string(),
            device: status.device?.to_string(),
            mac: inside.mac?.to_string(),
            mtu: inside.mtu,
            addresses: addresses.collect::<Option<_>>()?,
            dns: self.name_servers(network),
            existed,
        })
    }

    /// Why it cannot be attached.
    fn refused_for(&self, problem: &Problem, what: &str) -> Refusal {
        let kind = match problem {
            Problem::NoNamespace { .. } | Problem::ProcessEnded { .. } => {
                let text = format!("{what}: its namespace is gone; start the container again");
                return refused(Kind::NoNamespace, text);
            }
            Problem::InterfaceTaken { .. } => Kind::InterfaceTaken,
            Problem::NodeNamespace { .. } => Kind::NodeNamespace,
            Problem::AddressTaken { .. } => Kind::AddressTaken,
            _ => Kind::Failed,
        };
        let mut trouble = [Trouble::from(problem)];
        self.make_pasteable(&mut trouble);
        refused(kind, format!("{what}: {}", trouble::list(&trouble)))
    }

    fn why_not(&self, endpoint: &Endpoint, what: &str) -> Refusal {
        match self.in_the_way_of(endpoint) {
            Some(problem) => self.refused_for(&problem, what),
            None => refused(
                Kind::Failed,
                format!("{what}: {}", self.reasons(&endpoint.name)),
            ),
        }
    }

    async fn delete(&mut self, unwanted: &Unwanted) -> Result<()> {
        let container = &unwanted.key.container;
        let what = format!("detach container {container}");
        if let Err(error) = self.spool.remove(&unwanted.key) {
            warn!("{what}: {error}");
        }
        let Some(there) = self.by_key(&unwanted.key) else {
            return Err(refused(
                Kind::NotFound,
                format!("{what}: there is no such attachment; nothing is left to do"),
            ));
        };
        if unwanted.if_gone && self.is_alive(&there) {
            return Err(refused(
                Kind::Alive,
                format!("{what}: endpoint {} is in use; stop it first", there.name),
            ));
        }
        self.forget_or_refuse(&there.name, &what).await?;
        self.follow_names();
        Ok(())
    }
}
