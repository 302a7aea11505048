//! Values as they are in a store: each with a checksum of its own.
//!
//! What always holds: a value under a key that is not its own does not verify.
//!
//! ```text
//!  0      4
//!  +------+---------
//!  | crc  | value        CRC-32/ISO-HDLC of the key's length (u32), key and value
//!  | u32  |
//!  +------+---------
//! ```

/// The bytes that are written, in `out`.
pub(super) fn encode<'a>(out: &'a mut Vec<u8>, key: &[u8], value: &[u8]) -> &'a [u8] {
    out.clear();
    out.extend_from_slice(&crc(key, value).to_le_bytes());
    out.extend_from_slice(value);
    out
}

/// The value in what was read; `None` if it does not verify.
pub(super) fn decode<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (stated, value) = bytes.split_first_chunk()?;
    (u32::from_le_bytes(*stated) == crc(key, value)).then_some(value)
}

fn crc(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_under_its_own_key_only_and_no_flip_passes() {
        let mut out = Vec::new();
        let bytes = encode(&mut out, b"key", b"value").to_vec();
        assert_eq!(decode(b"key", &bytes), Some(&b"value"[..]));
        assert_eq!(decode(b"other", &bytes), None);
        assert_eq!(decode(b"key", &bytes[..3]), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(b"key", &flipped), None, "bit {bit}");
        }
    }
}
