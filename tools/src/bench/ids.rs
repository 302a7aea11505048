//! Ids of messages at generator speed: UUIDv7 by the server's clock, no system call an id.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use rand::rngs::SmallRng;

use super::wire::Id;

/// Makes ids.
pub struct MessageIds {
    chance: SmallRng,
    ahead_ms: i64,
    now_ms: u64,
}

impl MessageIds {
    /// Seeded by the system.
    pub fn new() -> MessageIds {
        MessageIds { chance: rand::make_rng(), ahead_ms: 0, now_ms: unix_ms() }
    }

    /// Corrects for the difference between the server's clock (from `hello`) and this machine's.
    pub fn set_server_time(&mut self, server_time_ms: u64) {
        self.ahead_ms = server_time_ms as i64 - unix_ms() as i64;
    }

    /// Looks at the clock: once a frame is enough.
    pub fn look_at_clock(&mut self) {
        self.now_ms = unix_ms().saturating_add_signed(self.ahead_ms);
    }

    /// A new id.
    pub fn id(&mut self) -> Id {
        let (high, low) = (self.chance.next_u32() as u16, self.chance.next_u64());
        uuid_v7(self.now_ms, high, low)
    }
}

/// A UUIDv7 of a time and 12 + 62 bits of the caller's.
pub fn uuid_v7(unix_ms: u64, high: u16, low: u64) -> Id {
    let first = unix_ms << 16 | 0x7000 | u64::from(high & 0x0fff);
    let second = 0b10 << 62 | low >> 2;
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7_with_the_servers_time() {
        let mut ids = MessageIds::new();
        ids.set_server_time(unix_ms() + 3_600_000);
        ids.look_at_clock();
        let id = uuid::Uuid::from_bytes(ids.id());
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        let (seconds, _) = id.get_timestamp().unwrap().to_unix();
        assert!(seconds.abs_diff(unix_ms() / 1000 + 3600) <= 1);
        assert_ne!(ids.id(), ids.id());
    }
}
