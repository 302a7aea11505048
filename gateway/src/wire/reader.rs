//! Reads protobuf fields out of a slice: only what the two bodies of the hot path need.
//!
//! What always holds: nothing is read beyond the slice, nothing panics, nothing is allocated.

/// A field's key and where its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Wire type 0.
    Varint { number: u32, value: u64 },
    /// Wire type 2: the value is `start..end` of the slice.
    Bytes { number: u32, start: usize, end: usize },
    /// Wire types 1 and 5, which neither body uses: skipped.
    Fixed,
}

/// The bytes are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Walks the fields between two positions of a slice.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], start: usize, end: usize) -> Reader<'a> {
        debug_assert!(start <= end && end <= bytes.len());
        Reader { bytes, at: start, end }
    }

    /// The next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field>, Malformed> {
        if self.at == self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let field = match key & 7 {
            0 => Field::Varint { number, value: self.varint()? },
            1 => self.skip(8)?,
            2 => {
                let length = self.varint()?;
                let start = self.at;
                let end = self.advance(length)?;
                Field::Bytes { number, start, end }
            }
            5 => self.skip(4)?,
            // Groups ended with proto2.
            _ => return Err(Malformed),
        };
        Ok(Some(field))
    }

    fn skip(&mut self, length: u64) -> Result<Field, Malformed> {
        self.advance(length)?;
        Ok(Field::Fixed)
    }

    fn advance(&mut self, length: u64) -> Result<usize, Malformed> {
        if length > (self.end - self.at) as u64 {
            return Err(Malformed);
        }
        self.at += length as usize;
        Ok(self.at)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.at..self.end].iter().take(10).enumerate() {
            // The tenth byte has room for one bit only.
            if i == 9 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}
