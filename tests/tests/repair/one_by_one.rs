//! Each damage alone: undone soon, with nothing left to do, and no packet of others lost.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    bystander::Bystander,
    damage::{self, Damage},
    maps, programs,
    stand::Stand,
};

/// Who does nothing for so long is done.
const CALM: Duration = Duration::from_secs(1);

fn each(name: &str, damages: impl Fn(&Stand) -> Result<Vec<Damage>>) -> Result<()> {
    let stand = Stand::raise(name)?;
    stand.is_whole("the start")?;
    let mut slowest = Duration::ZERO;
    for damage in damages(&stand)? {
        let bystander = Bystander::watch(&stand)?;
        let repair = stand.suffer(&damage)?;
        stand.is_whole(&damage.what)?;
        let (lost, sent) = bystander.lost()?;
        println!(
            "{:>5} ms, {lost} of {sent} lost: {}",
            repair.took.as_millis(),
            repair.what
        );
        assert!(sent > 0, "nobody stood by");
        if !damage.in_path {
            assert_eq!(lost, 0, "of {sent} packets of others, at {}", damage.what);
        }
        slowest = slowest.max(repair.took);
    }
    println!("the slowest repair took {} ms", slowest.as_millis());
    Ok(stand.guard.down()?)
}

#[test]
fn devices() -> Result<()> {
    each("trlink", |stand| Ok(damage::links(stand)))
}

#[test]
fn addresses_routes_neighbours_and_forwarding_entries() -> Result<()> {
    each("trent", |stand| Ok(damage::entries(stand)))
}

#[test]
fn settings_and_packet_filter() -> Result<()> {
    each("trrule", |stand| Ok(damage::rules(stand)))
}

#[test]
fn the_inside_of_a_container() -> Result<()> {
    each("trin", |stand| Ok(damage::inside(stand)))
}

#[test]
fn rows_of_maps() -> Result<()> {
    each("trmap", |_| Ok(maps::damages()))
}

#[test]
fn programs_and_pins() -> Result<()> {
    each("trpin", programs::damages)
}

/// Every change is told by the kernel in its own way, the agent's as well; nothing may follow from
/// those.
#[test]
fn what_is_repaired_is_repaired_once() -> Result<()> {
    let stand = Stand::raise("tronce")?;
    let rounds = || Ok::<_, anyhow::Error>(stand.agent.log()?.matches(" applied ").count());
    for command in [
        "bridge fdb replace 02:4f:c0:a8:38:0c dev ovl1 dst 192.168.56.99",
        "bridge fdb del 02:4f:c0:a8:38:0c dev ovl1",
        "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev ovl1",
        "ip route del 10.244.2.0/24",
        "ip addr del 10.244.1.1/24 dev ovlbr1",
    ] {
        let before = rounds()?;
        stand.on_node(command)?;
        stand.is_whole(command)?;
        thread::sleep(CALM);
        let then = rounds()?;
        assert!(then > before, "nothing was done after {command}");
        thread::sleep(CALM);
        assert_eq!(rounds()?, then, "after {command}\n{}", stand.agent.log()?);
    }
    Ok(stand.guard.down()?)
}
