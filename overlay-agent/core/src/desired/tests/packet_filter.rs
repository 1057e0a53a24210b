//! What is kept apart, masqueraded and guarded by nftables.

use super::{
    build,
    dual_stack::{CONFIG, built, dual},
    name,
};
use crate::{
    desired::{Obstacle, Problem},
    model::Family,
    objects::{Filter, FilterRules, Guard},
    surroundings::NoGuard,
};

const BLUE: &str = r#"
[[networks]]
name = "blue"
vni = 8
cidr = "10.245.0.0/16"
subnet = "10.245.1.0/24"
"#;

fn rules(config: &str) -> Option<FilterRules> {
    match built(config, &dual()).objects.filter {
        Some(Filter::Rules(rules)) => Some(rules),
        Some(Filter::Altered) => panic!("nobody wants this"),
        None => None,
    }
}

#[test]
fn one_network_needs_no_packet_filter() {
    assert_eq!(rules(CONFIG), None);
}

#[test]
fn networks_are_kept_apart_unless_both_are_open() {
    let two = format!("{CONFIG}{BLUE}");
    let found = rules(&two).unwrap();
    assert_eq!(found.isolated.len(), 5);
    let pair = |from: &str, to: &str| (name(from), name(to));
    assert!(found.together.contains(&pair("ovl7", "ovl6-7")));
    assert!(!found.together.contains(&pair("ovlbr7", "ovlbr8")));
    // 3 devices of one network, 2 of the other.
    assert_eq!(found.together.len(), 9 + 4);

    let one_open = format!("{CONFIG}{BLUE}security = {{ other_networks = \"accept\" }}\n");
    assert_eq!(rules(&one_open).unwrap().together.len(), 9 + 4);
    let both_open = one_open.replace("martians =", "other_networks = \"accept\", martians =");
    assert_eq!(rules(&both_open).unwrap().together.len(), 25);
}

#[test]
fn each_family_of_a_network_is_masqueraded_where_it_leaves() {
    let masqueraded = CONFIG.replace("dscp = \"copy\"", "masquerade = true");
    let found = rules(&masqueraded).unwrap();
    assert!(found.isolated.is_empty());
    let subnets: Vec<String> = found
        .masqueraded
        .iter()
        .map(|rule| format!("{} {}", rule.subnet, rule.inside.len()))
        .collect();
    assert_eq!(subnets, ["10.244.1.0/24 3", "fd00:244:0:1::/64 3"]);
}

#[test]
fn without_nft_nothing_is_built_that_needs_it() {
    let mut observed = dual();
    observed.around.no_filter = Some("there is no program nft".to_owned());
    let two = format!("{CONFIG}{BLUE}");
    let obstacle = &build(&two, &observed).unwrap_err()[0];
    assert!(matches!(obstacle, Obstacle::NoFilter { .. }));
    assert_eq!(
        obstacle.to_string(),
        "set the packet filter, which keeping networks apart needs: there is no program nft; or use one network a node"
    );
}

#[test]
fn the_kernel_s_path_is_guarded_for_each_peer_and_what_is_behind_it() {
    let Some(Guard::Rules(rules)) = built(CONFIG, &dual()).objects.guard else {
        panic!("no guard");
    };
    let devices: Vec<String> = rules.inside.iter().map(ToString::to_string).collect();
    assert_eq!(devices, ["ovl6-7", "ovl7", "ovlbr7"]);
    assert_eq!(rules.own.len(), 2);
    let sources = rules.senders.sources.iter();
    let sources: Vec<String> = sources
        .map(|(vni, vtep, net)| format!("{vni} {vtep} {net}"))
        .collect();
    assert_eq!(
        sources,
        [
            "7 192.168.56.12 10.244.2.0/24",
            "7 192.168.56.12 192.168.56.12/32",
            "7 192.168.56.12 fd00:244:0:2::/64",
            "7 fd56::13 10.244.3.0/24",
            "7 fd56::13 fd00:244:0:3::/64",
            "7 fd56::13 fd56::13/128",
        ]
    );
    assert_eq!(rules.senders.lengths.len(), 6);
}

#[test]
fn a_machine_without_nftables_is_no_problem_and_a_foreign_table_is_one() {
    let with = |reason: NoGuard| {
        let mut observed = dual();
        observed.around.no_guard = Some(reason);
        let desired = built(CONFIG, &observed);
        assert_eq!(desired.objects.guard, None);
        desired.problems
    };
    for quiet in [NoGuard::Unavailable, NoGuard::Hidden] {
        assert_eq!(with(quiet("none".to_owned())), []);
    }
    let taken = with(NoGuard::Taken(None));
    assert!(
        matches!(taken[..], [Problem::GuardTaken { owner: None, .. }]),
        "{taken:?}"
    );
    let failed = with(NoGuard::Failed("no".to_owned()));
    assert!(
        matches!(failed[..], [Problem::NoGuard { .. }]),
        "{failed:?}"
    );
}

#[test]
fn nothing_leaves_but_by_routes_and_nobody_gets_at_another_network() {
    let mut observed = dual();
    let exit = |device: &str| (name(device), Family::V4);
    let routed = ["192.0.2.0/24".parse().unwrap()].into();
    observed.around.exits = [(exit("eth0"), Some(routed)), (exit("ovl7"), None)].into();
    let config = format!("{CONFIG}{BLUE}security = {{ in_the_clear = \"accept\" }}\n");
    let Some(Guard::Rules(rules)) = built(&config, &observed).objects.guard else {
        panic!("no guard");
    };
    let leaving = &rules.leaving;
    // What leads back into a network is no way out of it.
    let exits: Vec<_> = leaving.exits.keys().copied().collect();
    assert_eq!(exits, [exit("eth0")]);
    assert_eq!((leaving.ranges.len(), leaving.sources.len()), (3, 2));
    assert!(leaving.sources.values().all(Option::is_none) && leaving.answers);
    let apart: Vec<(usize, usize)> = rules
        .apart
        .iter()
        .map(|(devices, ranges)| (devices.len(), ranges.len()))
        .collect();
    assert_eq!(apart, [(3, 1), (2, 2)]);
}
