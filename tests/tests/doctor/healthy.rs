//! Nothing is found where nothing is wrong, whatever the lab speaks.

use anyhow::Result;
use overlay_tests::{
    families::Families,
    guard::Guard,
    shape::{Scenario, Shape},
};
use serde_json::Value;

use crate::stand::Stand;

fn shape(name: &str, scenario: Scenario, nodes: u8, over: Families) -> Result<Shape> {
    let shape = Shape::of(name, scenario, nodes, 2)?;
    Ok(shape.speaking(over, Families::Both)?)
}

/// By the agent and without it.
fn is_silent(shape: Shape) -> Result<()> {
    let stand = Stand::of(Guard::up(shape)?)?;
    stand.is_well("the start", || stand.diagnosis_alone())?;
    let diagnosis = stand.diagnosis()?;
    assert_eq!(diagnosis["findings"], Value::Array(Vec::new()));
    assert_eq!(diagnosis["skipped"], Value::Array(Vec::new()));
    stand.is_told_to_be_well();
    Ok(stand.guard.down()?)
}

#[test]
fn two_nodes_over_ipv4() -> Result<()> {
    is_silent(shape("tdoch4", Scenario::Overlay, 2, Families::V4)?)
}

#[test]
fn two_nodes_over_ipv6() -> Result<()> {
    is_silent(shape("tdoch6", Scenario::Overlay, 2, Families::V6)?)
}

#[test]
fn three_nodes_over_both() -> Result<()> {
    is_silent(shape("tdochb", Scenario::Overlay, 3, Families::Both)?)
}

#[test]
fn a_kernel_s_vxlan_as_a_peer() -> Result<()> {
    is_silent(shape("tdochk", Scenario::Mixed, 2, Families::V4)?)
}

#[test]
fn a_network_that_is_left_to_the_kernel() -> Result<()> {
    let shape = shape("tdochs", Scenario::Overlay, 2, Families::V4)?;
    let guard = Guard::configured(shape, |_, config| {
        config.networks[0].fastpath = Some("off".to_owned());
    })?;
    let stand = Stand::of(guard)?;
    stand.is_told_to_be_well();
    Ok(stand.guard.down()?)
}

#[test]
fn two_networks_one_of_them_masqueraded_with_a_guard() -> Result<()> {
    let guard = Guard::configured(
        shape("tdochm", Scenario::Overlay, 2, Families::V4)?,
        |node, config| {
            config.node.guard = Some("generic");
            config.networks[0].masquerade = Some(true);
            let mut more = config.networks[0].clone();
            "more".clone_into(&mut more.name);
            (more.vni, more.peers) = (2, Vec::new());
            more.cidr = vec!["10.99.0.0/16".to_owned()];
            more.subnet = vec![format!("10.99.{}.0/24", node.number)];
            config.networks.push(more);
        },
    )?;
    let stand = Stand::of(guard)?;
    stand.is_told_to_be_well();
    Ok(stand.guard.down()?)
}
