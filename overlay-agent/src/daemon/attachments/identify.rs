//! Which endpoint, network and namespace a request is about.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use overlay_api::{Key, Kind, MAX_LABELS, MAX_TEXT, Namespace, Refusal, Wanted};
use overlay_control::EndpointSpec;
use overlay_core::{
    identity::NetnsId,
    model::{Attachment, Endpoint, Mac, Name, Network},
};

use super::{Reconciler, Result, refused};
use crate::daemon::{reconcile::identity, requests};

impl Reconciler {
    pub(super) fn by_key(&self, key: &Key) -> Option<Endpoint> {
        let mut endpoints = self.store.content().endpoints.iter();
        let found = endpoints.find(|endpoint| {
            let attachment = endpoint.attachment.as_ref();
            attachment.is_some_and(|it| it.container == key.container && it.source == key.source)
                && endpoint.interface.as_str() == key.interface
        });
        found.cloned()
    }

    /// Whether the namespace that an endpoint is bound to is where it was.
    pub(super) fn is_alive(&self, endpoint: &Endpoint) -> bool {
        let found = identity(&endpoint.netns.path());
        found.is_some_and(|found| self.store.content().is_bound(&endpoint.name, found))
    }

    pub(super) fn network_of(&self, name: Option<&str>) -> Result<&Network> {
        let networks = &self.model.networks;
        let found = match (name, networks.as_slice()) {
            (Some(name), _) => networks.iter().find(|it| it.name.as_str() == name),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = networks.iter().map(|it| it.name.as_str()).collect();
            let names = names.join(", ");
            let text = match name {
                Some(name) => format!("find network {name:?}: the agent has {names}; correct it"),
                None => format!("find the network: the agent has {names}; name one of them"),
            };
            refused(Kind::NoNetwork, text)
        })
    }

    /// The namespace, if it is the same one from here as it is for the client.
    pub(super) fn same_namespace(&self, netns: &Namespace, what: &str) -> Result<NetnsId> {
        let path = netns.path.display();
        let is_expected = |found: NetnsId| (found.dev, found.inode) == (netns.dev, netns.inode);
        let found = identity(&netns.path).filter(|_| netns.path.is_absolute());
        match found {
            Some(found) if found == self.node.netns => Err(refused(
                Kind::NodeNamespace,
                format!("{what}: {path} is the node's own network namespace; name the container's"),
            )),
            Some(found) if is_expected(found) => Ok(found),
            found => {
                let why = match found {
                    Some(_) => "leads to another namespace for the agent than for its client",
                    None => "leads to no network namespace for the agent",
                };
                let cure = "have both see the same mounts and processes";
                let text = format!("{what}: {path} {why}; {cure}");
                Err(refused(Kind::NoNamespace, text))
            }
        }
    }

    pub(super) async fn forget_or_refuse(&mut self, name: &Name, what: &str) -> Result<()> {
        let forgotten = self.forget(name).await;
        forgotten.map_err(|error| refused(Kind::Failed, format!("{what}: {error}")))
    }

    /// Forgets those of earlier namespaces that the same path led to.
    pub(super) async fn forget_predecessors(
        &mut self,
        wanted: &Wanted,
        found: NetnsId,
        what: &str,
    ) -> Result<()> {
        let content = self.store.content();
        let endpoints = content.endpoints.iter().filter(|endpoint| {
            endpoint.attachment.is_some()
                && endpoint.netns.path() == wanted.netns.path
                && !content.is_bound(&endpoint.name, found)
        });
        let names: BTreeSet<Name> = endpoints.map(|endpoint| endpoint.name.clone()).collect();
        for name in names {
            self.forget_or_refuse(&name, what).await?;
        }
        Ok(())
    }

    pub(super) fn endpoint_of(
        &self,
        wanted: &Wanted,
        network: &Name,
        what: &str,
    ) -> Result<Endpoint> {
        let invalid = |why: &dyn Display| refused(Kind::Invalid, format!("{what}: {why}"));
        for address in &wanted.addresses {
            if let Some(owner) = self.owner_of(*address) {
                let text = format!("{what}: address {address} is in use by endpoint {owner}");
                let text = format!("{text}; choose another, or leave it out");
                return Err(refused(Kind::AddressTaken, text));
            }
        }
        let Wanted { key, labels, .. } = wanted;
        let readable = ["pod", "name"].iter().find_map(|label| labels.get(*label));
        let spec = EndpointSpec {
            name: key.name(readable.map(String::as_str)),
            network: network.to_string(),
            netns: Some(wanted.netns.path.clone()),
            pid: None,
            addresses: wanted.addresses.iter().map(ToString::to_string).collect(),
            interface: Some(key.interface.clone()),
            forwarding: false,
            allowed_sources: Vec::new(),
        };
        let mut endpoint = self.validate(&spec).map_err(|why| {
            let kind = match why {
                requests::Refusal::InterfaceTaken(_) => Kind::InterfaceTaken,
                _ => Kind::Invalid,
            };
            refused(kind, format!("{what}: {}", why.reason()))
        })?;
        if let Some(mac) = &wanted.mac {
            let mac: Mac = mac.parse().map_err(|why| invalid(&why))?;
            let mut others = self.model.endpoints.iter();
            if let Some(other) = others.find(|it| it.network == *network && it.mac == Some(mac)) {
                let why = format!("MAC {mac} is in use by endpoint {}", other.name);
                return Err(refused(Kind::AddressTaken, format!("{what}: {why}")));
            }
            endpoint.mac = Some(mac);
        }
        endpoint.attachment = Some(Attachment {
            source: key.source.clone(),
            container: key.container.clone(),
            labels: labels.clone(),
            routed_by_runtime: wanted.routed_by_runtime,
        });
        Ok(endpoint)
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<&Name> {
        let mut given = self.store.content().allocations.iter();
        given.find_map(|(owner, given)| given.addresses.contains(&address).then_some(owner))
    }
}

pub(super) fn full(network: &Network) -> Refusal {
    let text = format!(
        "attach a container to network {}: all addresses of its subnet are taken; remove a \
         container, or give this node a larger subnet",
        network.name
    );
    refused(Kind::Full, text)
}

pub(super) fn within_limits(wanted: &Wanted) -> Result<()> {
    let Key {
        source, container, ..
    } = &wanted.key;
    let labels = wanted.labels.iter().flat_map(|(name, value)| [name, value]);
    let texts = [source, container].into_iter().chain(labels);
    let fits = |text: &String| text.len() <= MAX_TEXT;
    let few = wanted.labels.len() <= MAX_LABELS;
    if container.is_empty() || source.is_empty() || !few || !texts.into_iter().all(fits) {
        let text = format!(
            "attach a container: a source and an id of 1 to {MAX_TEXT} bytes are needed, and at \
             most {MAX_LABELS} labels of {MAX_TEXT} bytes; shorten them"
        );
        return Err(refused(Kind::Invalid, text));
    }
    Ok(())
}
