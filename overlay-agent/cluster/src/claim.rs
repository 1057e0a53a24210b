//! This node's own subnet: which one it has, and what it has to do for it.
//!
//! A decision is made from a list of the store, and carried out by transactions that fail if the
//! store has changed meanwhile; then it is made again. Nothing is ever put unconditionally.

use std::collections::BTreeMap;

use crate::{
    book::Entry,
    choose,
    lease::{Lease, shown},
    network::Network,
    problem::Problem,
    subnet::Subnet,
};

/// This node's identity, and the subnet that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its lease in the store; its name stands there, too.
    pub lease: Lease,
    /// The subnet that it has had, from its own memory.
    pub last: Option<Subnet>,
    /// The one that its configuration asks for.
    pub wanted: Option<Subnet>,
    /// Whether containers have, or may have, addresses of the last one: then it must not get another.
    pub bound: bool,
    /// Whether nothing has been claimed since the program started. An entry of this node's name
    /// at another address is then its own from before the address changed; later it is that of a
    /// copy of this machine, which is not fought.
    pub fresh: bool,
}

/// The next action of a node for its subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the entry is there, with this lease of the store, and says what it should.
    Keep {
        /// Its subnet.
        subnet: Subnet,
        /// etcd's lease, to be kept alive.
        lease: i64,
    },
    /// Put the entry in the place of the one that is there, unless that changes.
    Replace {
        /// Its subnet.
        subnet: Subnet,
        /// The revision that must not change.
        mod_revision: i64,
    },
    /// Put the entry where there is none.
    Create {
        /// Its subnet.
        subnet: Subnet,
    },
    /// Nothing can be done; the data plane stays as it is.
    Refuse {
        /// Why.
        why: Problem,
        /// The subnet that it has none the less.
        subnet: Option<Subnet>,
    },
}

impl Me {
    /// Writes what flannel would write in this network: its VNI, and its families alone.
    pub fn fit(&mut self, whole: &Lease, network: &Network) -> Result<(), Problem> {
        let mut lease = whole.clone();
        lease.v4.vni = network.vni;
        if network.v6.is_none() {
            (lease.public_v6, lease.v6) = (None, None);
        } else if let Some(v6) = &mut lease.v6 {
            v6.vni = network.vni;
        } else {
            return Err(Problem::new(
                "network",
                "the network has IPv6, and this node's underlay has no IPv6 address",
                "give it one",
            ));
        }
        self.lease = lease;
        Ok(())
    }

    /// This node's name in the store.
    fn name(&self) -> &str {
        self.lease.node().unwrap_or_default()
    }

    /// Decides the action, from a list of all entries and of when subnets were last used.
    pub fn decide(
        &self,
        network: &Network,
        entries: &[Entry],
        used: &BTreeMap<Subnet, i64>,
    ) -> Step {
        let read = entries.iter().filter_map(|entry| {
            let subnet: Subnet = entry.key.parse().ok()?;
            Some((subnet, (entry, Lease::read(&entry.value).ok())))
        });
        let all: BTreeMap<Subnet, (&Entry, Option<Lease>)> = read.collect();
        // What it has had comes first,
        if let Some(last) = self.last
            && network.gives(&last)
            && let Some(step) = self.claim(last, &all)
        {
            return step;
        }
        if let Some(last) = self.last.filter(|_| self.bound) {
            return refuse_another(last, &all);
        }
        // then what the store says is this node's,
        let address = self.lease.public_v4;
        let at_address = all.iter().find(|(_, (_, lease))| {
            lease
                .as_ref()
                .is_some_and(|lease| lease.public_v4 == address)
        });
        if let Some((&subnet, (_, lease))) = at_address {
            let other = lease.as_ref().and_then(Lease::node);
            if other.is_some_and(|other| other != self.name()) {
                return Step::Refuse {
                    why: Problem::new(
                        subnet,
                        format_args!(
                            "{subnet} belongs to node {} with this node's address {address}",
                            shown(other.unwrap_or_default()),
                        ),
                        "give each node its own address and name, or run \"overlay-agent down && overlay-agent \
                         cluster leave --config FILE\" there",
                    ),
                    subnet: None,
                };
            }
            if network.gives(&subnet)
                && let Some(step) = self.claim(subnet, &all)
            {
                return step;
            }
        }
        // then what it asks for,
        if let Some(wanted) = self.wanted {
            if !network.gives(&wanted) {
                let why = Problem::new(
                    wanted,
                    format_args!(
                        "the subnet {wanted} that is asked for is none that the network gives"
                    ),
                    "correct cluster.subnet",
                );
                return Step::Refuse { why, subnet: None };
            }
            return self.claim(wanted, &all).unwrap_or_else(|| Step::Refuse {
                why: Problem::new(
                    wanted,
                    format_args!(
                        "the subnet {wanted} that is asked for is taken by {}",
                        owner(wanted, &all).unwrap_or_else(|| "somebody".to_owned())
                    ),
                    "ask for another, or leave out cluster.subnet",
                ),
                subnet: None,
            });
        }
        // and then any.
        let taken: Vec<Subnet> = all.keys().copied().collect();
        match choose::free(network, &taken, used, choose::seed(self.name())) {
            Some(subnet) => Step::Create { subnet },
            None => Step::Refuse {
                why: Problem::new(
                    "network",
                    "all subnets of the network are taken",
                    "let nodes leave that are gone (\"overlay-agent down && overlay-agent cluster leave --config \
                     FILE\"), or make the network larger",
                ),
                subnet: None,
            },
        }
    }

    /// How to get this very subnet; `None` if it is somebody else's.
    fn claim(
        &self,
        subnet: Subnet,
        all: &BTreeMap<Subnet, (&Entry, Option<Lease>)>,
    ) -> Option<Step> {
        let Some((entry, lease)) = all.get(&subnet) else {
            let free = !all.keys().any(|other| other.overlaps(&subnet));
            return free.then_some(Step::Create { subnet });
        };
        let lease = lease.as_ref()?;
        if *lease == self.lease && entry.lease != 0 {
            return Some(Step::Keep {
                subnet,
                lease: entry.lease,
            });
        }
        let same_node = lease.node().is_none_or(|node| node == self.name());
        let same_place = lease.public_v4 == self.lease.public_v4;
        // A lease of flannel's at this address is this node's: so a node is migrated.
        let moved = self.fresh && lease.node() == Some(self.name());
        (same_node && same_place || moved).then_some(Step::Replace {
            subnet,
            mod_revision: entry.mod_revision,
        })
    }
}

fn refuse_another(last: Subnet, all: &BTreeMap<Subnet, (&Entry, Option<Lease>)>) -> Step {
    let (what, other) = match owner(last, all) {
        Some(owner) => (
            format!("this node's subnet {last} is now {owner}'s"),
            "remove the other entry from etcd",
        ),
        None => (
            format!("this node's subnet {last} is none that the network gives any more"),
            "put the network's configuration in etcd right",
        ),
    };
    Step::Refuse {
        why: Problem::new(
            last,
            format_args!("{what}; it is kept, because containers may have addresses of it"),
            format_args!("{other}, or remove the containers from this node and restart its agent"),
        ),
        subnet: Some(last),
    }
}

/// Whose a subnet is, or one that overlaps it.
fn owner(subnet: Subnet, all: &BTreeMap<Subnet, (&Entry, Option<Lease>)>) -> Option<String> {
    let (_, found) = all.iter().find(|(other, _)| other.overlaps(&subnet))?;
    Some(match found {
        (_, Some(lease)) => match lease.node() {
            Some(node) => format!("node {} at {}", shown(node), lease.public_v4),
            None => format!("the node at {}", lease.public_v4),
        },
        (entry, None) => format!("entry {}", shown(&entry.key)),
    })
}
