//! The packet filter against `nft` as a second opinion.

use overlay_core::{
    model::Name,
    objects::{Filter, FilterRules, FilterTable, Masquerade, TableOwner},
};
use overlay_kernel::nft;

use crate::namespace::{Namespace, name, net};

const TABLE: &str = "overlay-test-n1.x";

fn instance() -> Name {
    "test-n1.x".parse().unwrap()
}

impl Namespace {
    /// Runs `nft` as somebody else would.
    fn nft(&self, script: &str) -> String {
        self.run_words(&["nft", "-a", script])
    }

    fn table(&self) -> Option<FilterTable> {
        self.inside(|| nft::read(TABLE, &instance())).unwrap()
    }

    fn filter(&self) -> Option<Filter> {
        let table = self.table()?;
        assert_eq!(table.owner, TableOwner::This);
        Some(table.filter)
    }

    fn set_filter(&self, rules: &FilterRules) {
        self.inside(|| nft::set(TABLE, &instance(), rules)).unwrap();
    }

    fn delete_filter(&self) {
        self.inside(|| nft::delete(TABLE, &instance())).unwrap();
    }
}

/// Two networks, one of them masqueraded in both families.
fn rules() -> FilterRules {
    let one = ["ovlbr1", "ovl1", "ovl6-1"].map(name);
    let two = ["ovlbr2", "ovl2"].map(name);
    let pairs = |devices: &[overlay_core::model::IfName]| {
        let devices = devices.to_vec();
        let others = devices.clone();
        devices
            .into_iter()
            .flat_map(move |from| others.clone().into_iter().map(move |to| (from, to)))
    };
    let masquerade = |subnet, cidr| Masquerade {
        subnet: net(subnet),
        cidr: net(cidr),
        inside: one.into(),
    };
    FilterRules {
        isolated: one.into_iter().chain(two).collect(),
        together: pairs(&one).chain(pairs(&two)).collect(),
        masqueraded: [
            masquerade("10.244.1.0/24", "10.244.0.0/16"),
            masquerade("fd00:244:0:1::/64", "fd00:244::/48"),
        ]
        .into(),
    }
}

#[test]
fn rules_come_back_as_they_went_and_go() {
    let namespace = Namespace::new();
    assert_eq!(namespace.filter(), None);
    let one_thing = |change: fn(&mut FilterRules)| {
        let mut rules = rules();
        change(&mut rules);
        rules
    };
    let isolation = one_thing(|rules| rules.masqueraded.clear());
    let masquerade = one_thing(|rules| {
        rules.isolated.clear();
        rules.together.clear();
    });
    // Each in the place of the one before.
    for rules in [rules(), isolation, masquerade, rules()] {
        namespace.set_filter(&rules);
        assert_eq!(namespace.filter(), Some(Filter::Rules(rules)));
    }
    let listing = namespace.nft("list ruleset");
    assert!(
        listing.contains("type filter hook forward priority filter"),
        "{listing}"
    );
    assert!(
        listing.contains("type nat hook postrouting priority srcnat"),
        "{listing}"
    );
    assert!(
        listing.contains("counter packets 0 bytes 0 drop"),
        "{listing}"
    );
    namespace.delete_filter();
    assert_eq!(namespace.nft("list tables"), "");
    namespace.delete_filter();
    assert_eq!(namespace.nft("list tables"), "");
}

#[test]
fn what_somebody_changes_is_seen_and_what_is_counted_is_not() {
    let namespace = Namespace::new();
    let table = format!("inet {TABLE}");
    let changes = [
        format!("add element {table} together {{ \"ovlbr1\" . \"ovlbr2\" }}"),
        format!("delete element {table} isolated {{ \"ovl6-1\" }}"),
        format!("insert rule {table} forward accept"),
        format!("add rule {table} postrouting ip saddr 10.0.0.0/8 masquerade random"),
        format!("flush chain {table} forward"),
        format!("add chain {table} other"),
        format!("add set {table} more {{ type ifname; }}"),
        format!("add counter {table} seen"),
        format!("add chain {table} forward {{ policy drop; }}"),
    ];
    for change in changes {
        namespace.set_filter(&rules());
        namespace.nft(&change);
        let found = namespace.filter();
        assert_ne!(found, Some(Filter::Rules(rules())), "{change}");
        assert!(found.is_some(), "{change}");
    }
    namespace.set_filter(&rules());
    namespace.nft("add table inet overlay-test-n1");
    namespace.nft("add table ip others");
    assert_eq!(namespace.filter(), Some(Filter::Rules(rules())));
    namespace.nft(&format!("delete table {table}"));
    assert_eq!(namespace.filter(), None);
}

/// What others can have under the name of ours.
const OTHERS: [&str; 5] = [
    "{ }",
    "{ comment \"overlay:test-n1.x\"; chain forward { type filter hook forward priority filter; }; }",
    "{ chain made-by-overlay-other { }; }",
    "{ chain made-by-overlay-test-n1 { ip saddr 10.0.0.1 counter; }; }",
    "{ set isolated { type ifname; elements = { \"ovl1\" }; }; map of-mine { type ipv4_addr : verdict; }; }",
];

#[test]
fn a_table_of_somebody_else_stays_as_it_is() {
    for content in OTHERS {
        let namespace = Namespace::new();
        namespace.nft(&format!("table inet {TABLE} {content}"));
        let before = namespace.nft("list ruleset");
        let table = namespace.table().unwrap();
        let instance_named = content.contains("made-by");
        match table.owner {
            TableOwner::Instance(_) => assert!(instance_named, "{content}"),
            TableOwner::Unknown => assert!(!instance_named, "{content}"),
            owner => panic!("{owner:?}: {content}"),
        }
        let refused = namespace.inside(|| nft::set(TABLE, &instance(), &rules()));
        assert!(refused.is_err(), "{content}");
        namespace.delete_filter();
        assert_eq!(namespace.nft("list ruleset"), before);
    }
}

/// As version 0.1 made it.
const OF_EARLIER: &str = r#"
table inet overlay-test-n1.x {
    set isolated { type ifname; elements = { "ovl1", "ovlbr1", "ovl2", "ovlbr2" } }
    set together { typeof iifname . oifname; elements = { "ovl1" . "ovlbr1", "ovlbr1" . "ovl1", "ovl2" . "ovlbr2", "ovlbr2" . "ovl2" } }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname @isolated oifname @isolated iifname . oifname != @together counter packets 3 bytes 84 drop
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 oifname != "ovl1" oifname != "ovlbr1" counter packets 0 bytes 0 masquerade
    }
}
"#;

#[test]
fn what_an_earlier_version_made_without_a_mark_is_taken_over() {
    let namespace = Namespace::new();
    for replace in [true, false] {
        namespace.nft(OF_EARLIER);
        let table = namespace.table().unwrap();
        assert_eq!(table.owner, TableOwner::Earlier);
        if replace {
            namespace.set_filter(&rules());
            assert_eq!(namespace.filter(), Some(Filter::Rules(rules())));
        }
        namespace.delete_filter();
        assert_eq!(namespace.nft("list tables"), "");
    }
    namespace.nft(OF_EARLIER);
    namespace.nft(&format!(
        "add rule inet {TABLE} forward ip saddr 10.0.0.1 counter"
    ));
    assert_eq!(namespace.table().unwrap().owner, TableOwner::Unknown);
}
