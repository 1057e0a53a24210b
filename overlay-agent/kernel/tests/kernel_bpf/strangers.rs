//! Programs, links, filters, maps and qdiscs of others, which have the names of ours.

use std::{fs, path::PathBuf};

use aya::{maps::MapInfo, programs::TcAttachType};
use overlay_core::{
    model::Rx,
    objects::{
        AttachmentState::{Broken, Current},
        Hook,
    },
};
use overlay_kernel::{
    PROGRAMS,
    bpf::{self, AttachMode, DataPlane},
    hooks,
};

use crate::node::{Node, ifname, index, states};

/// Everything that a device runs, with the ids: the second opinion, and TCX, of which an older `bpftool`
/// knows nothing.
fn running(node: &Node, device: &str) -> Vec<String> {
    let all = node.run("bpftool net show");
    let of = format!("{device}(");
    let lines = all
        .lines()
        .filter(|line| line.starts_with(&of) && !line.contains(" tcx/"));
    let by_tcx = [TcAttachType::Ingress, TcAttachType::Egress].map(|side| {
        node.tcx_ids(device, side)
            .into_iter()
            .map(move |id| format!("{side:?} {id}"))
    });
    lines
        .map(str::to_owned)
        .chain(by_tcx.into_iter().flatten())
        .collect()
}

/// What of ours is pinned or noted when nothing of ours has ever been there.
fn nothing(node: &Node) {
    bpf::remove_all(&node.pins).unwrap();
    assert_eq!(bpf::pinned(&node.pins).unwrap().len(), 0);
}

#[test]
fn no_link_of_others_goes_while_no_map_of_ours_is_pinned() {
    for hook in [
        Hook::FromUnderlay,
        Hook::FromHost,
        Hook::GuardGeneric,
        Hook::GuardNative,
    ] {
        let node = Node::new();
        let (pins, mut theirs) = node.namesake(AttachMode::Tcx);
        node.attach(&mut theirs, "v0", hook);
        let before = running(&node, "v0");
        assert_eq!(before.len(), 1, "{hook}: {before:?}");
        nothing(&node);

        // Their link, of a program that has the name and the kind of ours, where ours would be.
        let name = format!("links/{}-v0", hook.name());
        let taken = node.escaped_pins().join(&name);
        fs::create_dir_all(taken.parent().unwrap()).unwrap();
        fs::rename(node.escaped(&pins).join(&name), &taken).unwrap();
        let stays = |when: &str| {
            assert_eq!(running(&node, "v0"), before, "{hook} {when}");
            assert!(taken.exists(), "{hook} {when}");
        };
        assert_eq!(node.states(None), states([]), "{hook}");
        let device = (ifname("v0"), node.inside(|| index("v0")));
        let ours = node.inside(|| bpf::running(&node.pins, device.0, device.1, hook));
        assert_eq!(ours.unwrap(), None, "{hook}");
        node.detach("v0", hook);
        stays("detached");
        for _ in 0..2 {
            bpf::remove_all(&node.pins).unwrap();
            stays("removed");
        }

        // Nor once there are programs of ours.
        let mut ours = node.open(AttachMode::Tcx);
        let refused = node.inside(|| ours.attach(device.0, device.1, hook));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("a link of somebody else"), "{refused}");
        node.detach("v0", hook);
        drop(ours);
        bpf::remove_all(&node.pins).unwrap();
        stays("at the end");
        fs::remove_file(&taken).unwrap();
        drop(theirs);
        bpf::remove_all(&pins).unwrap();
    }
}

#[test]
fn no_filter_of_others_goes_while_no_map_of_ours_is_pinned() {
    let node = Node::new();
    let (pins, mut theirs) = node.namesake(AttachMode::Clsact);
    node.attach(&mut theirs, "v0", Hook::FromUnderlay);
    let before = (
        running(&node, "v0"),
        node.run("tc filter show dev v0 ingress"),
    );
    let name = format!("overlay/{}/from_underlay", node.name);
    assert!(before.1.contains(&name), "{}", before.1);
    nothing(&node);

    // Our notes are still there, and what they speak of is not.
    let notes = node.escaped_pins().join("clsact/v0");
    let stays = |when: &str| {
        let now = (
            running(&node, "v0"),
            node.run("tc filter show dev v0 ingress"),
        );
        assert_eq!(now, before, "{when}");
    };
    let put = || {
        fs::create_dir_all(notes.join("from_underlay")).unwrap();
        fs::create_dir_all(notes.join("qdisc")).unwrap();
    };
    put();
    let broken = states([("v0", Hook::FromUnderlay, Broken)]);
    assert_eq!(node.states(None), broken);
    node.detach("v0", Hook::FromUnderlay);
    stays("detached");
    node.remove_qdisc("v0");
    stays("after the qdisc");
    put();
    for _ in 0..2 {
        bpf::remove_all(&node.pins).unwrap();
        stays("removed");
    }
    assert!(!node.escaped_pins().exists());
    drop(theirs);
    node.run("tc qdisc del dev v0 clsact");
    bpf::remove_all(&pins).unwrap();
}

#[test]
fn what_is_no_link_stays_where_links_are() {
    let node = Node::new();
    let (pins, theirs) = node.namesake(AttachMode::Tcx);
    let links = node.escaped_pins().join("links");
    fs::create_dir_all(&links).unwrap();
    let places = ["from_underlay", "from_host", "from_endpoint"]
        .map(|hook| links.join(format!("{hook}-v0")));
    let [map, program, folder] = &places;
    let layout = node.escaped(&pins).join(format!("v{}", hooks::abi()));
    fs::rename(layout.join("PEERS4"), map).unwrap();
    let loaded = node.run("bpftool prog show name from_host");
    let id = loaded.split(':').next().unwrap().trim();
    node.run(&format!("bpftool prog pin id {id} {}", program.display()));
    fs::create_dir(folder).unwrap();

    assert_eq!(node.states(None), states([]));
    let mut ours = node.open(AttachMode::Tcx);
    for hook in [Hook::FromUnderlay, Hook::FromHost, Hook::FromEndpoint] {
        node.detach("v0", hook);
        let refused = node.inside(|| ours.attach(ifname("v0"), index("v0"), hook));
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("is something of somebody else"),
            "{refused}"
        );
    }
    drop(ours);
    for _ in 0..2 {
        bpf::remove_all(&node.pins).unwrap();
        assert!(places.iter().all(|place| place.exists()), "{places:?}");
    }
    fs::remove_file(map).unwrap();
    fs::remove_file(program).unwrap();
    fs::remove_dir(folder).unwrap();
    drop(theirs);
    bpf::remove_all(&pins).unwrap();
    bpf::remove_all(&node.pins).unwrap();
    assert!(!node.escaped_pins().exists());
}

fn layout(node: &Node) -> PathBuf {
    node.escaped_pins().join(format!("v{}", hooks::abi()))
}

#[test]
fn what_is_noted_is_ours_without_a_pinned_map() {
    for mode in [AttachMode::Tcx, AttachMode::Clsact] {
        let node = Node::new();
        let mut ours = node.open(mode);
        node.attach(&mut ours, "v0", Hook::FromUnderlay);
        drop(ours);
        fs::remove_dir_all(layout(&node)).unwrap();
        assert_eq!(
            node.states(None),
            states([("v0", Hook::FromUnderlay, Current)])
        );
        node.detach("v0", Hook::FromUnderlay);
        assert_eq!(running(&node, "v0").len(), 0);
        node.remove_qdisc("v0");
        bpf::remove_all(&node.pins).unwrap();
        assert!(!node.escaped_pins().exists());
    }
}

#[test]
fn what_nothing_proves_stays() {
    let node = Node::new();
    let mut ours = node.open(AttachMode::Tcx);
    node.attach(&mut ours, "v0", Hook::FromUnderlay);
    drop(ours);
    fs::remove_dir_all(layout(&node)).unwrap();
    fs::remove_dir_all(node.escaped_pins().join("made")).unwrap();
    node.detach("v0", Hook::FromUnderlay);
    let said = bpf::remove_all(&node.pins).unwrap();
    // Not that it is somebody else's, which nobody can know.
    let said = said.expect("it stays, so it is told");
    let folder = node.escaped_pins();
    let folder = folder.display();
    assert_eq!(
        said,
        format!(
            "{folder} stays, with links/from_underlay-v0: {folder}/made has no notes of what this instance has made, \
             so nothing proves that it is its own; if nobody else has pinned anything there, remove it with \
             \"rm -r {folder}\", which detaches the programs"
        )
    );
    assert_eq!(node.tcx("v0", TcAttachType::Ingress), ["from_underlay"]);
    fs::remove_dir_all(node.escaped_pins()).unwrap();
}

#[test]
fn notes_that_are_gone_are_made_again() {
    let node = Node::new();
    let mut ours = node.open(AttachMode::Tcx);
    let all = ours.pinned().unwrap();
    let made = node.escaped_pins().join("made");
    let notes = || fs::read_dir(&made).map_or(0, Iterator::count);
    assert_eq!(notes(), all.len());
    fs::remove_dir_all(&made).unwrap();
    assert_eq!(ours.pinned().unwrap().len(), 0);
    for map in &all {
        ours.pin(map).unwrap();
    }
    assert_eq!(notes(), all.len());
    assert_eq!(ours.pinned().unwrap(), all);
}

#[test]
fn who_was_killed_before_the_notes_finds_its_maps_again() {
    let node = Node::new();
    let names = node.open(AttachMode::Tcx).pinned().unwrap();
    let ids = || {
        let id = |name: &&str| MapInfo::from_pin(layout(&node).join(name)).unwrap().id();
        names.iter().map(id).collect::<Vec<_>>()
    };
    let before = ids();
    let made = node.escaped_pins().join("made");
    fs::remove_dir_all(&made).unwrap();
    let open = || DataPlane::open(&node.pins, PROGRAMS, AttachMode::Tcx, Rx::Tc, 1);
    let refused = node.inside(open).unwrap_err().to_string();
    assert!(
        refused.contains("has no notes of what"),
        "a name is no proof: {refused}"
    );
    for name in &names {
        fs::create_dir_all(made.join(format!("v{}-{name}", hooks::abi()))).unwrap();
    }
    drop(node.open(AttachMode::Tcx));
    assert_eq!(ids(), before);
    let mut noted: Vec<u32> = fs::read_dir(&made)
        .unwrap()
        .map(|note| note.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    noted.sort_unstable();
    let mut expected = before;
    expected.sort_unstable();
    assert_eq!(noted, expected, "nothing is announced any more");
}

#[test]
fn a_qdisc_on_another_device_of_that_name_is_not_ours() {
    let node = Node::new();
    let mut ours = node.open(AttachMode::Clsact);
    node.attach(&mut ours, "v0", Hook::FromUnderlay);
    node.run("ip link del v0");
    node.run("ip link add v0 type veth peer name v2");
    node.run("tc qdisc add dev v0 clsact");
    node.detach("v0", Hook::FromUnderlay);
    node.remove_qdisc("v0");
    assert_eq!(node.qdiscs(), [""; 0]);
    assert!(node.run("tc qdisc show dev v0").contains("clsact"));
}
