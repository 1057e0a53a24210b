//! Rows of maps, deleted, altered and added, as anybody with bpftool can.

use anyhow::{Context as _, Result};
use overlay_common::maps::{
    CIDRS, ENDPOINTS4, ENDPOINTS6, NETWORKS, PEERS4, PEERS6, PORTS, SOURCES, VTEPS4, VTEPS6,
};
use overlay_tests::{counters, run};
use serde_json::Value;

use crate::{damage::Damage, stand::Stand};

/// Every map that is not of counters.
const MAPS: [&str; 10] = [
    NETWORKS, PEERS4, PEERS6, VTEPS4, VTEPS6, ENDPOINTS4, ENDPOINTS6, PORTS, SOURCES, CIDRS,
];

/// A row in bytes, as bpftool prints and takes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: Vec<String>,
    value: Vec<String>,
}

fn bytes(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts
        .map(|byte| Some(byte.as_str()?.trim_start_matches("0x").to_owned()))
        .collect()
}

fn bpftool(stand: &Stand, command: &str, map: &str, row: &[String]) -> Result<String> {
    let pin = counters::pin(&stand.agent.instance, map)?;
    let mut argv: Vec<String> = ["bpftool", "--json", "map", command, "pinned"]
        .map(str::to_owned)
        .into();
    argv.push(pin.to_string_lossy().into_owned());
    argv.extend_from_slice(row);
    Ok(run::checked(&argv)?)
}

fn rows(stand: &Stand, map: &str) -> Result<Vec<Row>> {
    let dump: Value = serde_json::from_str(&bpftool(stand, "dump", map, &[])?)?;
    let entries = dump.as_array().context("no list")?;
    let mut rows: Vec<Row> = entries
        .iter()
        .map(|entry| {
            let (key, value) = bytes(&entry["key"])
                .zip(bytes(&entry["value"]))
                .context("no row")?;
            Ok(Row { key, value })
        })
        .collect::<Result<_>>()?;
    rows.sort();
    Ok(rows)
}

fn words(what: &str, bytes: &[String]) -> Vec<String> {
    let mut words = vec![what.to_owned(), "hex".to_owned()];
    words.extend_from_slice(bytes);
    words
}

fn set(stand: &Stand, map: &str, row: &Row) -> Result<()> {
    let row = [words("key", &row.key), words("value", &row.value)].concat();
    bpftool(stand, "update", map, &row).map(drop)
}

/// Another byte in the place of one.
fn other(byte: &mut String) {
    let flipped = u8::from_str_radix(byte, 16).unwrap_or_default() ^ 1;
    *byte = format!("{flipped:02x}");
}

fn damage(
    what: &str,
    map: &'static str,
    make: impl Fn(&Stand, Row) -> Result<()> + 'static,
) -> Damage {
    Damage {
        what: format!("{what} of {map}"),
        make: Box::new(move |stand| {
            let row = rows(stand, map)?
                .into_iter()
                .next()
                .context("the map is empty")?;
            make(stand, row)
        }),
        look: Box::new(move |stand| Ok(format!("{:#?}", rows(stand, map)?))),
        // All share the maps of networks, peers and VTEPs.
        in_path: [NETWORKS, PEERS4, VTEPS4, PORTS, ENDPOINTS4].contains(&map),
    }
}

pub(crate) fn damages() -> Vec<Damage> {
    let of = |map| {
        [
            damage("a deleted row", map, move |stand, row| {
                bpftool(stand, "delete", map, &words("key", &row.key)).map(drop)
            }),
            damage(
                "a row with another first byte of value",
                map,
                move |stand, mut row| {
                    row.value.iter_mut().take(1).for_each(other);
                    set(stand, map, &row)
                },
            ),
            damage(
                "a row with another last byte of value",
                map,
                move |stand, mut row| {
                    row.value.iter_mut().rev().take(1).for_each(other);
                    set(stand, map, &row)
                },
            ),
            damage("a row with a foreign key", map, move |stand, mut row| {
                // The last byte of an address, of a VNI or of an index.
                row.key.iter_mut().rev().take(1).for_each(other);
                set(stand, map, &row)
            }),
        ]
    };
    MAPS.into_iter().flat_map(of).collect()
}
