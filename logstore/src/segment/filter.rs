//! Small filters that say "not here": one for each block, over its message ids or its keys.
//!
//! A split block Bloom filter as the Apache Parquet format defines it (`BloomFilter.md`; after Putze, Sanders and Singler,
//! "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): lines of eight 32-bit words; a hash picks a line by its upper half
//! and one bit of each word by its lower half times the word's salt. With 12 bits an entry about one absent entry in 150 is
//! taken for present.
//!
//! What always holds: an entry that was added is never denied. An empty filter denies everything.

use xxhash_rust::xxh3::xxh3_64;

use super::paged::Paged;
use crate::Result;
use crate::id::{ClientMsgId, ConversationId, UserId};

pub(super) const LINE_BYTES: usize = 32;
const WORDS: usize = 8;
const BITS_PER_ENTRY: usize = 12;
/// Odd constants from the format's specification.
const SALTS: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// What a message id is filtered by.
pub(super) fn id_hash(conversation: ConversationId, sender: UserId, id: ClientMsgId) -> u64 {
    let mut bytes = [0; 40];
    bytes[..16].copy_from_slice(&conversation.to_bytes());
    bytes[16..24].copy_from_slice(&sender.0.to_le_bytes());
    bytes[24..].copy_from_slice(&id.0.to_le_bytes());
    xxh3_64(&bytes)
}

/// What a key of the state delta is filtered by.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// A filter over these hashes.
pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
    let mut lines = vec![[0_u32; WORDS]; (hashes.len() * BITS_PER_ENTRY).div_ceil(LINE_BYTES * 8)];
    for hash in hashes {
        let line = line_of(*hash, lines.len());
        for (word, mask) in lines[line].iter_mut().zip(masks(*hash)) {
            *word |= mask;
        }
    }
    lines.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
}

/// Whether a hash may have been added to the filter that goes from a line of a section to before another, or to the section's end. Lines
/// that the section does not have deny nothing.
pub(super) fn may_hold(section: &Paged, from: u32, to: Option<u32>, hash: u64) -> Result<bool> {
    let to = to.map_or(section.len() / LINE_BYTES as u64, u64::from);
    let Some(lines) = to.checked_sub(u64::from(from)) else { return Ok(true) };
    if lines == 0 {
        return Ok(false);
    }
    let line = u64::from(from) + line_of(hash, lines as usize) as u64;
    let admits = section.look(line * LINE_BYTES as u64, LINE_BYTES, |line| admits(line, hash))?;
    Ok(admits.unwrap_or(true))
}

fn admits(line: &[u8], hash: u64) -> bool {
    let words = line.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    words.zip(masks(hash)).all(|(word, mask)| word & mask != 0)
}

fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

fn masks(hash: u64) -> impl Iterator<Item = u32> {
    SALTS.into_iter().map(move |salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let hashes: Vec<u64> = (0..600_u64).map(|n| xxh3_64(&n.to_le_bytes())).collect();
        let filter = build(&hashes);
        let may_hold = |hash: u64| {
            let line = line_of(hash, filter.len() / LINE_BYTES);
            admits(&filter[line * LINE_BYTES..][..LINE_BYTES], hash)
        };
        assert!(hashes.iter().all(|hash| may_hold(*hash)));
        let wrong = (600..60_600_u64).filter(|n| may_hold(xxh3_64(&n.to_le_bytes()))).count();
        assert!(wrong < 60_000 / 100, "{wrong} of 60,000 absent ones");
        assert!(filter.len() <= 600 * 12 / 8 + LINE_BYTES);
    }

    #[test]
    fn a_filter_of_nothing_has_no_line() {
        assert!(build(&[]).is_empty());
    }
}
