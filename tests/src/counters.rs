//! The data plane's counters, read as anybody would: with bpftool, by field name.

use std::{
    fs,
    ops::Sub,
    path::{Path, PathBuf},
};

use overlay_common::maps;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    run,
};

/// Packets that one instance has carried, over all peers and CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets encapsulated and sent.
    pub sent: u64,
    /// Packets decapsulated and delivered.
    pub received: u64,
    /// Packets delivered between containers of this node.
    pub local: u64,
}

impl Sub for Carried {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            local: self.local - earlier.local,
        }
    }
}

/// Reads an instance's `PEER_STATS`: the slots of its peers and that of local deliveries.
///
/// Slot by slot, because the map has room for every possible peer, and a dump shows it all.
pub fn carried(instance: &str) -> Result<Carried> {
    let mut vteps = dump(instance, maps::VTEPS4)?;
    vteps.extend(dump(instance, maps::VTEPS6)?);
    let slots = vteps.iter().map(|entry| number(&entry["value"]["index"]));
    let mut slots = slots.collect::<Result<Vec<_>>>()?;
    slots.push(u64::from(maps::LOCAL_INDEX));
    slots.sort_unstable();
    slots.dedup();

    let mut carried = Carried::default();
    for slot in slots {
        let entry = lookup(instance, maps::PEER_STATS, slot)?;
        for cpu in list(&entry["values"])? {
            let packets = |direction: &str| number(&cpu["value"][direction]["packets"]);
            if slot == u64::from(maps::LOCAL_INDEX) {
                carried.local += packets("tx")?;
            } else {
                carried.sent += packets("tx")?;
                carried.received += packets("rx")?;
            }
        }
    }
    Ok(carried)
}

/// The same as its endpoints have counted it: those that are no more, and the node itself, too.
pub fn carried_by_endpoints(instance: &str) -> Result<Carried> {
    let mut carried = Carried::default();
    for entry in dump(instance, maps::ENDPOINT_STATS)? {
        for cpu in list(&entry["values"])? {
            let packets = |counter: &str| number(&cpu["value"][counter]["packets"]);
            carried.sent += packets("tx")?;
            carried.received += packets("rx")?;
            carried.local += packets("tx_local")?;
        }
    }
    Ok(carried)
}

/// Packets by reason, from `DROPS` or `PASSES`, without the reasons that never occurred.
pub fn reasons(instance: &str, map: &str) -> Result<Vec<(String, u64)>> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for entry in dump(instance, map)? {
        for cpu in list(&entry["values"])? {
            let fields = cpu["value"]
                .as_object()
                .ok_or_else(|| unexpected(&cpu["value"]))?;
            for (reason, count) in fields {
                let packets = number(&count["packets"])?;
                match counts.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, sum)) => *sum += packets,
                    None => counts.push((reason.clone(), packets)),
                }
            }
        }
    }
    counts.retain(|&(_, packets)| packets > 0);
    Ok(counts)
}

/// Packets that were left to the kernel for this reason.
pub fn passed(instance: &str, reason: &str) -> Result<u64> {
    let reasons = reasons(instance, maps::PASSES)?;
    let of = reasons.iter().filter(|(name, _)| name == reason);
    Ok(of.map(|(_, packets)| packets).sum())
}

/// A map's entries as bpftool formats them with the map's BTF.
pub fn dump(instance: &str, map: &str) -> Result<Vec<Value>> {
    let entries = bpftool(&[
        "map",
        "dump",
        "pinned",
        &pin(instance, map)?.to_string_lossy(),
    ])?;
    list(&entries)?.iter().map(formatted).collect()
}

/// One entry of a map whose keys are 32-bit numbers.
pub fn lookup(instance: &str, map: &str, key: u64) -> Result<Value> {
    let bytes = key.to_ne_bytes().map(|byte| format!("{byte:#04x}"));
    let path = pin(instance, map)?;
    let path = path.to_string_lossy();
    let arguments = ["map", "lookup", "pinned", &path, "key"];
    let key = if cfg!(target_endian = "little") {
        &bytes[..4]
    } else {
        &bytes[4..]
    };
    let arguments: Vec<&str> = arguments
        .into_iter()
        .chain(key.iter().map(String::as_str))
        .collect();
    formatted(&bpftool(&arguments)?)
}

/// The JSON output of `bpftool`.
pub(crate) fn bpftool(arguments: &[&str]) -> Result<Value> {
    let argv: Vec<String> = ["bpftool", "--json"]
        .iter()
        .chain(arguments)
        .map(|&word| word.to_owned())
        .collect();
    let text = run::checked(&argv)?;
    serde_json::from_str(&text).map_err(|_| unexpected(&Value::String(text)))
}

fn formatted(entry: &Value) -> Result<Value> {
    entry
        .get("formatted")
        .cloned()
        .ok_or_else(|| unexpected(entry))
}

/// Where an instance pins a map or a program.
pub fn pin(instance: &str, name: &str) -> Result<PathBuf> {
    let root = Path::new("/sys/fs/bpf/overlay").join(instance);
    pins(&root)?
        .into_iter()
        .find(|path| path.ends_with(name))
        .ok_or_else(|| {
            Error::output(
                format!("find {} -name {name}", root.display()),
                "nothing is pinned by that name",
            )
        })
}

/// Everything pinned below a folder.
pub fn pins(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let path = entry.map_err(Error::file("read", folder))?.path();
        if path.is_dir() {
            found.extend(pins(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().ok_or_else(|| unexpected(value))
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().ok_or_else(|| unexpected(value))
}

fn unexpected(value: &Value) -> Error {
    Error::output(
        "bpftool --json map dump",
        format!("not what a map with BTF looks like: {value}"),
    )
}
