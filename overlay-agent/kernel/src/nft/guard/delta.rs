//! What comes and goes of the sets' elements, as the kernel holds them: so it is told, and so it is
//! known what the kernel lists then, without asking.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use overlay_core::{
    model::{Family, Vni},
    objects::{GuardRules, GuardedEndpoint, Length},
};

use super::{
    elements::{ends, set_of, version},
    look::{Look, Sets, made_of, number_of, seen},
};
use crate::nft::{
    batch::{Batch, Committed, Verb, element},
    dump::{BRIDGE, INET},
};

/// Elements that come or go at most; with more, `nft` is no slower.
const MOST: usize = 10_000;
/// Elements that a transaction adds to a set at most.
const AT_ONCE: usize = 4_096;

/// The elements that go, and those that come.
pub(super) struct Delta {
    gone: Keys,
    come: Keys,
}

/// Keys of elements, by their set.
#[derive(Default)]
struct Keys(Sets<Vec<Vec<u8>>>);

impl Delta {
    /// From the elements of one set of rules to those of another; `None` where more than elements
    /// without an end differ.
    pub(super) fn between(before: &GuardRules, after: &GuardRules) -> Option<Self> {
        let mut delta = Self {
            gone: Keys::default(),
            come: Keys::default(),
        };
        let speakers = before.endpoints.symmetric_difference(&after.endpoints);
        let mut speakers = speakers.map(|endpoint| &endpoint.behind);
        if before.leaving != after.leaving || speakers.any(|behind| !behind.is_empty()) {
            return None;
        }
        for (keys, old, new) in [
            (&mut delta.gone, after, before),
            (&mut delta.come, before, after),
        ] {
            let (known, senders) = (&old.senders, &new.senders);
            keys.add_vteps(senders.vteps.difference(&known.vteps));
            keys.add_sources(senders.sources.difference(&known.sources));
            keys.add_ends(ends(new, senders).difference(&ends(old, known)).copied());
            keys.add_speakers(new.endpoints.difference(&old.endpoints));
        }
        (delta.gone.len() + delta.come.len() <= MOST).then_some(delta)
    }

    /// The senders of a table without any; `None` where they are so few that `nft` is quick.
    pub(super) fn from_nothing(rules: &GuardRules) -> Option<Self> {
        let mut come = Keys::default();
        come.add_senders(rules);
        (come.len() > MOST).then(|| Self {
            gone: Keys::default(),
            come,
        })
    }

    /// Has the kernel take it over into a table that looked like this at that generation, and
    /// notes there and here what the table is made of now.
    pub(super) fn commit(
        &self,
        table: &str,
        look: &mut Look,
        generation: u32,
        rules: u64,
    ) -> io::Result<Committed> {
        let mut batch = Batch::at(generation);
        for (verb, keys) in [(Verb::Delete, &self.gone), (Verb::Add, &self.come)] {
            for ((family, set), keys) in &keys.0 {
                batch.elements(verb, (*family, table, set), keys)?;
            }
        }
        for note in &look.notes {
            batch.chain(Verb::Delete, INET, table, note)?;
        }
        self.change(look)?;
        look.notes = vec![made_of(rules), seen(look.digest())];
        for note in &look.notes {
            batch.chain(Verb::Add, INET, table, note)?;
        }
        batch.commit()
    }

    /// Has the kernel take what comes over into a table of that generation that nothing passes yet, and
    /// notes there what it is made of; in how many transactions. `None` where somebody has changed a
    /// table meanwhile.
    ///
    /// The kernel lets a set grow behind a transaction, not within it: with very many elements in one
    /// it would search longer and longer chains (`rhashtable_insert_rehash`).
    pub(super) fn fill(&self, table: &str, generation: u32, rules: u64) -> io::Result<Option<u32>> {
        let mut transactions = 0;
        let mut next = |fill: &dyn Fn(&mut Batch) -> io::Result<()>| {
            let mut batch = Batch::at(generation.wrapping_add(transactions));
            fill(&mut batch)?;
            transactions += 1;
            batch.commit()
        };
        for ((family, set), keys) in &self.come.0 {
            for part in keys.chunks(AT_ONCE) {
                let fill =
                    |batch: &mut Batch| batch.elements(Verb::Add, (*family, table, set), part);
                if next(&fill)? == Committed::Raced {
                    return Ok(None);
                }
            }
        }
        let note = next(&|batch| batch.chain(Verb::Add, INET, table, &made_of(rules)))?;
        Ok((note == Committed::Done).then_some(transactions))
    }

    fn change(&self, look: &mut Look) -> io::Result<()> {
        for (set, sum) in self.gone.sums()? {
            let set = look.sets.entry(set).or_default();
            set.elements = set.elements.wrapping_sub(sum);
        }
        for (set, sum) in self.come.sums()? {
            let set = look.sets.entry(set).or_default();
            set.elements = set.elements.wrapping_add(sum);
        }
        Ok(())
    }
}

/// Whether the kernel lists the elements of rules just as they are known here: then it is known how
/// it lists others. Those with an end are left out.
pub(super) fn is_listed_alike(rules: &GuardRules, look: &Look) -> io::Result<bool> {
    let mut keys = Keys::default();
    keys.add_senders(rules);
    keys.add_speakers(rules.endpoints.iter());
    let sums = keys.sums()?;
    let mut sums = sums.iter();
    Ok(sums.all(|(set, sum)| {
        let listed = look.sets.get(set);
        listed.is_some_and(|listed| listed.elements == *sum)
    }))
}

impl Keys {
    fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn sums(&self) -> io::Result<Sets<u64>> {
        let mut sums = Sets::new();
        for (set, keys) in &self.0 {
            let mut sum = 0_u64;
            for key in keys {
                sum = sum.wrapping_add(number_of(&element(key)?));
            }
            sums.insert(set.clone(), sum);
        }
        Ok(sums)
    }

    fn add(&mut self, family: u8, set: impl Into<String>, fields: &[&[u8]]) {
        self.0
            .entry((family, set.into()))
            .or_default()
            .push(concatenated(fields));
    }

    fn add_senders(&mut self, rules: &GuardRules) {
        self.add_vteps(rules.senders.vteps.iter());
        self.add_sources(rules.senders.sources.iter());
        self.add_ends(ends(rules, &rules.senders).into_iter());
    }

    fn add_vteps<'a>(&mut self, vteps: impl Iterator<Item = &'a (Vni, IpAddr)>) {
        for (vni, vtep) in vteps {
            let set = format!("vteps{}", version(Family::of(*vtep)));
            self.add(INET, set, &[&octets(*vtep), &digits(*vni)]);
        }
    }

    fn add_sources<'a>(&mut self, sources: impl Iterator<Item = &'a (Vni, IpAddr, IpNet)>) {
        for (vni, vtep, net) in sources {
            let length = Length {
                outer: Family::of(*vtep),
                inner: Family::of(net.addr()),
                bits: net.prefix_len(),
            };
            let net = octets(net.network());
            self.add(INET, set_of(length), &[&octets(*vtep), &digits(*vni), &net]);
        }
    }

    fn add_ends<'a>(&mut self, ends: impl Iterator<Item = &'a IpAddr>) {
        for end in ends {
            let set = format!("ends{}", version(Family::of(*end)));
            self.add(INET, set, &[&octets(*end)]);
        }
    }

    fn add_speakers<'a>(&mut self, endpoints: impl Iterator<Item = &'a GuardedEndpoint>) {
        for endpoint in endpoints {
            // `iif` is compared in the order of this machine.
            let port = endpoint.index.to_ne_bytes();
            let mac = endpoint.mac.octets();
            self.add(BRIDGE, "ports", &[&port]);
            self.add(BRIDGE, "macs", &[&port, &mac]);
            self.add(BRIDGE, "named", &[&port, &mac]);
            for address in &endpoint.addresses {
                let octets = octets(*address);
                let set = format!("own{}", version(Family::of(*address)));
                self.add(BRIDGE, set, &[&port, &octets]);
                if address.is_ipv6() {
                    self.add(BRIDGE, "targets", &[&port, &octets]);
                }
            }
        }
    }
}

/// Each field of a key fills registers of four bytes.
fn concatenated(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for field in fields {
        key.extend(*field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// A VNI as it stands in a header.
fn digits(vni: Vni) -> [u8; 3] {
    let [_, digits @ ..] = vni.get().to_be_bytes();
    digits
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use overlay_core::objects::{GuardRules, GuardSenders, GuardedEndpoint};

    use super::{Delta, concatenated};
    use crate::nft::dump::{BRIDGE, INET};

    fn container(index: u32, behind: &[&str]) -> GuardedEndpoint {
        GuardedEndpoint {
            index,
            mac: "02:45:0a:f4:01:0a".parse().unwrap(),
            addresses: ["10.244.1.10", "fd00::1"]
                .map(|address| address.parse().unwrap())
                .into(),
            behind: behind.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn rules(peers: &[u8], endpoints: &[GuardedEndpoint]) -> GuardRules {
        let vni = 0x10203.try_into().unwrap();
        let vtep = |peer: &u8| std::net::IpAddr::from([192, 0, 2, *peer]);
        let net = |peer: &u8| format!("10.244.{peer}.0/24").parse().unwrap();
        let vteps = peers.iter().map(|peer| (vni, vtep(peer)));
        let sources = peers.iter().map(|peer| (vni, vtep(peer), net(peer)));
        GuardRules {
            senders: Arc::new(GuardSenders::new(vteps.collect(), sources.collect())),
            endpoints: endpoints.iter().cloned().collect(),
            ..GuardRules::default()
        }
    }

    #[test]
    fn a_field_begins_at_a_register() {
        assert_eq!(
            concatenated(&[&[10, 0, 0, 1], &[1, 2, 3], &[1, 2, 3, 4, 5, 6]]),
            [10, 0, 0, 1, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 0, 0]
        );
    }

    #[test]
    fn what_differs_comes_and_goes() {
        let before = rules(&[2, 3], &[container(7, &[])]);
        let after = rules(&[3, 4], &[container(8, &[])]);
        let delta = Delta::between(&before, &after).unwrap();
        let sets: BTreeSet<_> = delta.gone.0.keys().cloned().collect();
        let of_inet = ["ends4", "sources44_24", "vteps4"].map(|set| (INET, set.to_owned()));
        let of_bridge = ["macs", "named", "own4", "own6", "ports", "targets"];
        let of_bridge = of_bridge.map(|set| (BRIDGE, set.to_owned()));
        assert_eq!(sets, of_inet.into_iter().chain(of_bridge).collect());
        assert!(delta.gone.0.keys().eq(delta.come.0.keys()));
        let vtep = &delta.come.0[&(INET, "vteps4".to_owned())];
        assert_eq!(vtep, &[vec![192, 0, 2, 4, 1, 2, 3, 0]]);
        let port = &delta.gone.0[&(BRIDGE, "ports".to_owned())];
        assert_eq!(port, &[7_u32.to_ne_bytes()]);
        let same = Delta::between(&after, &after).unwrap();
        assert_eq!(same.gone.len() + same.come.len(), 0);
    }

    #[test]
    fn ranges_and_rules_are_left_to_nft() {
        let before = rules(&[2], &[container(7, &["10.9.0.0/16"])]);
        assert!(Delta::between(&before, &before).is_some());
        assert!(Delta::between(&before, &rules(&[2], &[])).is_none());
        let mut other = before.clone();
        other.leaving.encrypts = true;
        assert!(Delta::between(&before, &other).is_none());
    }
}
