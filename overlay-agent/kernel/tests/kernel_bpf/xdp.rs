//! XDP links.

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

use crate::node::{Node, ifname, index, states};

/// What XDP runs on a device: the line of `bpftool net` for it.
fn shown(node: &Node, device: &str) -> String {
    let all = node.run("bpftool net show");
    let xdp = all.split("tc:").next().unwrap_or_default();
    let mut lines = xdp
        .lines()
        .filter(|line| line.starts_with(&format!("{device}(")));
    lines.next().unwrap_or_default().to_owned()
}

fn id(shown: &str) -> &str {
    shown.rsplit(' ').next().unwrap()
}

#[test]
fn xdp_links_outlive_the_agent_and_are_replaced_in_place() {
    for (hook, mode) in [
        (Hook::GuardGeneric, "generic"),
        (Hook::GuardNative, "driver"),
    ] {
        let node = Node::new();
        let mut first = node.open(AttachMode::Auto);
        node.attach(&mut first, "v0", hook);
        node.attach(&mut first, "v0", hook);
        assert_eq!(node.states(Some(&first)), states([("v0", hook, Current)]));
        drop(first);
        let before = shown(&node, "v0");
        assert!(before.contains(mode), "{before}");
        assert_eq!(node.states(None), states([("v0", hook, Current)]));

        let mut second = node.open(AttachMode::Auto);
        assert_eq!(node.states(Some(&second)), states([("v0", hook, Outdated)]));
        node.attach(&mut second, "v0", hook);
        assert_eq!(node.states(Some(&second)), states([("v0", hook, Current)]));
        let after = shown(&node, "v0");
        assert!(after.contains(mode), "{after}");
        assert_ne!(id(&before), id(&after));

        node.detach("v0", hook);
        node.detach("v0", hook);
        assert_eq!(shown(&node, "v0"), "");
        assert_eq!(node.states(Some(&second)), states([]));
    }
}

#[test]
fn one_mode_takes_the_place_of_the_other() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    for hook in [Hook::GuardNative, Hook::GuardGeneric, Hook::GuardNative] {
        node.attach(&mut dataplane, "v1.5", hook);
        assert_eq!(
            node.states(Some(&dataplane)),
            states([("v1.5", hook, Current)])
        );
    }
    let shown_now = shown(&node, "v1.5");
    assert!(shown_now.contains("driver"), "{shown_now}");
    bpf::remove_all(&node.pins).unwrap();
    assert_eq!(shown(&node, "v1.5"), "");
}

#[test]
fn a_guard_that_strips_is_another_program() {
    let node = Node::new();
    let pins = &node.pins;
    let open = |rx| node.inside(|| DataPlane::open(pins, PROGRAMS, AttachMode::Auto, rx, 1));
    let mut strips = open(Rx::Xdp).unwrap();
    assert_eq!(strips.rx(), Rx::Xdp);
    node.attach(&mut strips, "v0", Hook::GuardNative);
    let current = states([("v0", Hook::GuardNative, Current)]);
    assert_eq!(node.states(Some(&strips)), current);
    let mut guards = open(Rx::Tc).unwrap();
    assert_eq!(
        node.states(Some(&guards)),
        states([("v0", Hook::GuardNative, Outdated)])
    );
    node.attach(&mut guards, "v0", Hook::GuardNative);
    assert_eq!(node.states(Some(&guards)), current);
}

#[test]
fn the_guard_is_the_same_whether_tc_has_links_or_filters() {
    let node = Node::new();
    let mut clsact = node.open(AttachMode::Clsact);
    node.attach(&mut clsact, "v0", Hook::FromUnderlay);
    node.attach(&mut clsact, "v0", Hook::GuardGeneric);
    let both = |underlay, guard| {
        states([
            ("v0", Hook::FromUnderlay, underlay),
            ("v0", Hook::GuardGeneric, guard),
        ])
    };
    assert_eq!(node.states(Some(&clsact)), both(Current, Current));
    let mut tcx = node.open(AttachMode::Tcx);
    assert_eq!(node.states(Some(&tcx)), both(Outdated, Outdated));
    node.attach(&mut tcx, "v0", Hook::GuardGeneric);
    node.attach(&mut tcx, "v0", Hook::FromUnderlay);
    assert_eq!(node.states(Some(&tcx)), both(Current, Current));
}

#[test]
fn a_guard_of_a_device_that_is_gone_is_broken_and_can_be_cleared() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    node.attach(&mut dataplane, "v0", Hook::GuardGeneric);
    node.run("ip link del v0");
    let broken = states([("v0", Hook::GuardGeneric, Broken)]);
    assert_eq!(node.states(Some(&dataplane)), broken);
    node.run("ip link add v0 type veth peer name v2");
    assert_eq!(node.states(Some(&dataplane)), broken);
    node.attach(&mut dataplane, "v0", Hook::GuardGeneric);
    assert_eq!(
        node.states(Some(&dataplane)),
        states([("v0", Hook::GuardGeneric, Current)])
    );
    node.detach("v0", Hook::GuardGeneric);
    assert_eq!(node.states(Some(&dataplane)), states([]));
}

#[test]
fn what_cannot_be_a_link_is_refused_and_told() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Auto);
    // The driver of this device has no XDP.
    node.run("ip link add br0 type bridge");
    let native = node.inside(|| dataplane.attach(ifname("br0"), index("br0"), Hook::GuardNative));
    let error = native.unwrap_err();
    assert_eq!(error.cure(), Some("set guard = \"generic\""), "{error}");
    // In the kernel's own words.
    assert!(error.cause().contains("XDP in native mode"), "{error}");
    assert_eq!(shown(&node, "br0"), "");
    assert_eq!(node.states(Some(&dataplane)), states([]));

    // Somebody else's program stays.
    let other = Node::new();
    let mut theirs = node
        .inside(|| DataPlane::open(&other.pins, PROGRAMS, AttachMode::Auto, Rx::Tc, 1))
        .unwrap();
    node.attach(&mut theirs, "v0", Hook::GuardGeneric);
    let before = shown(&node, "v0");
    let taken = node.inside(|| dataplane.attach(ifname("v0"), index("v0"), Hook::GuardGeneric));
    let error = taken.unwrap_err();
    assert!(
        error.to_string().contains("another XDP program is there"),
        "{error}"
    );
    assert_eq!(shown(&node, "v0"), before);

    let missing = node.inside(|| dataplane.attach(ifname("none"), 9999, Hook::GuardGeneric));
    assert!(missing.unwrap_err().not_there());
}
