//! Filters of a clsact qdisc.

use aya::programs::TcAttachType;
use overlay_core::{
    model::Rx,
    objects::{
        AttachmentState::{Broken, Current, Outdated},
        Hook,
    },
};
use overlay_kernel::{
    PROGRAMS,
    bpf::{self, AttachMode, DataPlane},
};

use crate::node::{Node, states};

#[test]
fn clsact_filters_outlive_the_agent_and_are_replaced_in_place() {
    let node = Node::new();
    let mut first = node.open(AttachMode::Clsact);
    assert_eq!(first.mode(), AttachMode::Clsact);
    node.attach(&mut first, "v1.5", Hook::FromEndpoint);
    node.attach(&mut first, "v1.5", Hook::FromHost);
    node.attach(&mut first, "v1.5", Hook::FromHost);
    let both = |state| {
        states([
            ("v1.5", Hook::FromEndpoint, state),
            ("v1.5", Hook::FromHost, state),
        ])
    };
    assert_eq!(node.states(Some(&first)), both(Current));
    let shown = node.run("tc filter show dev v1.5 egress");
    let name = format!("overlay/{}/from_host", node.name);
    assert_eq!(shown.matches(&name).count(), 1, "{shown}");
    assert!(shown.contains("direct-action"), "{shown}");
    drop(first);

    let mut second = node.open(AttachMode::Clsact);
    assert_eq!(node.states(Some(&second)), both(Outdated));
    assert_eq!(node.states(None), both(Current));
    node.attach(&mut second, "v1.5", Hook::FromEndpoint);
    node.attach(&mut second, "v1.5", Hook::FromHost);
    assert_eq!(node.states(Some(&second)), both(Current));
    let shown = node.run("tc filter show dev v1.5 egress");
    assert_eq!(shown.matches(&name).count(), 1, "{shown}");

    node.run("tc filter del dev v1.5 egress");
    assert_eq!(
        node.states(Some(&second))[&("v1.5".to_owned(), Hook::FromHost)],
        Broken
    );
    node.detach("v1.5", Hook::FromHost);
    node.detach("v1.5", Hook::FromEndpoint);
    assert_eq!(node.states(Some(&second)), states([]));
    let qdiscs = || node.run("tc qdisc show dev v1.5");
    assert!(qdiscs().contains("clsact"));
    node.remove_qdisc("v1.5");
    assert!(!qdiscs().contains("clsact"));
}

#[test]
fn a_filter_of_others_for_one_protocol_keeps_the_qdisc() {
    let node = Node::new();
    let mut ours = node.open(AttachMode::Clsact);
    node.attach(&mut ours, "v0", Hook::FromUnderlay);
    node.run(
        "tc filter add dev v0 ingress pref 7 protocol ip u32 match u32 0 0 action mirred egress redirect dev v1.5",
    );
    node.detach("v0", Hook::FromUnderlay);
    node.remove_qdisc("v0");
    let filters = node.run("tc filter show dev v0 ingress");
    assert!(filters.contains("protocol ip pref 7 u32"), "{filters}");
}

#[test]
fn a_clsact_qdisc_of_others_stays_with_their_filters() {
    let node = Node::new();
    let other = Node::new();
    let open = || DataPlane::open(&other.pins, PROGRAMS, AttachMode::Clsact, Rx::Tc, 1);
    let mut theirs = node.inside(open).unwrap();
    let mut ours = node.open(AttachMode::Clsact);
    // On `v0` they made the qdisc, on `v1.5` we did and they use it.
    node.run("tc qdisc add dev v0 clsact");
    node.attach(&mut ours, "v0", Hook::FromUnderlay);
    node.attach(&mut ours, "v1.5", Hook::FromUnderlay);
    node.attach(&mut theirs, "v1.5", Hook::FromUnderlay);
    node.detach("v0", Hook::FromUnderlay);
    node.detach("v1.5", Hook::FromUnderlay);
    assert_eq!(node.qdiscs(), ["v1.5"]);
    node.remove_qdisc("v1.5");
    assert_eq!(node.qdiscs(), [""; 0]);
    for device in ["v0", "v1.5"] {
        assert!(
            node.run(&format!("tc qdisc show dev {device}"))
                .contains("clsact")
        );
        let filters = node.run(&format!("tc filter show dev {device} ingress"));
        assert!(
            !filters.contains(&format!("overlay/{}/", node.name)),
            "{filters}"
        );
    }
    let filters = node.run("tc filter show dev v1.5 ingress");
    assert!(
        filters.contains(&format!("overlay/{}/from_underlay", other.name)),
        "{filters}"
    );
}

#[test]
fn remains_of_clsact_on_a_device_that_is_gone_can_be_cleared() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Clsact);
    node.attach(&mut dataplane, "v0", Hook::FromUnderlay);
    node.run("ip link del v0");
    assert_eq!(
        node.states(Some(&dataplane)),
        states([("v0", Hook::FromUnderlay, Broken)])
    );
    node.detach("v0", Hook::FromUnderlay);
    assert_eq!(node.states(Some(&dataplane)), states([]));
    node.remove_qdisc("v0");
    assert_eq!(node.qdiscs(), [""; 0]);
}

#[test]
fn attaching_in_another_mode_takes_the_first_away() {
    let node = Node::new();
    let mut clsact = node.open(AttachMode::Clsact);
    node.attach(&mut clsact, "v0", Hook::FromUnderlay);
    let mut tcx = node.open(AttachMode::Tcx);
    assert_eq!(
        node.states(Some(&tcx)),
        states([("v0", Hook::FromUnderlay, Outdated)])
    );
    node.attach(&mut tcx, "v0", Hook::FromUnderlay);
    assert_eq!(
        node.states(Some(&tcx)),
        states([("v0", Hook::FromUnderlay, Current)])
    );
    let filters = node.run("tc filter show dev v0 ingress");
    assert!(!filters.contains("overlay/"), "{filters}");
    node.attach(&mut clsact, "v0", Hook::FromUnderlay);
    assert!(node.tcx("v0", TcAttachType::Ingress).is_empty());
    assert_eq!(
        node.states(Some(&clsact)),
        states([("v0", Hook::FromUnderlay, Current)])
    );
}

#[test]
fn a_filter_of_others_with_our_name_stays() {
    let node = Node::new();
    let (pins, mut theirs) = node.namesake(AttachMode::Clsact);
    let theirs_alone = |when: &str| {
        let filters = node.run("tc filter show dev v0 ingress");
        let name = format!("overlay/{}/from_underlay", node.name);
        assert_eq!(filters.matches(&name).count(), 1, "{when}: {filters}");
        filters
    };
    // Ours comes, is replaced and goes while theirs is there.
    node.attach(&mut theirs, "v0", Hook::FromUnderlay);
    let before = theirs_alone("before");
    for _ in 0..2 {
        let mut ours = node.open(AttachMode::Clsact);
        node.attach(&mut ours, "v0", Hook::FromUnderlay);
        node.attach(&mut ours, "v0", Hook::FromUnderlay);
        assert_eq!(
            node.states(Some(&ours)),
            states([("v0", Hook::FromUnderlay, Current)])
        );
        let both = node.run("tc filter show dev v0 ingress");
        assert_eq!(both.matches("overlay/").count(), 2, "{both}");
    }
    node.detach("v0", Hook::FromUnderlay);
    assert_eq!(theirs_alone("after"), before);
    // It uses the qdisc, whoever made that.
    node.remove_qdisc("v0");
    assert_eq!(theirs_alone("after the qdisc"), before);

    // Theirs in the place of ours, which somebody has removed.
    let mut ours = node.open(AttachMode::Clsact);
    node.run("tc filter del dev v0 ingress");
    node.attach(&mut ours, "v0", Hook::FromUnderlay);
    node.run("tc filter del dev v0 ingress");
    node.attach(&mut theirs, "v0", Hook::FromUnderlay);
    let before = theirs_alone("in the place of ours");
    assert_eq!(
        node.states(Some(&ours)),
        states([("v0", Hook::FromUnderlay, Broken)])
    );
    node.detach("v0", Hook::FromUnderlay);
    assert_eq!(theirs_alone("after detach"), before);
    drop(theirs);
    bpf::remove_all(&pins).unwrap();
}
