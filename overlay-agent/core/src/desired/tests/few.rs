//! Peers that come and go one by one come to what a round for all would make of them.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::Arc};

use proptest::prelude::*;

use super::{CONFIG, bare, inputs, name};
use crate::{
    config,
    desired::{Desired, Few, ForPeers, Inputs, desired, of_some},
    model::{Model, Name, Peer},
    objects::Capacity,
    plan::plan,
    state::Content,
    surroundings::{NodeLink, Observed, Way},
};

/// A container of which the guard has to know whatever becomes of the peers.
const WEB: &str = "[[endpoints]]\nname = \"web\"\nnetwork = \"lab\"\nnetns = \"web\"\naddress = \"10.244.1.10\"\n";

/// The peers that there are, by number: another MAC, and a subnet of another length.
type Present = BTreeMap<u8, (u8, bool)>;

fn model(present: &Present) -> Model {
    let (head, _) = CONFIG.split_once("[[networks.peers]]").unwrap();
    let mut text = head.to_owned();
    for (number, (mac, long)) in present {
        let (host, length) = (number + 20, if *long { 25 } else { 24 });
        write!(
            text,
            "[[networks.peers]]\nname = \"p{number}\"\nvtep = \"192.168.56.{host}\"\nsubnet = \
             \"10.244.{host}.0/{length}\"\nmac = \"02:4f:00:00:{mac:02x}:{host:02x}\"\n"
        )
        .unwrap();
    }
    text.push_str(WEB);
    config::parse(Path::new("t.toml"), &text).unwrap()
}

/// A node with that container.
fn inhabited() -> Observed {
    let mut observed = bare();
    let veth = NodeLink {
        index: 9,
        ours: true,
        ..NodeLink::default()
    };
    observed.around.links.insert(name("ovl-web"), veth);
    observed
}

fn ways<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> BTreeMap<std::net::IpAddr, Way> {
    let way = |peer: &Peer| Way {
        link: name("eth1"),
        next_hop: peer.vtep,
        path_mtu: None,
        hops: Vec::new(),
    };
    peers
        .into_iter()
        .map(|peer| (peer.vtep, way(peer)))
        .collect()
}

fn with<T>(
    model: &Model,
    observed: &Observed,
    before: Option<&Arc<ForPeers>>,
    capacity: Capacity,
    ask: impl FnOnce(Inputs<'_>) -> T,
) -> T {
    let store = Content::new("n1".parse().unwrap());
    ask(Inputs {
        capacity,
        before,
        translated: None,
        ..inputs(model, &store, observed)
    })
}

/// Who comes, as what, or who goes.
#[derive(Clone, Debug)]
enum Happens {
    Comes(u8, u8, bool),
    Goes(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let long = prop_oneof![9 => Just(false), 1 => Just(true)];
    prop_oneof![
        2 => (0..12_u8, 0..3_u8, long).prop_map(|(number, mac, long)| Happens::Comes(number, mac, long)),
        1 => (0..12_u8).prop_map(Happens::Goes),
    ]
}

proptest! {
    #[test]
    fn few_peers_get_what_a_round_would_give_them(
        all in proptest::collection::vec(proptest::collection::vec(happens(), 1..4), 1..12),
        room in 6..14_usize,
    ) {
        let network: Name = "lab".parse().unwrap();
        let capacity = Capacity { peers: [room, room], ..Capacity::default() };
        let mut present: Present = (0..4).map(|number| (number, (0, false))).collect();
        let mut before = model(&present);
        let mut observed = inhabited();
        observed.around.ways = ways(&before.networks[0].peers).into();
        let Desired { objects, for_peers, .. } =
            with(&before, &observed, None, capacity, |inputs| desired(inputs).unwrap());
        observed.objects = objects;
        let mut for_peers = for_peers.unwrap();
        for changes in all {
            for change in changes {
                match change {
                    Happens::Comes(number, mac, long) => drop(present.insert(number, (mac, long))),
                    Happens::Goes(number) => drop(present.remove(&number)),
                }
            }
            let now = model(&present);
            let [old, new] = [&before, &now].map(|model| &model.networks[0].peers);
            let gone: Vec<Peer> = old.iter().filter(|peer| !new.contains(peer)).cloned().collect();
            let come: Vec<Peer> = new.iter().filter(|peer| !old.contains(peer)).cloned().collect();
            let few_ways = ways(&come);
            let few = Few { network: &network, gone: &gone, come: &come, ways: &few_ways };
            let of_few = with(&now, &observed, Some(&for_peers), capacity, |inputs| of_some(inputs, few));
            let usual = for_peers.problems.is_empty() && !new.is_empty() && new.len() <= room
                && old.prefix_lengths(crate::model::Family::V4) == new.prefix_lengths(crate::model::Family::V4);
            prop_assert_eq!(of_few.is_some(), usual);
            let mut around = observed.clone();
            around.around.ways = ways(new).into();
            let whole = with(&now, &around, None, capacity, |inputs| desired(inputs).unwrap());
            let steps = plan(&observed.objects, &whole.objects);
            observed.around.ways = around.around.ways;
            if let Some(of_few) = of_few {
                let alone = plan(&of_few.there, &of_few.wanted);
                prop_assert_eq!(alone.to_string(), steps.to_string());
                let mut peers = observed.objects.peers.clone();
                peers.replace(&of_few.there.peers, &of_few.wanted.peers);
                prop_assert_eq!(&peers, &whole.objects.peers);
                prop_assert_eq!(&of_few.wanted.guard, &whole.objects.guard);
                observed.objects.peers = peers.clone();
                observed.objects.guard.clone_from(&of_few.wanted.guard);
                let left = Arc::into_inner(for_peers).unwrap().emptied();
                let network = &now.networks[0];
                for_peers = Arc::new(left.with(network, of_few, peers, observed.around.ways.clone()));
                // A round that follows takes it for its own.
                let next = with(&now, &observed, Some(&for_peers), capacity, |inputs| desired(inputs).unwrap());
                prop_assert!(Arc::ptr_eq(&next.for_peers.unwrap(), &for_peers));
                prop_assert!(plan(&observed.objects, &next.objects).is_empty());
            } else {
                observed.objects = whole.objects;
                for_peers = whole.for_peers.unwrap();
            }
            before = now;
        }
    }
}

/// Something that is not as usual.
type Alter<'a> = &'a dyn Fn(&mut Observed);

#[test]
fn what_could_concern_others_is_left_to_a_round() {
    let few: Present = (0..4).map(|number| (number, (0, false))).collect();
    let more: Present = (0..5).map(|number| (number, (0, false))).collect();
    let (before, now) = (model(&few), model(&more));
    let (network, capacity): (Name, _) = ("lab".parse().unwrap(), Capacity::default());
    let come = [now.networks[0].peers[4].clone()];
    let of_few = |alter: Alter<'_>| {
        let mut observed = inhabited();
        observed.around.ways = ways(&before.networks[0].peers).into();
        let ask = |inputs: Inputs<'_>| desired(inputs).unwrap();
        let Desired {
            objects, for_peers, ..
        } = with(&before, &observed, None, capacity, ask);
        observed.objects = objects;
        alter(&mut observed);
        let few = Few {
            network: &network,
            gone: &[],
            come: &come,
            ways: &ways(&come),
        };
        let ask = |inputs: Inputs<'_>| of_some(inputs, few);
        with(&now, &observed, for_peers.as_ref(), capacity, ask)
    };
    assert!(of_few(&|_| {}).is_some());
    let route = "10.244.24.0/24".parse().unwrap();
    let subnet = come[0].subnets[0];
    assert_eq!(subnet, route);
    let eth1 = name("eth1");
    let cases: [(&str, Alter<'_>); 5] = [
        ("a route of others", &|observed| {
            observed.around.routes.insert(route, Some(eth1));
        }),
        ("a route that refuses", &|observed| {
            let part = "10.244.24.64/26".parse().unwrap();
            observed.around.refused.insert(part, "blackhole");
        }),
        ("an address of the underlay", &|observed| {
            let link = observed.around.links.get_mut(&eth1).unwrap();
            link.addresses.push("10.244.24.7/16".parse().unwrap());
        }),
        ("another MTU", &|observed| {
            observed.around.links.get_mut(&eth1).unwrap().mtu = 1400;
        }),
        ("its own VTEP", &|observed| {
            let link = observed.around.links.get_mut(&eth1).unwrap();
            link.addresses = vec!["192.168.56.24/24".parse().unwrap()];
        }),
    ];
    for (what, alter) in cases {
        assert!(of_few(alter).is_none(), "{what}");
    }
}
