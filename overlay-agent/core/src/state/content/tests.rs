use std::{fmt::Write as _, path::Path};

use super::Content;
use crate::{config, identity::NetnsId};

const CONFIG: &str = "[node]\nname = \"n\"\nunderlay = \"eth1\"\n[[networks]]\nname = \"lab\"\nvni = 1\ncidr = \"10.0.0.0/8\"\nsubnet = \"10.1.1.0/29\"\n";

fn model(endpoints: &[(&str, Option<&str>)]) -> crate::model::Model {
    let mut text = CONFIG.to_owned();
    for (name, address) in endpoints {
        let address = address
            .map(|address| format!("address = \"{address}\"\n"))
            .unwrap_or_default();
        write!(
            text,
            "[[endpoints]]\nname = \"{name}\"\nnetwork = \"lab\"\nnetns = \"{name}\"\n{address}"
        )
        .unwrap();
    }
    config::parse(Path::new("t.toml"), &text).unwrap()
}

fn addresses(content: &Content) -> Vec<String> {
    content
        .allocations
        .iter()
        .map(|(name, given)| {
            let addresses: Vec<String> = given.addresses.iter().map(ToString::to_string).collect();
            format!("{name}={}", addresses.join(","))
        })
        .collect()
}

#[test]
fn addresses_stay_with_their_endpoints() {
    let mut content = Content::new("n".parse().unwrap());
    content.allocate(&model(&[("b", None), ("a", None)]));
    assert_eq!(addresses(&content), ["a=10.1.1.3", "b=10.1.1.2"]);
    // b goes, a keeps its own, c gets what b had.
    content.allocate(&model(&[("c", None), ("a", None)]));
    assert_eq!(addresses(&content), ["a=10.1.1.3", "c=10.1.1.2"]);
    // A configured address goes before a remembered one.
    content.allocate(&model(&[("d", Some("10.1.1.3")), ("a", None), ("c", None)]));
    assert_eq!(
        addresses(&content),
        ["a=10.1.1.4", "c=10.1.1.2", "d=10.1.1.3"]
    );
}

#[test]
fn an_endpoint_has_an_address_of_each_family_of_its_network() {
    let dual = |addresses: &str| {
        let text = CONFIG
            .replace("\"10.0.0.0/8\"", "[\"10.0.0.0/8\", \"fd00::/16\"]")
            .replace("\"10.1.1.0/29\"", "[\"10.1.1.0/29\", \"fd00:1::/64\"]");
        let text = format!(
            "{text}[[endpoints]]\nname = \"a\"\nnetwork = \"lab\"\nnetns = \"a\"\n{addresses}"
        );
        config::parse(Path::new("t.toml"), &text).unwrap()
    };
    let mut content = Content::new("n".parse().unwrap());
    content.allocate(&model(&[("a", None)]));
    // The network gets IPv6: what is there stays.
    content.allocate(&dual(""));
    assert_eq!(addresses(&content), ["a=10.1.1.2,fd00:1::2"]);
    content.allocate(&dual("address = \"fd00:1::7\"\n"));
    assert_eq!(addresses(&content), ["a=10.1.1.2,fd00:1::7"]);
    content.allocate(&model(&[("a", None)]));
    assert_eq!(addresses(&content), ["a=10.1.1.2"]);
}

#[test]
fn one_that_is_admitted_gets_what_all_together_would_get() {
    let before = model(&[("b", None), ("a", Some("10.1.1.4"))]);
    for address in [None, Some("10.1.1.3"), Some("10.1.1.6")] {
        let after = model(&[("b", None), ("a", Some("10.1.1.4")), ("c", address)]);
        let mut all = Content::new("n".parse().unwrap());
        all.allocate(&before);
        let mut one = all.clone();
        all.endpoints.push(after.endpoints[2].clone());
        all.allocate(&after);
        let admission = one.admission(&after.endpoints[2], &after.networks[0], None, |_| None);
        one.take_in(admission);
        assert_eq!(one, all);
        assert_eq!(one.complete(before.clone()), after);
    }
}

/// A container that a process stands for.
fn with_job() -> crate::model::Model {
    let text = CONFIG.to_owned() + "[[endpoints]]\nname = \"job\"\nnetwork = \"lab\"\npid = 77\n";
    config::parse(Path::new("t.toml"), &text).unwrap()
}

/// Namespaces that have the same number, one after the other.
const fn id(cookie: u64) -> NetnsId {
    NetnsId {
        dev: 4,
        inode: 7,
        cookie: Some(cookie),
    }
}

#[test]
fn a_process_that_is_admitted_is_known_by_its_namespace() {
    let model = with_job();
    let mut content = Content::new("n".parse().unwrap());
    let admission = content.admission(&model.endpoints[0], &model.networks[0], None, |_| {
        Some(id(1))
    });
    content.take_in(admission);
    assert!(content.means(&model.endpoints[0], id(1)));
    assert!(!content.means(&model.endpoints[0], id(2)));
}

#[test]
fn a_full_subnet_leaves_an_endpoint_without_an_address() {
    let mut content = Content::new("n".parse().unwrap());
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| (name, None));
    content.allocate(&model(&names));
    assert_eq!(addresses(&content).len(), 6);
    assert_eq!(addresses(&content)[5], "f=");
}

#[test]
fn a_process_number_that_comes_again_is_not_taken_for_the_container() {
    let model = with_job();
    let mut content = Content::new("n".parse().unwrap());
    content.recognise(&model, |_| None);
    assert!(content.means(&model.endpoints[0], id(1)), "not seen yet");
    content.recognise(&model, |_| Some(id(1)));
    content.recognise(&model, |_| Some(id(2)));
    assert!(content.means(&model.endpoints[0], id(1)));
    assert!(!content.means(&model.endpoints[0], id(2)));
}
