//! The saved state, and the addresses that are handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{addresses, upgrade::FORMAT};
use crate::{
    identity::{Bound, Made, NetnsId},
    model::{Endpoint, Family, IfName, Model, Name, NetnsRef, Network, Range},
};

/// The addresses that belong to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// The network that it is in.
    pub network: Name,
    /// The addresses, at most one of a family.
    pub addresses: Vec<IpAddr>,
}

impl Allocation {
    /// The address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }
}

/// An outer address of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vtep {
    /// By which other nodes know it.
    pub address: IpAddr,
    /// The devices that it was found on, or beside.
    pub underlay: Vec<IfName>,
}

/// The file for flannel's CNI plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetEnv {
    /// Where it is.
    pub path: PathBuf,
    /// Texts by which it is ours: the written one, and until that is done the one before.
    pub texts: Vec<String>,
}

/// The content of the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    format: u32,
    instance: Name,
    /// The node's namespace, when it is not the initial one.
    pub netns: Option<PathBuf>,
    /// The configuration that the daemon was last started with.
    pub config: PathBuf,
    /// By endpoint.
    pub allocations: BTreeMap<Name, Allocation>,
    /// The outer addresses that were chosen, at most one of a family, IPv4 first; configured ones
    /// need no memory. Earlier versions had none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vteps: Vec<Vtep>,
    /// Endpoints added at run time.
    pub endpoints: Vec<Endpoint>,
    /// Namespaces that we made or were about to make; earlier versions noted a name before
    /// there was an identity.
    pub namespaces: BTreeMap<Name, Option<Made>>,
    /// The namespaces of endpoints that are named by a process: its number comes again
    /// for another process, its namespace must not.
    processes: BTreeMap<Name, Process>,
    /// The namespaces of endpoints that runtimes have asked for, whatever their paths lead to now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    bound: BTreeMap<Name, Bound>,
    /// Those of them whose inside has been set: what others change there since is theirs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    handed_over: BTreeSet<Name>,
    /// Kernel settings as they were before us.
    pub sysctls: BTreeMap<String, String>,
    /// Whether an operator has switched the fast path off.
    pub fastpath_off: bool,
    /// Whether we have made, or were about to make, a table of packet filter rules.
    pub packet_filter: bool,
    /// The file for flannel's CNI plugin that we wrote, or were about to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_env: Option<SubnetEnv>,
    /// The device that we were about to make: it is ours before it can say so. In a file of its
    /// own, because it does not outlive a reboot.
    #[serde(skip)]
    pub making: Option<IfName>,
    /// The endpoint that was being added when the agent was killed: nobody has been told that it
    /// is there. In a file of its own for the same reason.
    #[serde(skip)]
    pub adding: Option<Name>,
}

/// A process that an endpoint was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pid: u32,
    netns: NetnsId,
}

/// A change of little.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// An endpoint has come at run time.
    Admit {
        /// As it was asked for.
        endpoint: Box<Endpoint>,
        /// Its addresses.
        allocation: Allocation,
        /// The process that its namespace is named by.
        process: Option<Process>,
        /// The namespace, where a runtime has asked for it.
        #[serde(default)]
        bound: Option<Bound>,
    },
    /// The inside of one that a runtime has asked for has been set.
    HandOver(Name),
    /// It has gone.
    Forget(Name),
}

impl Content {
    /// The state of an instance that has never run.
    pub fn new(instance: Name) -> Self {
        Self {
            format: FORMAT,
            instance,
            netns: None,
            config: PathBuf::new(),
            allocations: BTreeMap::new(),
            vteps: Vec::new(),
            endpoints: Vec::new(),
            namespaces: BTreeMap::new(),
            processes: BTreeMap::new(),
            bound: BTreeMap::new(),
            handed_over: BTreeSet::new(),
            sysctls: BTreeMap::new(),
            fastpath_off: false,
            packet_filter: false,
            subnet_env: None,
            making: None,
            adding: None,
        }
    }

    /// The instance that this state belongs to.
    pub fn instance(&self) -> &Name {
        &self.instance
    }

    /// Whether this is a state of the instance; if not, why.
    pub fn must_be_of(&self, instance: &Name) -> Result<(), String> {
        if self.instance != *instance {
            return Err(format!("it belongs to instance {}", self.instance));
        }
        Ok(())
    }

    /// The outer address of a family that was chosen on this underlay, or on a part of it.
    pub fn vtep(&self, family: Family, underlay: &[IfName]) -> Option<IpAddr> {
        let on = |vtep: &&Vtep| vtep.underlay.iter().any(|name| underlay.contains(name));
        let mut vteps = self.vteps.iter().filter(on).map(|vtep| vtep.address);
        vteps.find(|address| Family::of(*address) == family)
    }

    /// Notes the outer addresses that are in use, but those that the configuration tells.
    pub fn remember_vteps(&mut self, model: &Model, vteps: &[IpAddr], underlay: &[IfName]) {
        for family in Family::ALL {
            let used = vteps.iter().find(|vtep| Family::of(**vtep) == family);
            let configured = model.node.configured_vtep(family).is_some();
            if used.is_some() || configured {
                self.vteps.retain(|vtep| Family::of(vtep.address) != family);
            }
            if let Some(&address) = used.filter(|_| !configured) {
                self.vteps.push(Vtep {
                    address,
                    underlay: underlay.to_vec(),
                });
            }
        }
        self.vteps.sort_by_key(|vtep| vtep.address.is_ipv6());
    }

    /// Whether a device without a mark of anybody is the one that we were stopped while making.
    pub fn was_making(&self, device: IfName, alias: Option<&str>) -> bool {
        alias.is_none() && self.making == Some(device)
    }

    /// Notes the namespace of every process that an endpoint is named by, when it is
    /// seen for the first time.
    pub fn recognise(&mut self, model: &Model, look: impl Fn(&Path) -> Option<NetnsId>) {
        let mut processes = BTreeMap::new();
        for endpoint in &model.endpoints {
            let NetnsRef::Pid(pid) = endpoint.netns else {
                continue;
            };
            let known = self.processes.get(&endpoint.name).copied();
            let known = known.filter(|known| known.pid == pid);
            let seen = || {
                Some(Process {
                    pid,
                    netns: look(&endpoint.netns.path())?,
                })
            };
            if let Some(process) = known.or_else(seen) {
                processes.insert(endpoint.name.clone(), process);
            }
        }
        self.processes = processes;
    }

    /// The record of an endpoint that comes at run time.
    pub fn admission(
        &self,
        endpoint: &Endpoint,
        network: &Network,
        bound: Option<Bound>,
        look: impl Fn(&Path) -> Option<NetnsId>,
    ) -> Change {
        let process = match endpoint.netns {
            NetnsRef::Pid(pid) => {
                let netns = look(&endpoint.netns.path());
                netns.map(|netns| Process { pid, netns })
            }
            NetnsRef::Name(_) | NetnsRef::Path(_) => None,
        };
        Change::Admit {
            endpoint: Box::new(endpoint.clone()),
            allocation: addresses::allocate_one(endpoint, network, &self.allocations),
            process,
            bound,
        }
    }

    /// Carries a change out.
    pub fn take_in(&mut self, change: Change) {
        match change {
            Change::Admit {
                endpoint,
                allocation,
                process,
                bound,
            } => {
                let name = &endpoint.name;
                self.processes
                    .extend(process.map(|process| (name.clone(), process)));
                self.bound.extend(bound.map(|bound| (name.clone(), bound)));
                self.allocations.insert(name.clone(), allocation);
                self.endpoints.push(*endpoint);
            }
            Change::HandOver(name) => {
                self.handed_over.insert(name);
            }
            Change::Forget(name) => {
                self.bound.remove(&name);
                self.handed_over.remove(&name);
                self.processes.remove(&name);
                self.allocations.remove(&name);
                self.endpoints.retain(|endpoint| endpoint.name != name);
            }
        }
    }

    /// Whether the namespace that an endpoint's reference leads to now is still the one it meant.
    pub fn means(&self, endpoint: &Endpoint, found: NetnsId) -> bool {
        if endpoint.attachment.is_some() {
            return self.is_bound(&endpoint.name, found);
        }
        match endpoint.netns {
            NetnsRef::Pid(_) => {
                let known = self.processes.get(&endpoint.name);
                known.is_none_or(|known| known.netns.is(found))
            }
            NetnsRef::Name(_) | NetnsRef::Path(_) => true,
        }
    }

    /// Whether this is the namespace that an endpoint is bound to.
    pub fn is_bound(&self, endpoint: &Name, found: NetnsId) -> bool {
        let bound = self.bound.get(endpoint);
        bound.is_some_and(|bound| bound.is(found))
    }

    /// Whether what others have changed inside an endpoint since it was attached is theirs.
    pub fn is_handed_over(&self, endpoint: &Name) -> bool {
        self.handed_over.contains(endpoint)
    }

    /// Whether an endpoint more of a network would get an address of each of its families.
    pub fn has_room(&self, network: &Network) -> bool {
        addresses::has_room(network, &self.allocations)
    }

    /// The last address of a network's range that no endpoint has and nobody keeps.
    pub fn last_free(&self, range: &Range, is_kept: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        addresses::last_free(range, &self.allocations, is_kept)
    }

    /// The subnet that has no address left for an endpoint that is to come, if one has none.
    pub fn is_full_for(&self, endpoint: &Endpoint, network: &Network) -> Option<IpNet> {
        let given = addresses::allocate_one(endpoint, network, &self.allocations);
        let mut ranges = network.ranges.iter();
        let full = ranges.find(|range| given.address(range.family()).is_none())?;
        Some(full.subnet)
    }

    /// Gives every endpoint of the model an address of each family of its network, its old
    /// one where it can keep it, and forgets the addresses of endpoints that are gone.
    ///
    /// An endpoint for which no address of a family is left has none of it afterwards.
    pub fn allocate(&mut self, model: &Model) {
        let before = mem::take(&mut self.allocations);
        self.allocations = addresses::allocate(model, &before);
        // Of a network, or a subnet, that may come back.
        for clash in &model.clashes {
            if let Some((endpoint, _)) = clash.waiting()
                && let Some(given) = before.get(endpoint)
            {
                self.allocations.insert(endpoint.clone(), given.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
