//! Parameters of the name service, and its part of `status`.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use overlay_control::NamesStatus;
use overlay_core::{
    model::{Endpoint, NameServer, Names, Network, Range},
    trouble::{Trouble, ids},
};
use overlay_names::{MAX_PEERS, PORT, Room, Service, Setup};
use tracing::warn;

use super::Reconciler;

/// Where a node's name servers are written down.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Labels that tell how a container is called; the first that is there counts.
const LABELS: [&str; 2] = ["name", "pod"];

/// A node's name service, as the daemon holds it.
#[derive(Debug, Default)]
pub(super) struct NameService {
    running: Option<Service>,
    failed: Option<String>,
    /// Why the node's own name servers are not known, where they are to be asked.
    unread: Option<String>,
    /// The problems that were logged.
    told: Vec<Trouble>,
}

impl Reconciler {
    /// Has the names follow what is attached now.
    pub(super) fn follow_names(&mut self) {
        let Some(names) = &self.model.node.names else {
            self.names = NameService::default();
            return;
        };
        let (forward, unread) = match names.forward.as_slice() {
            [] => match fs::read_to_string(RESOLV_CONF) {
                Ok(text) => (of_the_node(&text), None),
                // The node asks nobody either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            },
            servers => (servers.iter().map(|NameServer(at)| *at).collect(), None),
        };
        let setup = self.rooms(names, &forward);
        self.names.unread = unread;
        if self.names.running.is_none() {
            match Service::start() {
                Ok(service) => self.names.running = Some(service),
                Err(error) => self.names.failed = Some(error.to_string()),
            }
        }
        if let Some(running) = &mut self.names.running {
            self.names.failed = None;
            running.follow(setup);
        }
        let troubles = self.name_troubles();
        for trouble in troubles.iter().filter(|it| !self.names.told.contains(it)) {
            warn!("{trouble}");
        }
        self.names.told = troubles;
    }

    /// The names that are answered at each gateway.
    fn rooms(&self, names: &Names, forward: &[SocketAddr]) -> Setup {
        let mut setup = Setup::new();
        for network in &self.model.networks {
            if !self.facts.mtus.contains_key(&network.name) {
                continue;
            }
            let gateways: Vec<IpAddr> = network.ranges.iter().map(Range::gateway).collect();
            // Who is told to ask it asks itself.
            let mut forward = forward.to_vec();
            forward.retain(|server| !gateways.contains(&server.ip()));
            let Some(room) = self.room(names, network, forward) else {
                continue;
            };
            let room = Arc::new(room);
            setup.extend(gateways.into_iter().map(|at| (at, room.clone())));
        }
        setup
    }

    fn room(&self, names: &Names, network: &Network, forward: Vec<SocketAddr>) -> Option<Room> {
        let peers = network.peers.iter().filter(|peer| peer.has_agent);
        let peers = peers.flat_map(|peer| peer.subnets.iter().copied());
        let peers: Vec<IpAddr> = peers.map(Range::gateway_of).take(MAX_PEERS + 1).collect();
        let peers = if peers.len() > MAX_PEERS {
            Vec::new()
        } else {
            peers
        };
        let ranges = network.ranges.iter().map(|range| range.cidr).collect();
        let zone = names.zone.0.clone();
        let mut room = Room::new(zone, network.name.as_str(), ranges, peers, forward)?;
        let allocations = &self.store.content().allocations;
        let endpoints = self.model.endpoints.iter();
        for endpoint in endpoints.filter(|endpoint| endpoint.network == network.name) {
            let Some(given) = allocations.get(&endpoint.name) else {
                continue;
            };
            for name in called(endpoint) {
                room.add(name, &given.addresses);
            }
        }
        Some(room)
    }

    /// The domain and the servers that a container of a network is to be told, where names are
    /// answered.
    pub(super) fn name_servers(&self, network: &Network) -> Option<overlay_api::Dns> {
        let names = self.model.node.names.as_ref()?;
        let zone = names.zone.0.of_network(network.name.as_str())?;
        Some(overlay_api::Dns {
            servers: network.ranges.iter().map(Range::gateway).collect(),
            search: vec![zone.to_string()],
        })
    }

    /// Where names are not answered though they should be.
    pub(super) fn name_troubles(&self) -> Vec<Trouble> {
        let all = match (&self.names.running, &self.names.failed) {
            (Some(running), _) => running.refused(),
            (None, Some(why)) => BTreeMap::from([(IpAddr::from([0, 0, 0, 0]), why.clone())]),
            (None, None) => BTreeMap::new(),
        };
        let cure = "stop what listens there (\"ss -lnptu sport = :53\"), or restart the agent if \
                    [names] is newer than it";
        let troubles = all.into_iter().map(|(at, why)| {
            Trouble::new(ids::NAMES_CLOSED, at, why, cure)
                .during(format!("answer for names at {at}, port {PORT}"))
        });
        let unread = self.names.unread.iter().map(|why| {
            let cure = "see why it cannot be read, or write name servers into names.forward";
            Trouble::new(ids::NAMES_CLOSED, RESOLV_CONF, why, cure).during(format!(
                "hand on questions for other names: read {RESOLV_CONF}"
            ))
        });
        troubles.chain(unread).collect()
    }

    pub(super) fn names_status(&self) -> Option<NamesStatus> {
        let names = self.model.node.names.as_ref()?;
        let running = self.names.running.as_ref();
        let counters = running.map(Service::counters).unwrap_or_default();
        let refused = running.map(Service::refused).unwrap_or_default();
        let setup = running.map(Service::setup);
        let open = setup.into_iter().flat_map(Setup::keys);
        Some(NamesStatus {
            zone: names.zone.to_string(),
            at: open
                .filter(|at| !refused.contains_key(at))
                .copied()
                .collect(),
            answered: counters.answered,
            asked_of_peers: counters.peers,
            forwarded: counters.forwarded,
            failed: counters.failed,
        })
    }
}

/// The names of a container: by its runtime, and by the agent.
fn called(endpoint: &Endpoint) -> impl Iterator<Item = &str> {
    let labels = endpoint.attachment.iter().map(|it| &it.labels);
    let by_runtime = labels.flat_map(|labels| LABELS.iter().filter_map(|it| labels.get(*it)));
    let by_runtime = by_runtime.map(String::as_str).take(1);
    by_runtime.chain([endpoint.name.as_str()])
}

/// Name servers by the text of `resolv.conf`.
fn of_the_node(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)
    });
    // A link-local one has a zone that is the node's alone.
    let servers = servers.filter_map(|text| text.parse::<IpAddr>().ok());
    servers.map(|at| SocketAddr::new(at, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_servers_are_those_of_its_file() {
        let text = "# comment\nsearch a b\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\n\
                    nameserver fe80::1%eth0\noptions x\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|it| it.parse().unwrap());
        assert_eq!(of_the_node(text), expected);
    }
}
