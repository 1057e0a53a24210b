//! Each damage alone: undone soon, with nothing left to do, and no packet of others lost.

use anyhow::Result;

use crate::{
    bystander::Bystander,
    damage::{self, Damage},
    maps, programs,
    stand::Stand,
};

fn each(name: &str, damages: impl Fn(&Stand) -> Result<Vec<Damage>>) -> Result<()> {
    let stand = Stand::raise(name)?;
    stand.is_whole("the start")?;
    let mut slowest = std::time::Duration::ZERO;
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
