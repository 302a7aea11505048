//! What a message's id says, so that texts stay what they are: when it was due, and its number.
//!
//! ```text
//! UUIDv7:  48 bits Unix ms | 0111 | 12 bits number (high) | 10 | 12 bits number (low) | 50 bits due, ns / 256
//! ```
//!
//! The time wraps after nine years of uptime, the number after 16 million messages of a conversation.

use crate::bench::ids::uuid_v7;
use crate::bench::wire::Id;

const DUE_BITS: u32 = 50;
const DUE_SHIFT: u32 = 8;
const NUMBER_HALF_BITS: u32 = 12;
/// Numbers are told modulo this.
pub const NUMBERS: u32 = 1 << (2 * NUMBER_HALF_BITS);

/// When a message was due, and which of its conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// On the machine's monotonic clock; to 256 ns.
    pub due_ns: u64,
    /// From 1, modulo [`NUMBERS`].
    pub number: u32,
}

impl Stamp {
    /// The id that says it.
    pub fn to_id(self, unix_ms: u64) -> Id {
        let (high, low) = (self.number >> NUMBER_HALF_BITS, u64::from(self.number) & 0xfff);
        let due = self.due_ns >> DUE_SHIFT & ((1 << DUE_BITS) - 1);
        uuid_v7(unix_ms, high as u16, (low << DUE_BITS | due) << 2)
    }

    /// What an id says.
    pub fn of_id(id: &Id) -> Stamp {
        let bits = u128::from_be_bytes(*id);
        let (high, low) = ((bits >> 64) as u32 & 0xfff, (bits >> DUE_BITS) as u32 & 0xfff);
        let due = bits as u64 & ((1 << DUE_BITS) - 1);
        Stamp { due_ns: due << DUE_SHIFT, number: high << NUMBER_HALF_BITS | low }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_says_what_was_put_in(due_ns in 0u64..1 << 58, number in 0u32..NUMBERS, ms in 0u64..1 << 48) {
            let id = Stamp { due_ns, number }.to_id(ms);
            prop_assert_eq!(Stamp::of_id(&id), Stamp { due_ns: due_ns >> 8 << 8, number });
            let uuid = uuid::Uuid::from_bytes(id);
            prop_assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
            prop_assert_eq!((u128::from_be_bytes(id) >> 80) as u64, ms);
        }
    }
}
