//! Attached programs and pins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result};
use overlay_tests::{
    check::{self, Answer},
    counters, poll, run,
};

use crate::{damage::Damage, stand::Stand};

/// What runs, and what is pinned. A link is another one when it was made anew.
fn attached(stand: &Stand) -> Result<String> {
    let filters = |side: &str| {
        let devices = ["eth1", "ovl1", "ovl6-2", &stand.veth(1)].map(|device| {
            let filters = stand.on_node(&format!("tc filter show dev {device} {side}"))?;
            // One with a program; each filter has a line before it without.
            let shown = filters.lines().filter(|line| line.contains("overlay/"));
            let names = shown.filter_map(|line| {
                line.split_whitespace()
                    .find(|word| word.contains("overlay/"))
            });
            let names: Vec<&str> = names.collect();
            Ok(format!("{device} {side} {}\n", names.join(" ")))
        });
        devices.into_iter().collect::<Result<String>>()
    };
    let net = stand.on_node("bpftool net show")?;
    let mut lines: Vec<&str> = net.lines().filter(|line| line.contains('(')).collect();
    let shown: Vec<String> = lines
        .drain(..)
        .map(|line| {
            let name = |word: &&str| word.starts_with("from_") || word.starts_with("underlay_");
            let device = line.split('(').next().unwrap_or_default();
            let program = line.split_whitespace().find(name).unwrap_or_default();
            format!("{device} {program}\n")
        })
        .collect();
    let pins = pinned(&stand.pins())?;
    Ok(format!(
        "{}{}{}{pins:#?}",
        shown.concat(),
        filters("ingress")?,
        filters("egress")?
    ))
}

fn pinned(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pinned(&path)?);
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

fn by(what: String, make: impl Fn(&Stand) -> Result<()> + 'static) -> Damage {
    Damage {
        what,
        make: Box::new(make),
        look: Box::new(attached),
        in_path: false,
    }
}

fn remove(path: PathBuf) -> Damage {
    by(format!("rm -r {}", path.display()), move |_| {
        // A program that was put back is there before its new pin has taken the place of the old one.
        let removed = poll::until_well(|| {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.err()
        });
        removed.map_err(Error::msg)
    })
}

/// Every pin alone, the folders, and every program taken off its device.
pub(crate) fn damages(stand: &Stand) -> Result<Vec<Damage>> {
    let folder = stand.pins();
    let pins = counters::pins(&folder)?;
    let mut damages = Vec::new();
    for pin in &pins {
        let is_link = pin.parent().is_some_and(|folder| folder.ends_with("links"));
        if is_link {
            let pin = pin.clone();
            damages.push(by(
                format!("bpftool link detach {}", pin.display()),
                move |_| {
                    let line = format!("bpftool link detach pinned {}", pin.display());
                    Ok(run::checked(line).map(drop)?)
                },
            ));
        }
        damages.push(remove(pin.clone()));
    }
    damages.extend(
        fs::read_dir(&folder)?
            .map(|entry| Ok(remove(entry?.path())))
            .collect::<Result<Vec<_>>>()?,
    );
    if stand.attach()? == "clsact" {
        for (device, side) in [
            ("eth1", "ingress"),
            ("ovl1", "egress"),
            ("ovl6-2", "egress"),
        ] {
            let command = format!("tc filter del dev {device} {side}");
            damages.push(by(command.clone(), move |stand| {
                stand.on_node(&command).map(drop)
            }));
        }
        let command = "tc qdisc del dev eth1 clsact".to_owned();
        damages.push(Damage {
            // The kernel deactivates the device for it (`qdisc_graft()`): what it sends meanwhile
            // is lost, whoever has a program there or none.
            in_path: true,
            ..by(command.clone(), move |stand| {
                stand.on_node(&command).map(drop)
            })
        });
    }
    damages.push(remove(folder));
    Ok(damages)
}

#[test]
fn a_repaired_program_carries_packets() -> Result<()> {
    let stand = Stand::raise("trcar")?;
    for damage in damages(&stand)? {
        stand.suffer(&damage)?;
    }
    stand.is_whole("all of it")?;
    let (from, to) = (stand.container(1, 1), stand.container(2, 1));
    let before = counters::carried(&stand.agent.instance)?;
    assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
    let carried = counters::carried(&stand.agent.instance)? - before;
    assert_eq!((carried.sent, carried.received), (1, 1));
    stand.agent.tell(&["down"])?;
    let left = stand.on_node("tc qdisc show; bpftool net show")?;
    assert!(
        !left.contains("clsact") && !left.contains("from_"),
        "{left}"
    );
    assert!(!stand.pins().exists());
    Ok(stand.guard.down()?)
}
