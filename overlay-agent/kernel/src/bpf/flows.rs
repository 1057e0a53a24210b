//! The programs' table of flows that the kernel translates.

use std::path::Path;

use aya::maps::{Array, MapData};
use overlay_common::maps::{FLOWS, FLOWS_IN_USE, FlowKey};

use super::{
    failure::failed,
    made::Notes,
    pins::Pins,
    table::{self, Table},
};
use crate::{Result, hooks::abi};

/// The rows of the flows, of which those that nobody needs go first.
pub struct Flows {
    rows: Table<FlowKey, u32>,
    in_use: Array<MapData, u32>,
}

/// The state of a row that should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was there, and is the youngest now.
    Renewed,
    /// It was not there, and is now.
    Added,
    /// The programs know better: packets have come that are not translated.
    Left,
}

impl Flows {
    /// The pinned maps of an instance; `None` when they are not there, or somebody else's are.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        let pins = Pins::new(dir);
        if ![FLOWS, FLOWS_IN_USE]
            .iter()
            .all(|name| Notes(&pins).is_ours(abi(), name))
        {
            return Ok(None);
        }
        Ok(Some(Self {
            rows: Table::open(&pins, FLOWS)?,
            in_use: table::open(&pins, FLOWS_IN_USE)?,
        }))
    }

    /// Whether the programs look at them.
    pub fn is_in_use(&self) -> Result<bool> {
        let found = self.in_use.get(&0, 0);
        let found = found.map_err(|error| failed(format!("read map {FLOWS_IN_USE}"), &error))?;
        Ok(found != 0)
    }

    /// Has the programs look at them from now on.
    pub fn use_them(&mut self) -> Result<()> {
        let set = self.in_use.set(0, 1, 0);
        set.map_err(|error| failed(format!("write map {FLOWS_IN_USE}"), &error))
    }

    /// Makes a row the youngest, that of a flow whose packets leave the kernel translated in this
    /// direction.
    pub fn keep(&mut self, key: &FlowKey, direction: u32) -> Result<Kept> {
        let kept = match self.rows.get(key, "a flow")? {
            None => Kept::Added,
            Some(known) if known == direction => Kept::Renewed,
            Some(_) => return Ok(Kept::Left),
        };
        // The kernel puts a new row in the place of the old one.
        self.rows.set(*key, &direction, "a flow")?;
        Ok(kept)
    }
}
