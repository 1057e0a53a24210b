//! The agents of this machine, for commands that follow something from one to another: each is
//! asked when it is needed, once, and not waited for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    thread,
    time::Duration,
};

use overlay_control::{self as api, Reply, Request, Status};
use overlay_core::{dirs::Dirs, model::Name};

use super::Failure;

/// How long an agent has to say what it does, which each says at once, however busy it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The answers of the instances so far.
pub(super) struct Machine<'a> {
    dirs: &'a Dirs,
    instances: Vec<Name>,
    asked: BTreeMap<Name, Asked>,
}

/// The answer of an instance.
enum Asked {
    Says(Box<Status>),
    /// It takes the question and says nothing.
    Silent,
    /// Nobody is there to be asked.
    Nobody,
}

/// The other end of a tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The agent with this socket.
    At(PathBuf),
    /// None of this machine that answers; why.
    Unknown(String),
}

impl<'a> Machine<'a> {
    pub(super) fn new(dirs: &'a Dirs) -> Result<Self, Failure> {
        let mut instances = dirs.instances().map_err(Failure::bad_input)?;
        instances.retain(|instance| dirs.may_listen(instance));
        Ok(Self {
            dirs,
            instances,
            asked: BTreeMap::new(),
        })
    }

    /// Whether there is no choice.
    pub(super) fn is_alone(&self) -> bool {
        self.instances.len() < 2
    }

    /// The status of an instance, if it answers.
    pub(super) fn status(&mut self, instance: &Name) -> Option<&Status> {
        if !self.asked.contains_key(instance) {
            let asked = ask(self.dirs, instance);
            self.asked.insert(instance.clone(), asked);
        }
        self.known(instance)
    }

    fn known(&self, instance: &Name) -> Option<&Status> {
        match self.asked.get(instance)? {
            Asked::Says(status) => Some(status),
            Asked::Silent | Asked::Nobody => None,
        }
    }

    /// All that answer. They are asked at the same time: one that does not keeps nobody else.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (&Name, &Status)> {
        let dirs = self.dirs;
        let new: Vec<&Name> = self
            .instances
            .iter()
            .filter(|instance| !self.asked.contains_key(*instance))
            .collect();
        let answers: Vec<Asked> = thread::scope(|scope| {
            let asking: Vec<_> = new
                .iter()
                .map(|instance| scope.spawn(move || ask(dirs, instance)))
                .collect();
            let answers = asking.into_iter().map(thread::ScopedJoinHandle::join);
            answers
                .map(|asked| asked.unwrap_or(Asked::Nobody))
                .collect()
        });
        let new = new.into_iter().cloned().zip(answers);
        self.asked.extend(new);
        self.instances
            .iter()
            .filter_map(|instance| Some((instance, self.known(instance)?)))
    }

    /// Those that were asked and said nothing, in words; empty where there are none.
    pub(super) fn silent(&self) -> String {
        let asked = self.asked.iter();
        let silent = asked.filter(|(_, asked)| matches!(asked, Asked::Silent));
        let silent: Vec<&str> = silent.map(|(name, _)| name.as_str()).collect();
        match silent.as_slice() {
            [] => String::new(),
            [one] => format!("; instance {one} does not answer"),
            several => format!("; instances {} do not answer", several.join(", ")),
        }
    }

    /// The agent at the other end of an instance's tunnel to `vtep`. Other labs have the same
    /// addresses: it must be called as that instance knows its peer.
    pub(super) fn peer(&mut self, of: &Name, vtep: IpAddr) -> Peer {
        let Some(names) = self.status(of).map(|status| called(status, vtep)) else {
            return Peer::Unknown(format!("instance {of} does not say who is there"));
        };
        // An instance is called like its node, unless somebody wanted it otherwise.
        let likely: Vec<Name> = self
            .instances
            .iter()
            .filter(|&instance| instance != of && names.contains(instance.as_str()))
            .cloned()
            .collect();
        for instance in likely {
            let status = self.status(&instance);
            if status.is_some_and(|status| is(status, &names, vtep)) {
                return Peer::At(self.dirs.socket(&instance));
            }
        }
        let dirs = self.dirs;
        let all = self.all().filter(|(instance, _)| *instance != of);
        let (those, others): (Vec<_>, Vec<_>) = all
            .filter(|(_, status)| status.vteps.contains(&vtep))
            .partition(|(_, status)| is(status, &names, vtep));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let names = names.join(" or ");
        match (those.as_slice(), others.as_slice()) {
            ([(instance, _)], _) => Peer::At(dirs.socket(instance)),
            ([_, ..], _) => Peer::Unknown(format!("several instances are node {names}")),
            ([], []) => {
                Peer::Unknown("no agent that answers on this machine has that address".into())
            }
            ([], [(instance, status), ..]) => Peer::Unknown(format!(
                "instance {instance} has that address, too, but is node {}, and the peer is {names}",
                status.node
            )),
        }
    }

    /// What an instance that `from` has as a peer says, if it has what is looked for.
    pub(super) fn among_peers<T>(
        &mut self,
        from: &Name,
        find: impl Fn(&Status) -> Option<T>,
    ) -> Option<T> {
        let own = self.status(from)?;
        let networks = own.networks.iter();
        let vteps = networks.flat_map(|network| network.peers.iter().map(|peer| peer.vtep));
        let called: BTreeMap<IpAddr, BTreeSet<String>> =
            vteps.map(|vtep| (vtep, called(own, vtep))).collect();
        let is_peer = |status: &Status| {
            let mut vteps = status.vteps.iter();
            vteps.any(|vtep| {
                let names = called.get(vtep);
                names.is_some_and(|names| is(status, names, *vtep))
            })
        };
        let named = |name: &Name| called.values().any(|names| names.contains(name.as_str()));
        let instances = self.instances.iter();
        let likely: Vec<Name> = instances.filter(|name| named(name)).cloned().collect();
        for instance in likely {
            let found = self
                .status(&instance)
                .filter(|status| is_peer(status))
                .and_then(&find);
            if found.is_some() {
                return found;
            }
        }
        let mut peers = self.all().filter(|(_, status)| is_peer(status));
        peers.find_map(|(_, status)| find(status))
    }
}

fn ask(dirs: &Dirs, instance: &Name) -> Asked {
    let socket = dirs.socket(instance);
    match api::speaks(&socket, PATIENCE) {
        Ok(true) => match api::call(&socket, &Request::Status {}) {
            Ok(Reply::Status(status)) => Asked::Says(status),
            _ => Asked::Silent,
        },
        Ok(false) => Asked::Silent,
        Err(_) => Asked::Nobody,
    }
}

/// What the node at a VTEP may call itself: what its agent has said by probes, else what the
/// configuration calls it.
fn called(status: &Status, vtep: IpAddr) -> BTreeSet<String> {
    let networks = status.networks.iter();
    let peers = networks.flat_map(|network| &network.peers);
    let there = peers.filter(|peer| peer.vtep == vtep);
    let names = there.map(|peer| {
        let said = peer
            .health
            .as_ref()
            .and_then(|health| health.agent.as_ref());
        said.map_or_else(|| peer.name.to_string(), |agent| agent.node.clone())
    });
    names.collect()
}

fn is(status: &Status, names: &BTreeSet<String>, vtep: IpAddr) -> bool {
    status.vteps.contains(&vtep) && names.contains(status.node.as_str())
}
