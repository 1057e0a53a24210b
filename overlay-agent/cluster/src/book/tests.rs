//! What counts, what is told, and who goes.

use std::time::Duration;

use super::{Book, DOUBT, Entry};
use crate::{lease::Lease, network::Network};

fn entry(key: &str, last: u8, revision: i64) -> Entry {
    let value = format!(
        r#"{{"PublicIP":"192.0.2.{last}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:4f:c0:00:02:{last:02x}"}}}}"#
    );
    Entry {
        key: key.to_owned(),
        value: value.into_bytes(),
        create_revision: revision,
        mod_revision: revision,
        lease: 1,
    }
}

#[test]
fn who_is_looked_up_goes_or_stays() {
    let mut book = Book::default();
    let (there, gone) = (entry("10.5.1.0-24", 1, 1), entry("10.5.2.0-24", 2, 2));
    for one in [&there, &gone] {
        book.put(one, Duration::ZERO);
        book.deleted(&one.key, Duration::ZERO);
    }
    let early = DOUBT.checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(book.due(early), []);
    let due = book.due(DOUBT);
    assert_eq!(due.len(), 2);
    book.looked_up(due[0], Some(&there), DOUBT);
    book.looked_up(due[1], None, DOUBT);
    assert_eq!((book.doubtful(), book.due(DOUBT)), (0, vec![]));
    assert!(book.lease(due[0]).is_some() && book.lease(due[1]).is_none());
    // What is no lease any more is none.
    book.deleted(&there.key, DOUBT);
    let wrong = Entry {
        value: b"nothing".to_vec(),
        ..there
    };
    book.looked_up(due[0], Some(&wrong), 2 * DOUBT);
    assert_eq!(book.due(2 * DOUBT), []);
}

#[test]
fn what_cannot_be_used_is_told_as_long_as_it_is_in_the_store() {
    let network = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let network = Network::read(network.as_bytes()).unwrap();
    let mut book = Book::default();
    book.put(&entry("10.5.1.0-24", 1, 1), Duration::ZERO);
    book.put(&entry("10.99.0.0-24", 2, 2), Duration::ZERO);
    book.put(&entry("10.5.1.128-25", 3, 3), Duration::ZERO);
    let own = Lease::read(&entry("10.5.9.0-24", 9, 9).value).unwrap();
    let (nodes, problems) = book.peers(&network, None, &own);
    assert_eq!((nodes.len(), problems.len()), (1, 2), "{problems:?}");
    // One that has moved to another subnet.
    book.put(&entry("10.5.4.0-24", 4, 4), Duration::ZERO);
    book.put(&entry("10.5.5.0-24", 4, 5), Duration::ZERO);
    assert_eq!(book.peers(&network, None, &own).1.len(), 3);
    for key in ["10.99.0.0-24", "10.5.1.128-25", "10.5.4.0-24"] {
        book.deleted(key, Duration::ZERO);
    }
    assert_eq!(book.peers(&network, None, &own).1, []);
}
