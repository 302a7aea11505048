//! Reads lines back, each named by its number.
//!
//! What always holds: a line that is too long takes no memory; one that is not in the canonical form is refused, for it would
//! not be exported as it came.

use std::io::{BufRead, Read};

use super::line::Line;

/// A body of 16 MiB of which every byte is escaped, and its head.
const LINE_BYTES_MAX: u64 = 100 << 20;

/// What is wrong with an input, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// The lines of an input.
pub struct Lines<R> {
    input: R,
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
}

impl<R: BufRead> Lines<R> {
    /// From an input's beginning, or a place in it: the next line is `number`.
    pub fn new(input: R) -> Lines<R> {
        Lines { input, number: 0, offset: 0, bytes: Vec::new(), hasher: blake3::Hasher::new() }
    }

    /// The next line; `None` at the end of the input.
    pub fn next_line(&mut self) -> Result<Option<Line>, BadLine> {
        self.hasher.update(&self.bytes);
        self.offset += self.bytes.len() as u64;
        self.bytes.clear();
        self.number += 1;
        let read = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.bytes);
        if read.map_err(|error| self.bad(format!("cannot be read: {error}")))? == 0 {
            return Ok(None);
        }
        if self.bytes.last() != Some(&b'\n') {
            let is_long = self.bytes.len() as u64 == LINE_BYTES_MAX;
            return Err(self.bad(if is_long {
                format!("longer than {LINE_BYTES_MAX} bytes")
            } else {
                "cut off".into()
            }));
        }
        let line: Line = serde_json::from_slice(&self.bytes).map_err(|error| self.bad(words(&error)))?;
        if line.to_bytes() != self.bytes {
            return Err(self.bad("not written as an export writes it".into()));
        }
        Ok(Some(line))
    }

    /// Where that line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// BLAKE3 of all lines before that one.
    pub fn hash_before(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Something is wrong with that line.
    pub fn bad(&self, what: String) -> BadLine {
        BadLine { line: self.number, what }
    }
}

/// Without a place: the line is the place.
fn words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    format!("not a line of an export: {words} (column {})", error.column())
}
