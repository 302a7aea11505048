//! The little-endian fields that commands are made of.
//!
//! What always holds: a reader never panics, and never takes memory for more items than the bytes left could hold.

use bytes::BytesMut;

use super::Malformed;

/// Where fields are written to.
pub(super) trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }
    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    /// A count: a list longer than that cannot be in an entry of 64 KiB.
    fn count(&mut self, len: usize) {
        self.u32(u32::try_from(len).expect("lists of commands are bounded far below 2^32"));
    }
    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.put(text.as_bytes());
    }
    fn option<T>(&mut self, value: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }
    fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            put(self, item);
        }
    }
}

impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts instead of writing.
#[derive(Default)]
pub(super) struct Length(pub usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Reads fields one after another, `bytes[at..]` being what is left.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Reads `bytes` from `at` on.
    pub fn new(bytes: &'a [u8], at: usize) -> Fields<'a> {
        Fields { bytes, at }
    }

    /// How far it has read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return self.fail(what) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("take returns the length asked for"))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array("1 byte").map(u8::from_le_bytes)
    }
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array("2 bytes").map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array("4 bytes").map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array("8 bytes").map(u64::from_le_bytes)
    }
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        self.array("16 bytes").map(u128::from_le_bytes)
    }
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.fail("0 or 1"),
        }
    }
    /// A number that something is counted up from.
    pub fn counter(&mut self) -> Result<u64, Malformed> {
        match self.u64()? {
            u64::MAX => self.fail("a number that another one can follow"),
            number => Ok(number),
        }
    }
    /// A value that is there if the byte before it says so.
    pub fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        if self.bool()? { value(self).map(Some) } else { Ok(None) }
    }
    pub fn text(&mut self) -> Result<String, Malformed> {
        let len = self.u32()? as usize;
        let bytes = self.take(len, "as many bytes as the text's length says")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => self.fail("UTF-8"),
        }
    }

    /// A counted list of items, each of at least `item_len_min` bytes: a count that the bytes left cannot hold is
    /// refused before memory is taken for it.
    pub fn list<T>(
        &mut self,
        item_len_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()? as usize;
        if count > (self.bytes.len() - self.at) / item_len_min {
            return self.fail("a count that the bytes left can hold");
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Fails here.
    pub fn fail<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { offset: self.at, what })
    }

    /// Succeeds if everything was read.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fail("the end") }
    }
}
