use proptest::prelude::*;

use super::{Network, NewNetwork};

fn read(text: &str) -> Result<Network, String> {
    Network::read(text.as_bytes()).map_err(|error| format!("{error}; {}", error.cure()))
}

#[test]
fn flannels_defaults() {
    let network = read(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
    assert_eq!((network.vni, network.port, network.mtu), (1, 8472, None));
    assert_eq!(network.v4.first.to_string(), "10.5.1.0/24");
    assert_eq!(network.v4.last.to_string(), "10.5.255.0/24");
    assert_eq!(network.subnets(), 255);
    assert_eq!(network.subnet(1).unwrap().to_string(), "10.5.2.0-24");
    assert_eq!(network.subnet(255), None);
    let small = read(r#"{"network":"10.5.0.0/23","backend":{"type":"vxlan","mtu":1400}}"#);
    let small = small.unwrap();
    assert_eq!(small.v4.first.to_string(), "10.5.0.128/25");
    assert_eq!((small.subnets(), small.mtu), (3, Some(1350)));
}

#[test]
fn both_families_go_by_one_number() {
    let text = NewNetwork::new(
        "10.244.0.0/16".parse().unwrap(),
        Some("fd00:244::/48".parse().unwrap()),
        7,
    );
    let text = text.write();
    assert_eq!(
        text,
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:244::/48","Backend":{"Type":"vxlan","VNI":7}}"#
    );
    let network = read(&text).unwrap();
    assert_eq!(network.subnets(), 255);
    let second = network.subnet(1).unwrap();
    assert_eq!(second.to_string(), "10.244.2.0-24&fd00:244:0:2::-64");
    assert!(network.gives(&second) && network.has(&second));
    assert!(!network.gives(&"10.244.2.0-24".parse().unwrap()));
}

#[test]
fn what_cannot_be_followed_is_named() {
    let vxlan = r#""Backend":{"Type":"vxlan"}"#;
    let cases = [
        ("x".to_owned(), "it is not a JSON object"),
        (
            r#"{"Network":"10.5.0.0/16"}"#.to_owned(),
            "its Backend is missing; without one",
        ),
        (format!("{{{vxlan}}}"), "its Network is missing; "),
        (
            format!(r#"{{"Network":"10.5.0.0/29",{vxlan}}}"#),
            "its Network is ",
        ),
        (
            format!(r#"{{"Network":"10.5.0.0/16","SubnetLen":17,{vxlan}}}"#),
            "its SubnetLen is 17; ",
        ),
        (
            format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0",{vxlan}}}"#),
            "its SubnetMin is ",
        ),
        (
            format!(r#"{{"Network":"10.5.0.0/16","EnableIPv4":false,{vxlan}}}"#),
            "its EnableIPv4 is false; ",
        ),
        (
            r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#.to_owned(),
            "its Type is ",
        ),
        (
            r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","GBP":true}}"#.to_owned(),
            "its GBP is true; ",
        ),
        (
            r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#
                .to_owned(),
            "its DirectRouting is true; ",
        ),
    ];
    for (text, start) in cases {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(start), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn every_subnet_that_is_given_is_inside_and_no_other_overlaps(
        base in any::<u32>(), length in 1..29u8, more in 2..9u8, at in any::<u32>(),
    ) {
        let base = std::net::Ipv4Addr::from_bits(base);
        let wanted = (length + more).min(30);
        let text = format!(
            r#"{{"Network":"{base}/{length}","SubnetLen":{wanted},"Backend":{{"Type":"vxlan"}}}}"#
        );
        let network = read(&text).unwrap();
        let number = at % network.subnets();
        let subnet = network.subnet(number).unwrap();
        prop_assert!(network.gives(&subnet) && network.has(&subnet), "{subnet}");
        if let Some(next) = network.subnet(number + 1) {
            prop_assert!(!next.overlaps(&subnet));
        }
    }
}
