//! The table of limits as the `[limits]` section: one key a row, sizes for rows counted in bytes.

use std::collections::BTreeMap;
use std::fmt;

use fanout::{Limit, Limits};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::Size;

/// Writes every row.
pub fn serialize<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Limits::TABLE.iter().map(|row| (row.name, Row { row, value: value_of(limits, row) })))
}

/// Reads rows over the defaults; a name that is no row is an error.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let mut limits = Limits::default();
    for (name, Size(value)) in BTreeMap::<String, Size>::deserialize(deserializer)? {
        if !limits.set(&name, value) {
            return Err(D::Error::custom(format_args!("no limit is named {name:?}")));
        }
    }
    Ok(limits)
}

/// A row's value as text: "64KiB" or "256".
pub fn text_of(limits: &Limits, row: &Limit) -> String {
    Row { row, value: value_of(limits, row) }.to_string()
}

fn value_of(limits: &Limits, row: &Limit) -> u64 {
    limits.get(row.name).expect("TABLE and get() are made from the same rows")
}

struct Row<'a> {
    row: &'a Limit,
    value: u64,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.row.unit == "bytes" { Size(self.value).fmt(f) } else { self.value.fmt(f) }
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.row.unit == "bytes" { Size(self.value).serialize(serializer) } else { self.value.serialize(serializer) }
    }
}
