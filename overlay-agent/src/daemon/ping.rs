//! Pings: the very packets that a container sends, from its own namespace, so that they take the
//! way of its traffic, through the same programs.
//!
//! What is sent is a datagram for a port that nobody listens on, as `traceroute` does: the
//! kernel of whoever gets it refuses it by ICMP, which takes no privileges of the sender.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use overlay_control::{
    EndpointStatus, Reply,
    ping::{Outcome, Ping, Pinged},
};
use overlay_core::model::{Endpoint, Family, Network, Peer, Range};
use overlay_kernel::{
    self as kernel, netns,
    udp::refusals::{self, Question},
};
use tokio::{sync::oneshot, task::spawn_blocking};

use super::Reconciler;

/// A port that nobody listens on: the first one of `traceroute`.
const NOBODY: u16 = 33434;
/// Length in bytes.
const UDP_HEADER: u16 = 8;
/// Nobody waits longer for an answer.
const LONGEST: Duration = Duration::from_secs(10);

/// The path of a ping.
struct Way {
    /// The namespace; `None`: the node's.
    netns: Option<PathBuf>,
    question: Question,
    patience: Duration,
    /// With nothing known of the outcome.
    pinged: Pinged,
}

impl Reconciler {
    /// Sends one packet and answers when its own answer has come, or has not; the daemon goes on
    /// meanwhile.
    pub(super) fn ping(&self, wanted: &Ping, to: oneshot::Sender<Reply>) {
        let way = match self.way_of_ping(wanted) {
            Ok(way) => way,
            Err(refusal) => return super::answer(to, *refusal),
        };
        tokio::spawn(async move {
            let target = way.question.to.ip();
            let reply = match spawn_blocking(move || way.send()).await {
                Ok(Ok(pinged)) => Reply::Pinged(Box::new(pinged)),
                Ok(Err(error)) => Reply::Failed(format!("ping {target}: {error}")),
                Err(error) => Reply::Failed(format!("ping {target}: {error}; try again")),
            };
            super::answer(to, reply);
        });
    }

    fn way_of_ping(&self, wanted: &Ping) -> Result<Way, Box<Reply>> {
        let Ping {
            to,
            from,
            ipv6,
            size,
            patience_ms,
        } = wanted;
        let asked = if *ipv6 { Family::V6 } else { Family::V4 };
        let (network, target) = self.target(to, asked)?;
        let family = Family::of(target);
        let whole = |reason: String| format!("ping {to}: {reason}");
        if *ipv6 && family != Family::V6 {
            let reason = format!(
                "it has no IPv6 address in network {}; leave out -6",
                network.name
            );
            return Err(Box::new(Reply::BadInput(whole(reason))));
        }
        let smallest = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        } + UDP_HEADER;
        if (1..smallest).contains(size) {
            let reason = format!(
                "a datagram over {family} has {smallest} bytes at least, its headers; give that many with -s, or \
                 leave it out"
            );
            return Err(Box::new(Reply::BadInput(whole(reason))));
        }
        let range = network.range(family).ok_or_else(|| {
            let reason = format!("network {} has no addresses of its family", network.name);
            Box::new(Reply::BadInput(whole(reason)))
        })?;
        let sender = self.sender(from.as_deref(), network, target)?;
        let own = match &sender {
            None => range.gateway(),
            Some(endpoint) => address(endpoint, family).ok_or_else(|| {
                let reason = format!("endpoint {} has no address of its family", endpoint.name);
                Box::new(Reply::BadInput(whole(reason)))
            })?,
        };
        let patience = Duration::from_millis((*patience_ms).into()).min(LONGEST);
        Ok(Way {
            netns: sender.as_ref().map(|endpoint| endpoint.netns.clone()),
            question: Question {
                from: Some(own),
                to: SocketAddr::new(target, NOBODY),
                size: *size,
            },
            patience,
            pinged: Pinged {
                endpoint: sender.map(|endpoint| endpoint.name),
                from: own,
                to: target,
                network: network.name.clone(),
                mtu: self.facts.mtus.get(&network.name).copied(),
                outcome: Outcome::Unsent,
                rtt_ns: None,
            },
        })
    }

    /// The address that is meant, and its network; a name that has addresses of both families is
    /// asked at the one of `family`.
    fn target(&self, to: &str, family: Family) -> Result<(&Network, IpAddr), Box<Reply>> {
        let not_found = |reason: String| Box::new(Reply::NotFound(format!("ping {to}: {reason}")));
        let address = to.parse::<IpAddr>().ok();
        if let Some(address) = address {
            let mut networks = self.model.networks.iter();
            let network = networks.find(|network| {
                let range = network.range(Family::of(address));
                range.is_some_and(|range| range.cidr.contains(&address))
            });
            if let Some(network) = network {
                return Ok((network, address));
            }
        }
        let chosen = |addresses: &[IpAddr]| {
            let mut of_family = addresses.iter();
            let of_family = of_family.find(|address| Family::of(**address) == family);
            of_family.or(addresses.first()).copied()
        };
        let mut endpoints = self.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name.as_str() == to);
        let gateways = |peer: &Peer| -> Vec<IpAddr> {
            let subnets = peer.subnets.iter();
            subnets.map(|subnet| Range::gateway_of(*subnet)).collect()
        };
        let mut networks = self.model.networks.iter();
        let peer = networks.find_map(|network| {
            let mut peers = network.peers.iter();
            let peer = peers.find(|peer| peer.name.as_str() == to)?;
            Some((network, gateways(peer)))
        });
        match (endpoint, peer) {
            (Some(endpoint), Some((_, gateways))) => {
                let of_peer = chosen(&gateways);
                let own = chosen(&self.endpoint(endpoint).addresses);
                let named = |address: Option<IpAddr>| {
                    address.map_or_else(|| "no address".to_owned(), |it| it.to_string())
                };
                Err(Box::new(Reply::BadInput(format!(
                    "ping {to}: an endpoint of this node has this name, and a peer has it, too; \
                     give the address: {} of the endpoint, {} of the peer's gateway",
                    named(own),
                    named(of_peer)
                ))))
            }
            (Some(endpoint), None) => {
                let network = self.model.network(&endpoint.network);
                let found = network.zip(chosen(&self.endpoint(endpoint).addresses));
                found.ok_or_else(|| not_found("the endpoint has no address yet".to_owned()))
            }
            (None, Some((network, gateways))) => chosen(&gateways)
                .map(|gateway| (network, gateway))
                .ok_or_else(|| not_found("the peer has no part of the network".to_owned())),
            (None, None) if address.is_some() => Err(not_found(
                "no network has this address; give one of a container or gateway".to_owned(),
            )),
            (None, None) => Err(not_found(
                "there is no such peer, endpoint of this node or address; see \"overlay-agent peer list\" \
                 and \"overlay-agent endpoint list\""
                    .to_owned(),
            )),
        }
    }

    /// The sender; `None`: the node.
    fn sender(
        &self,
        from: Option<&str>,
        network: &Network,
        target: IpAddr,
    ) -> Result<Option<EndpointStatus>, Box<Reply>> {
        let attached = |endpoint: &EndpointStatus| endpoint.device.is_some();
        let all = self.model.endpoints.iter();
        match from {
            Some(Endpoint::NODE) => Ok(None),
            Some(name) => {
                let mut named = all.filter(|endpoint| endpoint.name.as_str() == name);
                let found = named.next().map(|endpoint| self.endpoint(endpoint));
                found.filter(attached).map(Some).ok_or_else(|| {
                    Box::new(Reply::NotFound(format!(
                        "ping from {name}: there is no endpoint of this name that is attached; see \
                         \"overlay-agent endpoint list\""
                    )))
                })
            }
            None => {
                let own = all.filter(|endpoint| endpoint.network == network.name);
                let mut own = own.map(|endpoint| self.endpoint(endpoint));
                Ok(own.find(|endpoint| {
                    attached(endpoint)
                        && !endpoint.addresses.contains(&target)
                        && address(endpoint, Family::of(target)).is_some()
                }))
            }
        }
    }
}

fn address(endpoint: &EndpointStatus, family: Family) -> Option<IpAddr> {
    let mut addresses = endpoint.addresses.iter().copied();
    addresses.find(|address| Family::of(*address) == family)
}

impl Way {
    fn send(self) -> kernel::Result<Pinged> {
        let Self {
            netns,
            question,
            patience,
            mut pinged,
        } = self;
        let ask = || {
            let start = Instant::now();
            let replies = refusals::ask(&[question], patience);
            (replies.first().copied(), start.elapsed())
        };
        let (reply, took) = match netns {
            Some(netns) => netns::run_in(&netns, ask)?,
            None => ask(),
        };
        pinged.outcome = match reply {
            Some(refusals::Reply::Refused) => Outcome::Answered,
            Some(refusals::Reply::TooBig) => Outcome::TooBig,
            Some(refusals::Reply::Nothing) => Outcome::Silent,
            Some(refusals::Reply::Unsent) | None => Outcome::Unsent,
        };
        pinged.rtt_ns = (pinged.outcome == Outcome::Answered)
            .then(|| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        Ok(pinged)
    }
}
