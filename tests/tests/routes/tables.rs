//! Rules that lead to tables which refuse packets, by all that rules can tell packets by.

use anyhow::Result;
use overlay_tests::{
    families::{Families, Family},
    topology::UNDERLAY,
};

use super::{Case, Stand};

/// Somebody else's, and a priority before that of the main table's rule.
const TABLE: &str = "table 100";
const TOLD: &str = "of table 100, by rule 99";

/// A route in the table, and a rule that leads to it.
fn case(family: Family, route: &str, rule: &str) -> Case {
    Case {
        family,
        parts: vec![
            ("route", format!("{route} {TABLE}")),
            ("rule", format!("priority 99 {rule} lookup 100")),
        ],
        told: TOLD.to_owned(),
    }
}

/// What refuses packets of the network.
fn refusing(stand: &Stand, family: Family) -> Vec<Case> {
    let topology = stand.guard.topology();
    let [own, other] = [0, 1].map(|number: usize| &topology.nodes[number]);
    let (far, near) = (stand.far(family), own.containers[0].at(family));
    let (subnet, subnet_here) = (other.subnet_at(family), own.subnet_at(family));
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    };
    let case = |route: &str, rule: &str| case(family, route, rule);
    let mut cases = vec![
        case(&format!("blackhole {subnet}"), &format!("to {subnet}")),
        case(&format!("prohibit {far}"), ""),
        case("unreachable default", &format!("from {near}")),
        case("prohibit default", &format!("from {subnet_here} to {far}")),
        case(&format!("unreachable {subnet}"), "iif ovlbr1"),
        case(&format!("blackhole {subnet}"), "fwmark 0/0xff"),
        case(&format!("unreachable {far}"), &format!("ipproto {icmp}")),
        case(&format!("prohibit {subnet}"), "not fwmark 7"),
        // What refuses is nothing that a rule could suppress.
        case(&format!("unreachable {far}"), "suppress_prefixlength 128"),
        // On the way back.
        case(&format!("blackhole {near}"), "iif ovl1"),
    ];
    if family == Family::V4 {
        for rule in cases.iter_mut().flat_map(|case| &mut case.parts) {
            rule.1 = rule.1.replace("prefixlength 128", "prefixlength 32");
        }
    }
    cases.push(Case {
        family,
        parts: vec![
            ("route", format!("prohibit {subnet} {TABLE}")),
            ("rule", "priority 40000 lookup 100".to_owned()),
            ("rule", "priority 98 iif ovlbr1 goto 40000".to_owned()),
        ],
        told: "of table 100, by rule 40000".to_owned(),
    });
    cases
}

/// What refuses none of them: throws them back to the other tables, is asked behind the main one,
/// or about others alone.
fn sparing(stand: &Stand, family: Family) -> Vec<Case> {
    let topology = stand.guard.topology();
    let (range, others) = match family {
        Family::V4 => (topology.network.to_string(), "198.51.100.0/24"),
        Family::V6 => (topology.network6.to_string(), "2001:db8:5::/48"),
    };
    let blackhole = format!("blackhole {range}");
    let mut throws: Vec<_> = topology
        .nodes
        .iter()
        .map(|node| ("route", format!("throw {} {TABLE}", node.subnet_at(family))))
        .collect();
    throws.push(("route", format!("{blackhole} {TABLE}")));
    throws.push(("rule", "priority 99 lookup 100".to_owned()));
    let behind = vec![
        ("route", format!("{blackhole} {TABLE}")),
        ("rule", "priority 40000 lookup 100".to_owned()),
    ];
    let mut cases: Vec<Case> = [throws, behind]
        .into_iter()
        .map(|parts| Case {
            family,
            parts,
            told: String::new(),
        })
        .collect();
    for rule in [
        format!("iif {UNDERLAY}"),
        format!("oif {UNDERLAY}"),
        format!("from {others}"),
        format!("to {others}"),
        "iif lo".to_owned(),
        "uidrange 1000-2000".to_owned(),
    ] {
        cases.push(case(family, &blackhole, &rule));
    }
    cases
}

/// What refuses the tunnel itself.
fn outside(stand: &Stand, outer: Family) -> Vec<Case> {
    let vtep = stand.guard.topology().nodes[1].underlay_at(outer);
    let own = stand.guard.topology().nodes[0].underlay_at(outer);
    let port = stand.guard.topology().port();
    let refuses = format!("unreachable {vtep}");
    let told = |told: &str, case: Case| Case {
        told: told.to_owned(),
        ..case
    };
    let by_vtep = [
        case(outer, &format!("blackhole {vtep}"), ""),
        case(outer, &refuses, &format!("from {own}")),
        case(outer, &format!("prohibit {vtep}"), "iif lo"),
        case(outer, &refuses, &format!("ipproto udp dport {port}")),
    ];
    let mut cases: Vec<Case> = by_vtep
        .into_iter()
        .map(|case| told(&vtep.to_string(), case))
        .collect();
    let by_source_port = case(outer, &refuses, "ipproto udp sport 40000-65534");
    cases.push(told("about source ports", by_source_port));
    cases
}

fn compare(name: &str, outer: Families) -> Result<()> {
    let stand = Stand::up(name, outer)?;
    let outer = outer.all()[0];
    let families = [Family::V4, Family::V6];
    let mut cases: Vec<(Case, Family)> = outside(&stand, outer)
        .into_iter()
        .map(|case| (case, Family::V4))
        .collect();
    // What is inside is judged alike, whatever is outside.
    if outer == Family::V4 {
        for family in families {
            let inside = refusing(&stand, family).into_iter();
            cases.extend(inside.map(|case| (case, family)));
        }
        for family in families {
            for case in sparing(&stand, family) {
                stand.ip(&case, "add")?;
                for on in [false, true] {
                    stand.agent().fastpath(on)?;
                    stand.becomes_fast(on, &case.what());
                }
                stand.ip(&case, "del")?;
            }
        }
    }
    stand.compare(&cases)?;
    Ok(stand.guard.down()?)
}

#[test]
fn what_tables_refuse_that_rules_lead_to_is_refused_on_both_paths() -> Result<()> {
    compare("ttables", Families::V4)
}

#[test]
fn what_they_refuse_of_tunnels_over_ipv6_is_refused() -> Result<()> {
    compare("ttables6", Families::V6)
}
