//! Ids of messages: UUIDv7 by the server's clock, so that a wrong clock here is never `clock_skew` there.

use std::time::{SystemTime, UNIX_EPOCH};

use logstore::id::{ClientMsgId, TimeMs};
use uuid::{NoContext, Timestamp, Uuid};

/// How far this machine's clock is off the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageClock {
    offset_ms: i64,
}

impl MessageClock {
    /// The correction that makes `here` the server's time.
    pub fn new(server: TimeMs, here: SystemTime) -> MessageClock {
        MessageClock { offset_ms: server.0 as i64 - unix_ms(here) as i64 }
    }

    /// The server's time when this machine's clock says `here`.
    pub fn server_time(self, here: SystemTime) -> TimeMs {
        TimeMs(unix_ms(here).saturating_add_signed(self.offset_ms))
    }

    /// A new id for a message whose first attempt is made at `here`.
    pub fn id_at(self, here: SystemTime) -> ClientMsgId {
        let ms = self.server_time(here).0;
        let time = Timestamp::from_unix(NoContext, ms / 1000, (ms % 1000) as u32 * 1_000_000);
        ClientMsgId(Uuid::new_v7(time).as_u128())
    }

    /// A new id for a message whose first attempt is made now.
    pub fn id(self) -> ClientMsgId {
        self.id_at(SystemTime::now())
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_id_carries_the_servers_time_whatever_the_clock_here_says() {
        let here = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let clock = MessageClock::new(TimeMs(1_800_000_000_123), here);
        let id = Uuid::from_u128(clock.id_at(here + Duration::from_millis(7)).0);
        assert_eq!(id.get_version_num(), 7);
        let (seconds, nanos) = id.get_timestamp().expect("a v7 id has a time").to_unix();
        assert_eq!(seconds * 1000 + u64::from(nanos) / 1_000_000, 1_800_000_000_130);
        assert_ne!(clock.id_at(here), clock.id_at(here));
    }
}
