//! What others put in the place of ours.

use anyhow::Result;

use crate::stand::Stand;

#[test]
fn a_route_of_somebody_else_in_place_of_ours_is_reported_and_left() -> Result<()> {
    let stand = Stand::raise("trus")?;
    let agent = &stand.agent;
    stand.on_node("ip route replace 10.244.2.0/24 via 192.168.56.12")?;
    agent.tells("10.244.2.0/24")?;
    let route = stand.on_node("ip route show 10.244.2.0/24")?;
    assert!(route.contains("via 192.168.56.12 dev eth1"), "{route}");

    stand.on_node("ip route del 10.244.2.0/24")?;
    stand.is_whole("that route was deleted")?;
    Ok(stand.guard.down()?)
}

#[test]
fn a_device_of_somebody_else_in_place_of_ours_is_reported_and_left() -> Result<()> {
    let stand = Stand::raise("trdev")?;
    let agent = &stand.agent;
    // In one batch, faster than anybody looks; else once more.
    let usurp = "printf 'link del ovlpad1\nlink add ovlpad1 type bridge\n' | ip -batch -";
    stand.on_node(&format!("{usurp} || {usurp}"))?;
    agent.tells("ovlpad1")?;
    let device = stand.on_node("ip -d -j link show ovlpad1")?;
    let links: serde_json::Value = serde_json::from_str(&device)?;
    assert_eq!(links[0]["linkinfo"]["info_kind"], "bridge", "{device}");

    stand.on_node("ip link del ovlpad1")?;
    stand.is_whole("that device was deleted")?;
    Ok(stand.guard.down()?)
}
