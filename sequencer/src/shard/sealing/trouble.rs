//! Why a shard's segments are not made, and what is done about it.
//!
//! What always holds: only a failed sync is final for the node. Everything else is tried again, ever more rarely, while the
//! shard serves what it holds; whoever waits for a segment is told at once what no further try can be expected to get
//! over.

use std::io;
use std::time::Duration;

use crate::Error;

/// Before the first of further tries; each that fails doubles it.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// A disk that is full, or slow to answer, is asked no more rarely than this.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Tries after which an error that might have passed is taken for one that stays. A full disk never is: room comes back.
const TRIES_MAX: u32 = 5;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// What was to be durable may be lost while the next sync says all is well: the node stops.
    Final,
    /// It may pass.
    Passing,
    /// It stays until somebody repairs something.
    Lasting,
}

/// What follows from an error of a seal or a merge.
pub(super) fn course(error: &Error) -> Course {
    match error {
        Error::Log(logstore::Error::Io { operation: "sync", .. }) => Course::Final,
        Error::Log(logstore::Error::Io { .. }) => Course::Passing,
        _ => Course::Lasting,
    }
}

/// Whether there was no room.
pub(super) fn is_no_room(error: &Error) -> bool {
    matches!(error, Error::Log(logstore::Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull)
}

/// Tries that have failed in a row.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// What the last one met.
    pub(super) what: String,
    /// Whether no further try can be expected to get over it.
    pub(super) is_lasting: bool,
    tries: u32,
}

impl Trouble {
    /// Another try has failed, after those before it.
    pub(super) fn after(before: Option<Trouble>, error: &Error) -> Trouble {
        let tries = before.map_or(0, |before| before.tries).saturating_add(1);
        let is_worn_out = tries >= TRIES_MAX && !is_no_room(error);
        Trouble { what: error.to_string(), is_lasting: course(error) == Course::Lasting || is_worn_out, tries }
    }

    /// How long to leave it alone, unless somebody asks.
    pub(super) fn rest(&self) -> Duration {
        let doubled = RETRY_FIRST.saturating_mul(1 << (self.tries - 1).min(16));
        if self.is_lasting { RETRY_MAX } else { doubled.min(RETRY_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logstore::id::{LogIndex, ShardId};

    fn io(operation: &'static str, kind: io::ErrorKind) -> Error {
        Error::Log(logstore::Error::Io { operation, path: "segments/x".into(), source: kind.into() })
    }

    #[test]
    fn a_failed_sync_is_final_rot_stays_and_the_rest_may_pass() {
        assert_eq!(course(&io("sync", io::ErrorKind::Other)), Course::Final);
        assert_eq!(course(&io("write", io::ErrorKind::StorageFull)), Course::Passing);
        assert_eq!(course(&io("rename", io::ErrorKind::Other)), Course::Passing);
        let missing = logstore::Error::NoSuchEntry { shard: ShardId(1), index: LogIndex(2) };
        assert_eq!(course(&Error::Log(missing)), Course::Lasting);
    }

    #[test]
    fn tries_become_rarer_and_an_error_that_does_not_pass_is_taken_for_one_that_stays() {
        let after = |error: &Error, tries| {
            (0..tries).fold(None, |before, _| Some(Trouble::after(before, error))).expect("there were tries")
        };
        let read = io("read", io::ErrorKind::Other);
        assert_eq!(after(&read, 1).rest(), RETRY_FIRST);
        assert_eq!(after(&read, 3).rest(), RETRY_FIRST * 4);
        assert!(!after(&read, TRIES_MAX - 1).is_lasting && after(&read, TRIES_MAX).is_lasting);
        let full = io("write", io::ErrorKind::StorageFull);
        assert!(!after(&full, 1000).is_lasting && after(&full, 1000).rest() == RETRY_MAX);
    }
}
