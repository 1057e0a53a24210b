//! Requests that change the desired state.

use std::{fs, io};

use overlay_control::{EndpointSpec, EndpointStatus, Reply};
use overlay_core::{
    config::{endpoint_addresses, endpoint_name, endpoint_sources, interface, netns_ref},
    desired::{self, Problem, veth_name},
    identity::Bound,
    model::{Clash, Endpoint, LogLevel, Name, NetnsRef},
    trouble::{self, Trouble, without_numbers},
};
use overlay_kernel::bpf::Variant;
use overlay_node::{observe::Found, store::StoreError};

use super::{Reconciler, reconcile::identity};

impl Reconciler {
    /// Attaches a container; on failure nothing of it stays.
    pub(super) async fn endpoint_add(&mut self, spec: &EndpointSpec) -> Reply {
        let endpoint = match self.validate(spec) {
            Ok(endpoint) => endpoint,
            Err(refusal) => return refusal.of(&spec.name),
        };
        let before = self.look_for(&endpoint).await;
        let problem = self.in_the_way_of(&endpoint);
        if let Some(problem) = problem.or_else(|| self.no_address_for(&endpoint)) {
            return self.refused(&problem);
        }
        if let Err(error) = self.store.begins_to_add(&endpoint.name) {
            return Reply::Failed(error.to_string());
        }
        let reply = self.add_endpoint(&endpoint, before).await;
        match self.store.has_added() {
            Ok(()) => reply,
            // The next agent would undo it.
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    /// What would keep an endpoint from being attached, that is no part of the model yet and whose
    /// place has been looked at. Who asks is told, and nobody else has to hear of it.
    pub(super) fn in_the_way_of(&self, endpoint: &Endpoint) -> Option<Problem> {
        desired::in_the_way_of(self.inputs(), endpoint)
    }

    fn no_address_for(&self, endpoint: &Endpoint) -> Option<Problem> {
        let network = self.model.network(&endpoint.network)?;
        let subnet = self.store.content().is_full_for(endpoint, network)?;
        Some(Problem::NoAddress {
            endpoint: endpoint.name.clone(),
            subnet,
        })
    }

    /// That an endpoint cannot be attached.
    fn refused(&self, problem: &Problem) -> Reply {
        let mut trouble = [Trouble::from(problem)];
        self.make_pasteable(&mut trouble);
        let text = trouble::list(&trouble);
        match problem {
            Problem::NoNamespace { .. } | Problem::ProcessEnded { .. } => Reply::NotFound(text),
            Problem::InterfaceTaken { .. }
            | Problem::AddressTaken { .. }
            | Problem::DeviceTaken { .. }
            | Problem::SameDeviceName { .. } => Reply::Exists(text),
            Problem::NodeNamespace { .. } => Reply::BadInput(text),
            _ => Reply::Failed(text),
        }
    }

    async fn add_endpoint(&mut self, endpoint: &Endpoint, before: Option<Found>) -> Reply {
        let name = endpoint.name.clone();
        if let Err(error) = self.admit(endpoint, None) {
            return Reply::Failed(error.to_string());
        }
        if !self.attach(endpoint, before).await {
            self.reconcile().await;
        }
        match self.endpoint_status(&name) {
            Some(status) if status.device.is_some() => Reply::Endpoint(Box::new(status)),
            _ => {
                let reasons = self.reasons(&name);
                let reply = match self.in_the_way_of(endpoint) {
                    Some(problem) => self.refused(&problem),
                    None => Reply::Failed(reasons.clone()),
                };
                match self.forget(&name).await {
                    Ok(()) => reply,
                    Err(undone) => Reply::Failed(format!("{reasons}\n{undone}")),
                }
            }
        }
    }

    /// Detaches a container that was attached at run time.
    pub(super) async fn endpoint_del(&mut self, name: &str) -> Reply {
        let configured = self
            .config
            .endpoints
            .iter()
            .any(|endpoint| endpoint.name.as_str() == name);
        let of_this_name = |clash: &Clash| matches!(clash, Clash::Name { endpoint, .. } if endpoint.as_str() == name);
        // One that was added at run time has the name, and the configuration's is left out.
        let is_left_out = self.model.clashes.iter().any(of_this_name);
        if configured && !is_left_out {
            return Reply::BadInput(format!(
                "delete endpoint {name}: it belongs to the configuration; remove it from the file"
            ));
        }
        let added = self
            .store
            .content()
            .endpoints
            .iter()
            .find(|endpoint| endpoint.name.as_str() == name);
        let Some(name) = added.map(|endpoint| endpoint.name.clone()) else {
            return Reply::NotFound(format!(
                "delete endpoint {name}: there is none of this name; see \"overlay-agent endpoint list\""
            ));
        };
        match self.forget(&name).await {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(error),
        }
    }

    /// Attaches or detaches the programs, and remembers it over restarts.
    pub(super) async fn fastpath(&mut self, on: bool) -> Reply {
        if on && !self.wants_programs() {
            return Reply::BadInput(
                "switch the fast path on: every network has fastpath = \"off\"; change it in the configuration".to_owned(),
            );
        }
        self.wish();
        if let Err(error) = self.store.update(|content| content.fastpath_off = !on) {
            return Reply::Failed(error.to_string());
        }
        self.reconcile().await;
        match &self.unavailable {
            Some(reason) if on => Reply::Failed(format!("switch the fast path on: {reason}")),
            _ if self.report.failed.is_empty() => Reply::Done,
            _ => Reply::Failed(trouble::list(&self.report.failed)),
        }
    }

    /// Loads the programs to tell the log so much; forgotten when the daemon ends.
    pub(super) async fn log_level(&mut self, level: LogLevel) -> Reply {
        let variant = Variant {
            log: level,
            ..self.variant
        };
        match self.set_variant(variant).await {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(format!("set the programs' log level: {error}")),
        }
    }

    /// Puts programs in the place of those that are attached which say more, or less, and do
    /// the same. When they cannot be loaded, those that are there stay.
    pub(super) async fn set_variant(&mut self, variant: Variant) -> Result<(), String> {
        if self.node.dataplane.is_none() {
            let reason = self.unavailable.as_ref().map(ToString::to_string);
            return Err(reason.unwrap_or_else(|| "every network has fastpath = \"off\"".to_owned()));
        }
        let before = std::mem::replace(&mut self.variant, variant);
        self.load_programs();
        if let Some(reason) = self.unavailable.take() {
            self.variant = before;
            return Err(reason.to_string());
        }
        self.reconcile().await;
        if self.report.failed.is_empty() {
            Ok(())
        } else {
            Err(trouble::list(&self.report.failed))
        }
    }

    /// Remembers a container that was not there before.
    pub(super) fn admit(
        &mut self,
        endpoint: &Endpoint,
        bound: Option<Bound>,
    ) -> Result<(), StoreError> {
        if let Some(network) = self.model.network(&endpoint.network) {
            self.store.admit(endpoint, network, bound, identity)?;
            self.model.endpoints.push(endpoint.clone());
        }
        self.wish();
        Ok(())
    }

    pub(super) async fn forget(&mut self, name: &Name) -> Result<(), String> {
        self.wish();
        let alone = self.alone(name).await;
        self.late.forget(name);
        let forgotten = self.store.forget(name);
        forgotten.map_err(|error| error.to_string())?;
        if let Some(alone) = alone {
            self.model.endpoints.retain(|other| other.name != *name);
            if self.detach(name, alone).await {
                self.settle_wish();
                return Ok(());
            }
        } else {
            self.complete();
        }
        self.reconcile().await;
        if self.report.failed.is_empty() {
            Ok(())
        } else {
            Err(trouble::list(&self.report.failed))
        }
    }

    /// The same rules as for an endpoint of the configuration.
    pub(super) fn validate(&self, spec: &EndpointSpec) -> Result<Endpoint, Refusal> {
        let name = endpoint_name(&spec.name).map_err(text)?;
        let added = &self.store.content().endpoints;
        let mut there = self.model.endpoints.iter().chain(added);
        if there.any(|endpoint| endpoint.name == name) {
            return Err(Refusal::Exists(
                "there is one of this name already; choose another, or delete it first".to_owned(),
            ));
        }
        let network = self
            .model
            .networks
            .iter()
            .find(|network| network.name.as_str() == spec.network);
        let network = network.ok_or_else(|| {
            let names: Vec<&str> = self
                .model
                .networks
                .iter()
                .map(|network| network.name.as_str())
                .collect();
            Refusal::NotFound(format!(
                "there is no network {:?}; there is: {}",
                spec.network,
                names.join(", ")
            ))
        })?;
        let netns = match (&spec.netns, spec.pid) {
            (Some(netns), None) => netns_ref(netns).map_err(text)?,
            (None, Some(pid)) => {
                must_be_seen(pid)?;
                NetnsRef::Pid(pid)
            }
            _ => {
                return Err(Refusal::BadInput(
                    "give either a network namespace or a process: --netns NAME or --pid PID"
                        .to_owned(),
                ));
            }
        };
        let interface = interface(spec.interface.as_deref()).map_err(text)?;
        let addresses = endpoint_addresses(&spec.addresses, network).map_err(text)?;
        for address in &addresses {
            let mut taken = self.store.content().allocations.iter();
            if let Some((owner, _)) = taken.find(|(_, given)| given.addresses.contains(address)) {
                return Err(Refusal::Exists(format!(
                    "address {address} is in use by endpoint {owner}; choose another, or leave it out"
                )));
            }
        }
        let place = netns.path();
        let same_place =
            |other: &&Endpoint| other.interface == interface && other.netns.path() == place;
        if let Some(other) = self.model.endpoints.iter().find(same_place) {
            return Err(Refusal::InterfaceTaken(format!(
                "{interface} in {} is endpoint {} already; choose another with --interface",
                netns.path().display(),
                other.name
            )));
        }
        let allowed_sources = endpoint_sources(
            &spec.allowed_sources,
            spec.forwarding,
            network,
            &self.model.networks,
            &self.model.endpoints,
        )
        .map_err(text)?;
        Ok(Endpoint {
            name,
            network: network.name.clone(),
            netns,
            addresses,
            interface,
            forwarding: spec.forwarding,
            allowed_sources,
            mac: None,
            attachment: None,
        })
    }

    /// Why an endpoint is not attached, as far as it is known.
    pub(super) fn reasons(&self, name: &Name) -> String {
        let device = veth_name(name);
        let concerns = |trouble: &&Trouble| {
            trouble.endpoint.as_ref() == Some(name)
                || device.is_some_and(|device| trouble.subject == device.as_str())
        };
        let mine: Vec<&Trouble> = self.problems.iter().filter(concerns).collect();
        if mine.is_empty() {
            trouble::list(&self.problems)
        } else {
            trouble::list(mine)
        }
    }

    pub(super) fn endpoint_status(&self, name: &Name) -> Option<EndpointStatus> {
        let mut endpoints = self.model.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name == *name)?;
        Some(self.endpoint(endpoint))
    }
}

/// Whether there is a process, and its network namespace can be looked at.
fn must_be_seen(pid: u32) -> Result<(), Refusal> {
    let namespace = NetnsRef::Pid(pid).path();
    fs::metadata(&namespace).map(drop).map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound => Refusal::NotFound(format!(
                "there is no process {pid}; give the number of one that runs in the container"
            )),
            _ => Refusal::BadInput(format!(
                "look at {}: {}; the agent may not look at that process: give it CAP_SYS_PTRACE, or name the \
                 namespace by another path",
                namespace.display(),
                without_numbers(&error.to_string())
            )),
        }
    })
}

/// Why an endpoint cannot be added.
pub(super) enum Refusal {
    BadInput(String),
    NotFound(String),
    Exists(String),
    InterfaceTaken(String),
}

impl Refusal {
    /// Why, whatever kind it is of.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::BadInput(reason)
            | Self::NotFound(reason)
            | Self::Exists(reason)
            | Self::InterfaceTaken(reason) => reason,
        }
    }

    /// For an endpoint of this name.
    fn of(self, name: &str) -> Reply {
        let whole = |reason: String| format!("add endpoint {name}: {reason}");
        match self {
            Self::BadInput(reason) => Reply::BadInput(whole(reason)),
            Self::NotFound(reason) => Reply::NotFound(whole(reason)),
            Self::Exists(reason) | Self::InterfaceTaken(reason) => Reply::Exists(whole(reason)),
        }
    }
}

fn text(error: impl std::fmt::Display) -> Refusal {
    Refusal::BadInput(error.to_string())
}
