//! What is told one by one comes to the same as the whole.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;

use super::{AGAIN, Known, Told};
use crate::{
    book::{Book, Continuity, Entry, Whom},
    changes::{Mismatch, Parts},
    fragment,
    lease::Lease,
    network::Network,
};

fn entry(subnet: u8, host: u8, name: Option<u8>) -> Entry {
    let name = name.map_or(String::new(), |name| {
        // Names that are equal, one's second name, or none; mostly a node's own.
        let odd = ["a", "a-v6", "b", "", "10.5.1.1"].get(usize::from(name));
        let name = odd.map_or(format!("n{host}"), |name| (*name).to_owned());
        // Most have a key, and some the same.
        let key = BASE64_STANDARD.encode([host.min(9); 32]);
        let key = match host % 5 {
            0 => String::new(),
            _ => format!(r#","PublicKey":"{key}""#),
        };
        format!(r#","Overlay":{{"Node":"{name}"{key}}}"#)
    });
    Entry {
        key: format!("10.5.{subnet}.0-24"),
        value: format!(
            r#"{{"PublicIP":"192.0.2.{host}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:4f:c0:00:02:{host:02x}"}}{name}}}"#
        )
        .into_bytes(),
        create_revision: i64::from(host),
        mod_revision: 1,
        lease: 1,
    }
}

/// Something that the store tells: who comes or changes, who goes, or a list without some.
#[derive(Clone, Debug)]
enum Happens {
    Put(u8, u8, Option<u8>),
    Deleted(u8),
    Listed(Vec<u8>),
    Passes(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let name = proptest::option::of(0..60_u8);
    prop_oneof![
        8 => (0..12_u8, name.clone()).prop_map(|(subnet, name)| Happens::Put(subnet, subnet + 1, name)),
        1 => (0..12_u8, 1..16_u8, name).prop_map(|(subnet, host, name)| Happens::Put(subnet, host, name)),
        2 => (0..12_u8).prop_map(Happens::Deleted),
        1 => proptest::collection::vec(0..12_u8, 0..12).prop_map(Happens::Listed),
        1 => (0..60_u8).prop_map(Happens::Passes),
    ]
}

proptest! {
    #[test]
    fn changes_come_to_the_whole(
        encrypted in any::<bool>(),
        all in proptest::collection::vec(happens(), 1..40),
    ) {
        let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
        let network = Network::read(network.as_bytes()).unwrap();
        let network = Network { encrypted, ..network };
        let own = Lease::read(&entry(99, 99, None).value).unwrap();
        let mine = entry(99, 99, None).key.parse().unwrap();
        let whom = Whom { network: &network, subnet: mine, lease: &own };
        let head = fragment::head("lab", &network, mine);
        let mut book = Book::default();
        let mut now = Duration::ZERO;
        let (mut told, text) = Told::all(head, whom, &[]);
        let mut parts = Parts::of(&text);
        for happens in all {
            match happens {
                Happens::Put(subnet, host, name) => drop(book.put(&entry(subnet, host, name), now)),
                Happens::Deleted(subnet) => book.deleted(&entry(subnet, 1, None).key, now),
                Happens::Listed(there) => {
                    let there: Vec<Entry> = there.into_iter().map(|subnet| entry(subnet, subnet + 1, None)).collect();
                    book.listed(&there, Continuity::Kept, now);
                }
                Happens::Passes(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    for due in book.due(now) {
                        book.looked_up(due, None, now);
                    }
                }
            }
            let subnets = book.take_changed();
            let (peers, problems) = book.peers(&network, Some(mine), &own);
            let whole = fragment::write("lab", &network, mine, &peers);
            let (changes, wrong) = told.follow(&book, whom, &subnets, None).unwrap();
            prop_assert_eq!(wrong, problems);
            let before = parts.text();
            if changes.is_empty() {
                prop_assert_eq!(&before, &whole);
                continue;
            }
            let difference = parts.change(&changes).unwrap();
            prop_assert_eq!(parts.text(), whole.clone());
            prop_assert_eq!(difference.len(), changes.set.len() + changes.gone.len());
            // It is read as it is told, and no change counts twice.
            let mut again = Parts::of(&whole);
            prop_assert_eq!(again.text(), whole.clone());
            prop_assert!(again.nodes().eq(parts.nodes()));
            let twice = parts.change(&changes);
            prop_assert!(matches!(twice, Err(Mismatch::Number { .. })), "{:?}", twice);
            if changes.number != 1 {
                prop_assert!(again.change(&changes).is_err());
            }
        }
    }
}

#[test]
fn where_many_have_changed_all_are_told() {
    let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let network = Network::read(network.as_bytes()).unwrap();
    let own = Lease::read(&entry(99, 99, None).value).unwrap();
    let mut book = Book::default();
    let subnet = entry(99, 99, None).key.parse().unwrap();
    let whom = Whom {
        network: &network,
        subnet,
        lease: &own,
    };
    let (mut told, _) = Told::all(String::new(), whom, &[]);
    for number in 1..=65 {
        book.put(&entry(number, number, None), Duration::ZERO);
    }
    let (peers, _) = book.peers(&network, None, &own);
    assert!(told.change(&network, &peers, None).is_none());
    assert_eq!(
        told.change(&network, &peers[1..], None).unwrap().set.len(),
        64
    );
}

#[test]
fn changes_that_are_none_change_nothing() {
    let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let network = Network::read(network.as_bytes()).unwrap();
    let own = Lease::read(&entry(99, 99, None).value).unwrap();
    let mut book = Book::default();
    book.put(&entry(1, 1, None), Duration::ZERO);
    let (peers, _) = book.peers(&network, None, &own);
    let subnet = entry(99, 99, None).key.parse().unwrap();
    let whom = Whom {
        network: &network,
        subnet,
        lease: &own,
    };
    let (mut told, text) = Told::all(String::from("# nothing\n"), whom, &[]);
    let good = told.change(&network, &peers, Some((7, 8))).unwrap();
    let mut parts = Parts::of(&text);
    let mut wrong = vec![good.clone(); 4];
    wrong[0].number = 2;
    wrong[1].gone.insert("10.5.2.0-24".to_owned());
    let node = good.set["10.5.1.0-24"].clone();
    wrong[2].set.insert("10.5.3.0-24".to_owned(), node.clone());
    wrong[3]
        .set
        .insert("10.5.1.0-24".to_owned(), node.repeat(2));
    for wrong in wrong {
        assert!(parts.change(&wrong).is_err(), "{wrong:?}");
        assert_eq!(parts.text(), text);
    }
    parts.change(&good).unwrap();
    assert_eq!(parts.text(), format!("# store 7 8\n# nothing\n{node}"));
}

#[test]
fn a_node_in_nobodys_way_needs_no_look_at_all_others() {
    let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let network = Network::read(network.as_bytes()).unwrap();
    let own = Lease::read(&entry(99, 99, None).value).unwrap();
    let subnet = entry(99, 99, None).key.parse().unwrap();
    let whom = Whom {
        network: &network,
        subnet,
        lease: &own,
    };
    let mut book = Book::default();
    let (mut told, _) = Told::all(String::new(), whom, &[]);
    // Whether all were looked at after each, and how many were told.
    let mut put = |subnet, host, name| {
        book.put(&entry(subnet, host, name), Duration::ZERO);
        let subnets = book.take_changed();
        let (changes, _) = told.follow(&book, whom, &subnets, None).unwrap();
        let is_plain = matches!(told.plain, Known::Plain(_));
        (is_plain, changes.set.len() + changes.gone.len())
    };
    assert_eq!(put(1, 1, Some(9)), (true, 1));
    assert_eq!(put(2, 2, None), (true, 1));
    // A renewal.
    assert_eq!(put(2, 2, None), (true, 0));
    // It has moved to another address, and one has the name of another.
    assert_eq!(put(2, 3, Some(9)), (true, 1));
    assert_eq!(put(3, 4, Some(0)), (true, 1));
    assert_eq!(put(4, 5, Some(1)), (false, 1));
    assert_eq!(put(4, 5, Some(9)), (false, 1));
    for _ in 0..AGAIN - 1 {
        assert_eq!(put(4, 5, Some(9)), (false, 0));
    }
    assert_eq!(put(4, 5, Some(9)), (true, 0));
    // Two with one address: the one of before is left out, and comes back when the other one
    // has changed, as soon as it is seen that nobody is in anybody's way.
    assert_eq!(put(5, 5, Some(9)), (false, 2));
    for _ in 0..AGAIN {
        assert_eq!(put(5, 5, Some(9)), (false, 0));
    }
    assert_eq!(put(5, 6, Some(9)), (true, 2));
}
