//! The node's state as the API shows it.

mod peers;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use overlay_cluster::talk::State;
use overlay_control::{
    Carried, ClusterStatus, EndpointStatus, FastPathState, FastPathStatus, GuardTableStatus,
    HookStatus, NetworkStatus, PeerStatus, Problem, RangeStatus, SCHEMA, Status, stats::PathCounts,
};
use overlay_core::{
    desired::{PassedBy, bridge_name},
    filter::Following,
    model::{Endpoint, IfName, LogLevel, Network},
    objects::{AttachmentState, Filter, FilterRules, Guard, LinkId, LinkKind, Scope, guard_table},
    trouble::{Trouble, ids},
};
use overlay_kernel::{KernelError, bpf::AttachMode};
use tracing::warn;

use self::peers::{Counted, carried};
use super::{Reconciler, capture::Capture};

impl Reconciler {
    /// As of the last round; counters as of now.
    pub(super) fn status(&mut self) -> Status {
        let problems = self.problems_now();
        let fastpath = self.fastpath_status();
        let counted = self.node.with_maps(|maps| Counted::read(maps.counters()));
        let counted = counted.unwrap_or_else(|error| {
            warn!("{error}");
            None
        });
        let by_kernel = self.by_kernel().unwrap_or_else(|error| {
            warn!("{error}");
            vec![PathCounts::default(); self.model.networks.len()]
        });
        let networks: Vec<NetworkStatus> = self
            .model
            .networks
            .iter()
            .zip(by_kernel)
            .map(|(network, by_kernel)| self.network_status(network, counted.as_ref(), by_kernel))
            .collect();
        Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: overlay_kernel::hooks::abi(),
            instance: self.store.content().instance().clone(),
            node: self.model.node.name.clone(),
            healthy: problems.is_empty(),
            problems,
            vteps: self.facts.vteps.clone(),
            underlay: self.facts.underlay.clone(),
            fastpath,
            cluster: self.cluster_status(),
            guard_table: self.guard_table(),
            networks,
            endpoints: self
                .model
                .endpoints
                .iter()
                .map(|endpoint| self.endpoint(endpoint))
                .collect(),
            probe: self.probes.status(),
            names: self.names_status(),
            log_level: self.log_level_now(),
            capture: self.capture.as_ref().map(Capture::status),
        }
    }

    pub(super) fn cluster_status(&self) -> Option<ClusterStatus> {
        let cluster = self.config.cluster.as_ref()?;
        let news = self.cluster.as_ref();
        let connected = news.is_some_and(|news| news.state == State::Following);
        let answered = news.and_then(|news| news.answered_ms);
        let contact_age_ms = match answered {
            Some(_) if connected => Some(0),
            Some(then) => Some(since_boot().saturating_sub(then)),
            None => None,
        };
        Some(ClusterStatus {
            network: cluster.network.clone(),
            connected,
            endpoint: news.map(|news| news.endpoint.clone()),
            subnet: news.and_then(|news| news.subnet.clone()),
            nodes: news.map_or(0, |news| news.nodes),
            doubtful: news.map_or(0, |news| news.doubtful),
            encrypted: cluster.wireguard.is_some(),
            with_key: news.map_or(0, |news| news.with_key),
            without_key: news.map_or_else(Vec::new, |news| news.without_key.clone()),
            revision: news.map_or(0, |news| news.revision),
            connections: news.map_or(0, |news| news.connections),
            contact_age_ms,
        })
    }

    /// The level at which the attached programs log; off where there are none.
    fn log_level_now(&self) -> LogLevel {
        let dataplane = self.node.dataplane.as_ref();
        dataplane.map_or(LogLevel::Off, |dataplane| dataplane.variant().log)
    }

    /// The table that enforces the networks' rules on the kernel's path.
    fn guard_table(&self) -> GuardTableStatus {
        let name = guard_table(self.store.content().instance());
        let reason = self.observed.around.no_guard.as_ref();
        GuardTableStatus {
            holds: matches!(self.observed.objects.guard, Some(Guard::Does(_))),
            reason: reason.map(|reason| reason.cause(&name)),
            name,
        }
    }

    /// The problems, and since when there are.
    pub(super) fn problems_now(&mut self) -> Vec<Problem> {
        let troubles = self.troubles();
        self.since.stamp(troubles)
    }

    /// All that is not as it should be: `status`, `doctor`, the service manager and Prometheus
    /// have this one list.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = self.problems.clone();
        if let Some(reason) = self.store.failure() {
            troubles.push(Trouble::new(
                ids::STATE_NOT_SAVED,
                "state",
                format!(
                    "what is remembered is not on the disk, and would not outlive a reboot: {reason}"
                ),
                "see that the disk has room and lets the agent write there; it tries again every second",
            ));
        }
        troubles.extend(self.closed_to_metrics.clone());
        if let Some(reason) = &self.refused {
            troubles.push(Trouble::new(
                ids::CONFIG_REFUSED,
                "configuration",
                format!(
                    "the configuration file is refused, the one before stays in force: {reason}"
                ),
                format!(
                    "correct the file; \"overlay-agent check --config {}\" tells all that is wrong",
                    self.store.content().config.display()
                ),
            ));
        }
        troubles.extend(self.refused_fragments.iter().cloned());
        troubles.extend(self.cluster_troubles.iter().cloned());
        if let Some(error) = self.unavailable_because() {
            troubles.push(Trouble::new(
                ids::FASTPATH_UNAVAILABLE,
                "fast path",
                format!(
                    "the fast path is unavailable, the kernel's VXLAN device carries everything: {}",
                    error.what()
                ),
                error.cure().unwrap_or("see the agent's log").to_owned(),
            ));
        }
        troubles.extend(self.name_troubles());
        troubles.extend(self.flow_troubles());
        troubles.extend(self.probe_problems());
        troubles.extend(self.taken_sources());
        self.make_pasteable(&mut troubles);
        troubles
    }

    /// Prefixes behind endpoints that were added at run time, which the configuration has given
    /// to somebody else since.
    fn taken_sources(&self) -> impl Iterator<Item = Trouble> {
        let added = self.store.content().endpoints.iter();
        let forwarding = added.filter(|added| !added.allowed_sources.is_empty());
        let differ = forwarding.filter_map(|added| {
            let mut endpoints = self.model.endpoints.iter();
            let now = endpoints.find(|endpoint| endpoint.name == added.name)?;
            let configured = self
                .config
                .endpoints
                .iter()
                .any(|one| one.name == added.name);
            (!configured).then_some((added, now))
        });
        differ.flat_map(|(added, now)| {
            let sources = added.allowed_sources.iter();
            let taken = sources.filter(|source| !now.allowed_sources.contains(source));
            taken.map(|source| {
                Trouble::new(
                    ids::SOURCE_TAKEN,
                    &added.name,
                    format!(
                        "{source} is not behind it any more: the configuration gives it to \
                         somebody else"
                    ),
                    "correct that, or add the endpoint again without it",
                )
                .during(format!("endpoint {}", added.name))
                .of_endpoint(&added.name)
            })
        })
    }

    /// The state of the programs.
    pub(super) fn fastpath_state(&self) -> FastPathState {
        if self.store.content().fastpath_off || !self.wants_programs() {
            FastPathState::Off
        } else if self.unavailable.is_some() {
            FastPathState::Unavailable
        } else {
            FastPathState::On
        }
    }

    fn unavailable_because(&self) -> Option<&KernelError> {
        let unavailable = self.fastpath_state() == FastPathState::Unavailable;
        self.unavailable.as_ref().filter(|_| unavailable)
    }

    fn fastpath_status(&self) -> FastPathStatus {
        let state = self.fastpath_state();
        let attach = self
            .node
            .dataplane
            .as_ref()
            .map(|dataplane| match dataplane.mode() {
                AttachMode::Clsact => "clsact".to_owned(),
                AttachMode::Tcx | AttachMode::Auto => "tcx".to_owned(),
            });
        let reason = self.unavailable_because().map(ToString::to_string);
        FastPathStatus {
            state,
            attach,
            reason,
            pins: self.node.pins.clone(),
            guard: self.model.node.guard,
            guarded: self.guarded(),
            rx: self.model.node.rx,
        }
    }

    fn guarded(&self) -> Vec<IfName> {
        let attachments = self.observed.objects.attachments.iter();
        attachments
            .filter(|((_, hook), state)| hook.is_xdp() && **state == AttachmentState::Current)
            .map(|((device, _), _)| *device)
            .collect()
    }

    fn network_status(
        &self,
        network: &Network,
        counted: Option<&Counted>,
        by_kernel: PathCounts,
    ) -> NetworkStatus {
        let rules = self.filter_rules();
        let (encryption, passed) = self.encryption(network);
        let peers: Vec<PeerStatus> = network
            .peers
            .iter()
            .map(|peer| {
                let status = self.peer_status(network, peer, counted);
                self.with_encryption(status, network, peer, &passed)
            })
            .collect();
        NetworkStatus {
            name: network.name.clone(),
            vni: network.vni,
            port: network.port,
            ranges: network
                .ranges
                .iter()
                .map(|range| RangeStatus {
                    cidr: range.cidr,
                    subnet: range.subnet,
                    gateway: range.gateway(),
                })
                .collect(),
            mtu: self.facts.mtus.get(&network.name).copied(),
            fastpath: network.fastpath,
            followed: self.left_for_flows(network).or_else(|| {
                let following = self.observed.around.followed.get(&network.name);
                following.map(Following::text)
            }),
            dscp: network.dscp,
            security: network.security,
            masquerade: rules.is_some_and(|rules| rules.masquerades(network)),
            isolated: rules
                .zip(bridge_name(network.vni))
                .is_some_and(|(rules, bridge)| rules.isolates(bridge)),
            hooks: told(self.facts.hooks.get(&network.name)),
            encryption,
            carried: Carried {
                fastpath: carried(&peers),
                kernel: by_kernel,
            },
            peers,
        }
    }

    fn filter_rules(&self) -> Option<&FilterRules> {
        match &self.observed.objects.filter {
            Some(Filter::Rules(rules)) => Some(rules),
            Some(Filter::Altered) | None => None,
        }
    }

    pub(super) fn endpoint(&self, endpoint: &Endpoint) -> EndpointStatus {
        let scope = Scope::Endpoint(endpoint.name.clone());
        let device = self
            .observed
            .objects
            .links
            .iter()
            .find_map(|(id, link)| match &link.kind {
                LinkKind::Veth { peer } if peer.scope == scope => Some(id.name),
                _ => None,
            });
        let inside = self.observed.objects.links.get(&LinkId {
            scope,
            name: endpoint.interface,
        });
        let ifindex = device
            .and_then(|device| self.observed.around.links.get(&device))
            .map(|link| link.index);
        let given = self.store.content().allocations.get(&endpoint.name);
        EndpointStatus {
            name: endpoint.name.clone(),
            network: endpoint.network.clone(),
            addresses: given
                .map(|given| given.addresses.clone())
                .unwrap_or_default(),
            interface: endpoint.interface,
            netns: endpoint.netns.path(),
            forwarding: endpoint.forwarding,
            allowed_sources: endpoint.allowed_sources.clone(),
            mac: inside.and_then(|link| link.mac),
            device,
            ifindex,
            configured: self
                .config
                .endpoints
                .iter()
                .any(|other| other.name == endpoint.name),
            hooks: told(self.facts.endpoint_hooks.get(&endpoint.name)),
            attachment: endpoint.attachment.clone(),
        }
    }
}

fn told(hooks: Option<&Vec<PassedBy>>) -> Vec<HookStatus> {
    let hooks = hooks.into_iter().flatten();
    let told = hooks.map(|hook| HookStatus {
        device: hook.device,
        what: hook.what.clone(),
    });
    told.collect()
}

/// Milliseconds since the machine has started, its sleep included: the helper's clock.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
