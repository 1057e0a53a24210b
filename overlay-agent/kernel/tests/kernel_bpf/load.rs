//! Objects and pins that cannot be used.

use std::fs;

use overlay_core::model::Rx;
use overlay_kernel::{
    PROGRAMS,
    bpf::{AttachMode, DataPlane},
};

use overlay_common::maps;

use crate::node::Node;

#[test]
fn a_map_of_another_layout_is_refused() {
    let node = Node::new();
    drop(node.open(AttachMode::Auto));
    let folder = node
        .escaped_pins()
        .join(format!("v{}", overlay_common::ABI));
    let ports = folder.join(maps::PORTS);
    fs::remove_file(&ports).unwrap();
    fs::remove_file(folder.join(maps::VTEPS4)).unwrap();
    let create = format!(
        "bpftool map create {} type hash key 4 value 8 entries 16 name PORTS",
        ports.display()
    );
    node.run(&create);

    // Whose it is comes first: a name says nothing about that.
    let error = DataPlane::open(&node.pins, PROGRAMS, AttachMode::Auto, Rx::Tc, 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("PORTS that this instance did not make"),
        "{text}"
    );
    assert!(ports.exists() && !folder.join(maps::VTEPS4).exists());

    node.note(&ports);
    let error = DataPlane::open(&node.pins, PROGRAMS, AttachMode::Auto, Rx::Tc, 1).unwrap_err();
    let text = error.to_string();
    let found = "/PORTS: it is a Hash of key, value and number (4, 8, 16), not ";
    assert!(text.contains(found), "{text}");
    assert!(error.cure().is_some());
    assert!(!folder.join(maps::VTEPS4).exists());
}

#[test]
fn a_broken_object_leaves_nothing_behind() {
    let node = Node::new();
    let error = DataPlane::open(&node.pins, b"no object", AttachMode::Auto, Rx::Tc, 1).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("load the eBPF programs: "), "{text}");
    assert!(!node.escaped_pins().exists());
}

#[test]
fn a_program_that_the_verifier_refuses_comes_with_its_reason() {
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    /// `struct btf_header`: what follows the programs.
    const BTF: [u8; 4] = [0x9f, 0xeb, 1, 0];

    let node = Node::new();
    // Without a last instruction, every program runs over its end.
    let mut object = PROGRAMS.to_vec();
    let programs = object.windows(BTF.len()).position(|bytes| bytes == BTF);
    let exits: Vec<usize> = (0..programs.unwrap() - 8)
        .step_by(8)
        .filter(|&at| object[at..at + 8] == EXIT)
        .collect();
    assert!(!exits.is_empty());
    for at in exits {
        object[at..at + 8].fill(0);
    }

    let error = DataPlane::open(&node.pins, &object, AttachMode::Auto, Rx::Tc, 1).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("load program from_"), "{text}");
    assert!(text.contains("last insn is not an exit"), "{text}");
    assert_eq!(error.cure(), None);
    assert!(!node.escaped_pins().exists());
}
