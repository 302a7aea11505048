//! Numbers of variable length, and a cursor over bytes that may be anything.
//!
//! LEB128: seven bits a byte, the lowest first, the top bit set on all but the last. What always holds: reading never
//! goes beyond the bytes given, and never fails otherwise than by `None`.

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `to - from`, whichever is larger, so that small distances are short. Any two numbers will do.
pub(super) fn put_distance(out: &mut Vec<u8>, from: u64, to: u64) {
    let distance = to.wrapping_sub(from) as i64;
    put(out, (distance << 1 ^ distance >> 63) as u64);
}

/// Reads from the front of a slice.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at byte `at`; beyond the end nothing can be read.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    /// The next byte's place.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte holds the last bit alone.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A length or count that is about to be used as an index.
    pub(super) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// The inverse of [`put_distance`].
    pub(super) fn distance(&mut self, from: u64) -> Option<u64> {
        let value = self.varint()?;
        Some(from.wrapping_add((value >> 1) ^ (value & 1).wrapping_neg()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_distances_come_back(values: Vec<u64>, pairs: Vec<(u64, u64)>) {
            let mut out = Vec::new();
            values.iter().for_each(|value| put(&mut out, *value));
            pairs.iter().for_each(|(from, to)| put_distance(&mut out, *from, *to));
            let mut cursor = Cursor::new(&out, 0);
            for value in values {
                prop_assert_eq!(cursor.varint(), Some(value));
            }
            for (from, to) in pairs {
                prop_assert_eq!(cursor.distance(from), Some(to));
            }
            prop_assert!(cursor.is_at_end());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes, 0);
            while cursor.varint().is_some() {}
            prop_assert!(cursor.at() <= bytes.len());
        }
    }

    #[test]
    fn small_distances_take_one_byte_either_way() {
        let mut out = Vec::new();
        put_distance(&mut out, 100, 163);
        put_distance(&mut out, 100, 36);
        assert_eq!(out.len(), 2);
        assert_eq!(Cursor::new(&[0xFF; 10], 0).varint(), None, "beyond 64 bits");
    }
}
