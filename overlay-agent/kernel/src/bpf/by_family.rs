//! Two hash maps that are one: for IPv4 and for IPv6.

use std::fmt;

use aya::Pod;
use bytemuck::{AnyBitPattern, NoUninit};

use super::{pins::Pins, table::Table};
use crate::Result;

/// One of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByFamily<A, B> {
    /// For IPv4.
    V4(A),
    /// For IPv6.
    V6(B),
}

/// A map for keys with IPv4 addresses and one for keys with IPv6 addresses.
pub(super) struct Tables<K4, K6, V> {
    v4: Table<K4, V>,
    v6: Table<K6, V>,
}

impl<K4: Pod + AnyBitPattern, K6: Pod + AnyBitPattern, V: Pod + NoUninit + AnyBitPattern>
    Tables<K4, K6, V>
{
    pub(super) fn open(pins: &Pins, v4: &'static str, v6: &'static str) -> Result<Self> {
        Ok(Self {
            v4: Table::open(pins, v4)?,
            v6: Table::open(pins, v6)?,
        })
    }

    pub(super) fn rows(&self) -> Result<impl Iterator<Item = (ByFamily<K4, K6>, V)>> {
        let v4 = self
            .v4
            .rows()?
            .map(|(key, value)| (ByFamily::V4(key), value));
        let v6 = self
            .v6
            .rows()?
            .map(|(key, value)| (ByFamily::V6(key), value));
        Ok(v4.chain(v6))
    }

    pub(super) fn get(
        &self,
        key: &ByFamily<K4, K6>,
        shown: impl fmt::Display,
    ) -> Result<Option<V>> {
        match key {
            ByFamily::V4(key) => self.v4.get(key, shown),
            ByFamily::V6(key) => self.v6.get(key, shown),
        }
    }

    pub(super) fn set(
        &mut self,
        key: ByFamily<K4, K6>,
        value: &V,
        shown: impl fmt::Display,
    ) -> Result<()> {
        match key {
            ByFamily::V4(key) => self.v4.set(key, value, shown),
            ByFamily::V6(key) => self.v6.set(key, value, shown),
        }
    }

    pub(super) fn delete(&mut self, key: ByFamily<K4, K6>, shown: impl fmt::Display) -> Result<()> {
        match key {
            ByFamily::V4(key) => self.v4.delete(key, shown),
            ByFamily::V6(key) => self.v6.delete(key, shown),
        }
    }

    /// As [`Table::delete_row`], in the one of this name.
    pub(super) fn delete_row(&mut self, name: &str, key: &[u8], value: &[u8]) -> Result<()> {
        if name == self.v4.name() {
            self.v4.delete_row(key, value)
        } else {
            self.v6.delete_row(key, value)
        }
    }
}
