//! TCX links.

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
    hooks,
};

use crate::node::{Node, ifname, index, states};

#[test]
fn tcx_links_outlive_the_agent_and_are_replaced_in_place() {
    let node = Node::new();
    let mut first = node.open(AttachMode::Tcx);
    assert_eq!(first.mode(), AttachMode::Tcx);
    node.attach(&mut first, "v0", Hook::FromHost);
    node.attach(&mut first, "v1.5", Hook::FromEndpoint);
    node.attach(&mut first, "v1.5", Hook::FromEndpoint);
    let current = states([
        ("v0", Hook::FromHost, Current),
        ("v1.5", Hook::FromEndpoint, Current),
    ]);
    assert_eq!(node.states(Some(&first)), current);
    drop(first);
    assert_eq!(node.tcx("v0", TcAttachType::Egress), ["from_host"]);
    assert_eq!(node.tcx("v1.5", TcAttachType::Ingress), ["from_endpoint"]);
    assert_eq!(node.states(None), current);

    let mut second = node.open(AttachMode::Auto);
    let outdated = states([
        ("v0", Hook::FromHost, Outdated),
        ("v1.5", Hook::FromEndpoint, Outdated),
    ]);
    assert_eq!(node.states(Some(&second)), outdated);
    node.attach(&mut second, "v0", Hook::FromHost);
    node.attach(&mut second, "v1.5", Hook::FromEndpoint);
    assert_eq!(node.states(Some(&second)), current);
    assert_eq!(node.tcx("v1.5", TcAttachType::Ingress), ["from_endpoint"]);

    node.detach("v1.5", Hook::FromEndpoint);
    node.detach("v1.5", Hook::FromEndpoint);
    assert!(node.tcx("v1.5", TcAttachType::Ingress).is_empty());
    assert_eq!(
        node.states(Some(&second)),
        states([("v0", Hook::FromHost, Current)])
    );
    bpf::remove_all(&node.pins).unwrap();
    assert!(node.tcx("v0", TcAttachType::Egress).is_empty());
}

#[test]
fn a_tcx_link_of_a_device_that_is_gone_is_broken() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Tcx);
    node.attach(&mut dataplane, "v0", Hook::FromUnderlay);
    node.attach(&mut dataplane, "v1.5", Hook::FromEndpoint);
    node.run("ip link del v0");
    let broken = states([
        ("v0", Hook::FromUnderlay, Broken),
        ("v1.5", Hook::FromEndpoint, Broken),
    ]);
    assert_eq!(node.states(Some(&dataplane)), broken);

    // One comes again under its name, one does not.
    node.run("ip link add v0 type veth peer name v2");
    assert_eq!(node.states(Some(&dataplane)), broken);
    node.attach(&mut dataplane, "v0", Hook::FromUnderlay);
    node.detach("v1.5", Hook::FromEndpoint);
    assert_eq!(
        node.states(Some(&dataplane)),
        states([("v0", Hook::FromUnderlay, Current)])
    );
    assert_eq!(node.tcx("v0", TcAttachType::Ingress), ["from_underlay"]);

    // A link follows its device to another name, where it is not wanted.
    node.run("ip link set v0 name moved");
    assert_eq!(
        node.states(Some(&dataplane)),
        states([("v0", Hook::FromUnderlay, Broken)])
    );
    node.run("ip link set v2 name v0");
    node.attach(&mut dataplane, "v0", Hook::FromUnderlay);
    assert!(node.tcx("moved", TcAttachType::Ingress).is_empty());
    assert_eq!(node.tcx("v0", TcAttachType::Ingress), ["from_underlay"]);
}

#[test]
fn ours_comes_first_and_others_stay() {
    let node = Node::new();
    let other = Node::new();
    let mut theirs = node
        .inside(|| DataPlane::open(&other.pins, PROGRAMS, AttachMode::Tcx, Rx::Tc, 1))
        .unwrap();
    let mut ours = node.open(AttachMode::Tcx);
    node.attach(&mut theirs, "v0", Hook::FromUnderlay);
    node.attach(&mut ours, "v0", Hook::FromEndpoint);
    assert_eq!(
        node.tcx("v0", TcAttachType::Ingress),
        ["from_endpoint", "from_underlay"]
    );
    node.detach("v0", Hook::FromEndpoint);
    assert_eq!(node.tcx("v0", TcAttachType::Ingress), ["from_underlay"]);
}

#[test]
fn a_device_must_be_the_one_that_was_meant() {
    let node = Node::new();
    let mut dataplane = node.open(AttachMode::Tcx);
    let wrong = node.inside(|| dataplane.attach(ifname("v0"), index("v1.5"), Hook::FromUnderlay));
    assert!(wrong.unwrap_err().not_there());
    assert!(node.tcx("v0", TcAttachType::Ingress).is_empty());
    let missing = node.inside(|| dataplane.attach(ifname("none"), 9999, Hook::FromUnderlay));
    let error = missing.unwrap_err();
    assert_eq!(
        error.to_string(),
        "attach from_underlay dev none: No such device"
    );
}

#[test]
fn what_others_have_pinned_in_our_folder_stays() {
    let node = Node::new();
    let (pins, mut theirs) = node.namesake(AttachMode::Tcx);
    node.attach(&mut theirs, "v0", Hook::FromUnderlay);
    let mut ours = node.open(AttachMode::Tcx);
    node.attach(&mut ours, "v1.5", Hook::FromEndpoint);

    // Their link, of their program, by the name that ours would have.
    let taken = node.escaped_pins().join("links/from_underlay-v0");
    let from = node.escaped(&pins).join("links/from_underlay-v0");
    std::fs::rename(from, &taken).unwrap();
    let running = node.tcx_ids("v0", TcAttachType::Ingress);
    assert_eq!(
        node.states(Some(&ours)),
        states([("v1.5", Hook::FromEndpoint, Current)]),
        "it is none of ours"
    );
    let refused = node.inside(|| ours.attach(ifname("v0"), index("v0"), Hook::FromUnderlay));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("a link of somebody else"), "{refused}");
    node.detach("v0", Hook::FromUnderlay);

    // A map of theirs and a folder among our maps, and a folder among our notes.
    let layout = node.escaped_pins().join(format!("v{}", hooks::abi()));
    let moved = node.escaped(&pins).join(format!("v{}", hooks::abi()));
    let more = [
        layout.join("PEERS9"),
        layout.join("theirs"),
        node.escaped_pins().join("clsact/v0/theirs"),
    ];
    std::fs::rename(moved.join("PEERS6"), &more[0]).unwrap();
    for folder in &more[1..] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let said = bpf::remove_all(&node.pins).unwrap();
    assert!(
        said.is_some_and(|said| said.contains("that this instance did not make")),
        "the notes were there"
    );
    assert!(taken.exists());
    assert!(more.iter().all(|path| path.exists()), "{more:?}");
    assert!(!layout.join("PEERS4").exists());

    // In the place of a map it is neither used nor replaced.
    std::fs::rename(&more[0], layout.join("PEERS4")).unwrap();
    let refused = node.inside(|| DataPlane::open(&node.pins, PROGRAMS, AttachMode::Tcx, Rx::Tc, 1));
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("has no notes of what"), "{refused}");
    std::fs::rename(layout.join("PEERS4"), moved.join("PEERS6")).unwrap();
    std::fs::remove_dir(&more[1]).unwrap();
    std::fs::remove_dir(&more[2]).unwrap();
    assert_eq!(node.tcx_ids("v0", TcAttachType::Ingress), running);
    assert!(node.tcx("v1.5", TcAttachType::Ingress).is_empty(), "ours");

    std::fs::remove_file(&taken).unwrap();
    drop(theirs);
    bpf::remove_all(&pins).unwrap();
    bpf::remove_all(&node.pins).unwrap();
    assert!(!node.escaped_pins().exists());
}
