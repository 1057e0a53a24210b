//! Many nodes and one store, whatever happens in which order: no two nodes ever have one subnet,
//! nobody with containers is given another one, and in the end all know the same.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use overlay_cluster::{
    book::{Book, Continuity, DOUBT, Entry, RESTORED},
    claim::{Me, Step},
    lease::{Device, Lease, Mac},
    network::Network,
    subnet::Subnet,
};
use proptest::prelude::*;

const NODES: u8 = 5;

/// A store with transactions, leases and a backup.
#[derive(Clone, Default)]
struct Store {
    revision: i64,
    leases: i64,
    entries: BTreeMap<String, Entry>,
    used: BTreeMap<Subnet, i64>,
}

impl Store {
    fn write(&mut self, subnet: Subnet, value: &str) -> i64 {
        self.revision += 1;
        self.leases += 1;
        let key = subnet.to_string();
        let created = self
            .entries
            .get(&key)
            .map_or(self.revision, |entry| entry.create_revision);
        let entry = Entry {
            key: key.clone(),
            value: value.as_bytes().to_vec(),
            create_revision: created,
            mod_revision: self.revision,
            lease: self.leases,
        };
        self.entries.insert(key, entry);
        self.used.insert(subnet, self.revision);
        self.leases
    }

    fn list(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }
}

struct Node {
    me: Me,
    book: Book,
    /// What it has listed, and has not acted on yet.
    seen: Option<(Vec<Entry>, BTreeMap<Subnet, i64>)>,
    own: Option<Subnet>,
    revision: i64,
}

impl Node {
    fn new(number: u8) -> Self {
        let device = Device {
            vni: 1,
            mac: Mac([2, 0x4f, 192, 0, 2, number]),
        };
        let address = Ipv4Addr::new(192, 0, 2, number);
        Self {
            me: Me {
                lease: Lease::new((address, device), None, format!("n{number}")),
                last: None,
                wanted: None,
                bound: false,
                fresh: true,
            },
            book: Book::default(),
            seen: None,
            own: None,
            revision: 0,
        }
    }

    fn look(&mut self, store: &Store, now: Duration) {
        let entries = store.list();
        let continuity = if store.revision < self.revision {
            Continuity::Broken
        } else {
            Continuity::Kept
        };
        self.revision = store.revision;
        self.book.listed(&entries, continuity, now);
        self.seen = Some((entries, store.used.clone()));
    }

    /// Acts on what it has seen, which may be old by now.
    fn act(&mut self, network: &Network, store: &mut Store) {
        let Some((entries, used)) = self.seen.take() else {
            return;
        };
        let value = self.me.lease.write();
        let has = match self.me.decide(network, &entries, &used) {
            Step::Keep { subnet, .. } => Some(subnet),
            Step::Create { subnet } if !store.entries.contains_key(&subnet.to_string()) => {
                store.write(subnet, &value);
                Some(subnet)
            }
            Step::Replace {
                subnet,
                mod_revision,
            } => {
                let entry = store.entries.get(&subnet.to_string());
                let unchanged = entry.is_some_and(|entry| entry.mod_revision == mod_revision);
                unchanged.then(|| {
                    store.write(subnet, &value);
                    subnet
                })
            }
            Step::Create { .. } | Step::Refuse { .. } => None,
        };
        if let Some(subnet) = has {
            assert!(
                !self.me.bound || self.own.is_none_or(|own| own == subnet),
                "a node with containers was renumbered"
            );
            self.own = Some(subnet);
            self.me.last = Some(subnet);
            self.me.fresh = false;
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    /// A node lists the store,
    Look(u8),
    /// and acts on what it has seen.
    Act(u8),
    /// A node's entry ends, because it was away for a day or somebody removed it.
    Expire(u8),
    /// A node gets containers, or loses them.
    Bind(u8, bool),
    /// A node starts anew, with what it remembers or without.
    Restart(u8, bool),
    /// The store is saved,
    Backup,
    /// and goes back to that.
    Restore,
    /// Somebody writes what is no lease.
    Foreign(u8),
    Wait(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = 0..NODES;
    prop_oneof![
        6 => node.clone().prop_map(Happening::Look),
        6 => node.clone().prop_map(Happening::Act),
        1 => node.clone().prop_map(Happening::Expire),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, bound)| Happening::Bind(node, bound)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, knows)| Happening::Restart(node, knows)),
        1 => Just(Happening::Backup),
        1 => Just(Happening::Restore),
        1 => (0..8u8).prop_map(Happening::Foreign),
        2 => (1..60u8).prop_map(Happening::Wait),
    ]
}

/// Seven subnets for five nodes: they meet.
fn network() -> Network {
    let text = r#"{"Network":"10.5.0.0/21","Backend":{"Type":"vxlan"}}"#;
    Network::read(text.as_bytes()).unwrap()
}

fn owners(store: &Store) -> Vec<(Subnet, Lease)> {
    let entries = store.entries.values();
    entries
        .filter_map(|entry| Some((entry.key.parse().ok()?, Lease::read(&entry.value).ok()?)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_two_nodes_have_one_subnet_and_all_come_to_know_the_same(
        happenings in prop::collection::vec(happening(), 0..120)
    ) {
        let network = network();
        let mut store = Store::default();
        let mut backup = store.clone();
        let mut nodes: Vec<Node> = (1..=NODES).map(Node::new).collect();
        let mut now = Duration::ZERO;
        for happening in happenings {
            match happening {
                Happening::Look(node) => nodes[usize::from(node)].look(&store, now),
                Happening::Act(node) => nodes[usize::from(node)].act(&network, &mut store),
                Happening::Expire(node) => {
                    let name = format!("n{}", node + 1);
                    store.revision += 1;
                    store.entries.retain(|_, entry| {
                        Lease::read(&entry.value).map_or(true, |lease| lease.node() != Some(&name))
                    });
                }
                Happening::Bind(node, bound) => {
                    let node = &mut nodes[usize::from(node)];
                    node.me.bound = bound && node.own.is_some();
                }
                Happening::Restart(node, knows) => {
                    let new = Node::new(node + 1);
                    let old = std::mem::replace(&mut nodes[usize::from(node)], new);
                    if knows {
                        let me = &mut nodes[usize::from(node)].me;
                        (me.last, me.bound) = (old.me.last, old.me.bound);
                        nodes[usize::from(node)].own = old.own;
                    }
                }
                Happening::Backup => backup = store.clone(),
                Happening::Restore => store = backup.clone(),
                Happening::Foreign(number) => {
                    store.revision += 1;
                    let key = format!("10.5.{number}.0-24");
                    store.entries.entry(key.clone()).or_insert(Entry {
                        key,
                        value: b"nothing".to_vec(),
                        create_revision: store.revision,
                        mod_revision: store.revision,
                        lease: 0,
                    });
                }
                Happening::Wait(seconds) => now += Duration::from_secs(seconds.into()),
            }
            let owners = owners(&store);
            for (place, (subnet, _)) in owners.iter().enumerate() {
                let earlier = owners[..place].iter();
                prop_assert!(!earlier.clone().any(|(other, _)| other.overlaps(subnet)));
            }
        }
        // From now on nothing happens: everybody looks and acts until all is still.
        for _ in 0..3 {
            for node in &mut nodes {
                node.look(&store, now);
                node.act(&network, &mut store);
            }
            now += RESTORED + DOUBT;
        }
        for node in &mut nodes {
            node.look(&store, now);
        }
        now += RESTORED;
        let of_store: BTreeMap<Subnet, Lease> = owners(&store).into_iter().collect();
        for node in &mut nodes {
            node.look(&store, now);
            let (peers, _) = node.book.peers(&network, None, &node.me.lease);
            for peer in peers {
                prop_assert_eq!(of_store.get(&peer.subnet), Some(peer.lease));
                prop_assert!(peer.doubted.is_none());
            }
        }
    }

    /// Whatever lists say, and however fast: what was known is not forgotten within the doubt.
    #[test]
    fn nobody_goes_before_the_doubt_is_over(
        lists in prop::collection::vec((0..8u8, 0..29u64, any::<bool>()), 1..6)
    ) {
        let mut store = Store::default();
        for number in 1..=4 {
            let node = Node::new(number);
            store.write(network().subnet(u32::from(number)).unwrap(), &node.me.lease.write());
        }
        let mut book = Book::default();
        book.listed(&store.list(), Continuity::Kept, Duration::ZERO);
        let mut missing: BTreeMap<usize, Duration> = BTreeMap::new();
        let mut now = Duration::ZERO;
        for (there, after, kept) in lists {
            now += Duration::from_secs(after);
            let all = store.list();
            let some: Vec<&Entry> =
                all.iter().enumerate().filter(|(at, _)| there >> at & 1 == 1).map(|(_, entry)| entry).collect();
            let continuity = if kept { Continuity::Kept } else { Continuity::Broken };
            book.listed(some, continuity, now);
            for (at, entry) in all.iter().enumerate() {
                if there >> at & 1 == 1 {
                    missing.remove(&at);
                } else {
                    missing.entry(at).or_insert(now);
                }
                let since = missing.get(&at).map_or(Duration::ZERO, |since| now.saturating_sub(*since));
                let subnet: Subnet = entry.key.parse().unwrap();
                prop_assert!(since >= DOUBT || book.lease(subnet).is_some());
            }
        }
    }
}
