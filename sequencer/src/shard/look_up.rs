//! Which sends may not be decided at once, and how many old ones a sender may have looked up.
//!
//! A message id carries the time its sender first tried. Apply tells a retry from a first attempt by the ids of its dedup
//! window, which reaches back two minutes of log time at least: ids well inside it are decided for good at their first
//! apply. Others may be refused now and accepted later, and their pipeline has to wait for the decision.

use hashbrown::HashMap;
use logstore::id::{ClientMsgId, TimeMs, UserId};

use crate::state::SKEW_MS;

/// The window is never shorter than this.
const WINDOW_MS: u64 = 120_000;
/// What the log's time may move between the proposal and its apply.
const SLACK_MS: u64 = 10_000;
const _: () = assert!(SKEW_MS + SLACK_MS < WINDOW_MS, "most ids must be decidable at once");

/// Whether a send's id is so old, or so far ahead, that apply may refuse it now and accept it later.
pub(crate) fn may_be_refused_for_now(id: ClientMsgId, now: TimeMs) -> bool {
    let made = time_of(id).0;
    made < now.0.saturating_sub(WINDOW_MS - SKEW_MS - SLACK_MS) || made + SLACK_MS > now.0 + SKEW_MS
}

/// The milliseconds of a UUIDv7.
pub(crate) fn time_of(id: ClientMsgId) -> TimeMs {
    TimeMs((id.0 >> 80) as u64)
}

/// Look-ups a sender may make at once: a phone that was away sends what it has kept.
const BURST: u64 = 512;
/// Look-ups a sender earns a second after that.
const PER_SECOND: u64 = 100;
/// Senders remembered. Above it all are forgotten, which errs on the side of the sender.
const SENDERS_MAX: usize = 16_384;

/// A token bucket per sender.
#[derive(Default)]
pub(crate) struct LookUpLimit {
    senders: HashMap<UserId, Bucket>,
}

struct Bucket {
    /// In thousandths of a look-up.
    tokens: u64,
    at: TimeMs,
}

impl LookUpLimit {
    /// Whether a sender may have another id looked up now.
    pub(crate) fn allows(&mut self, sender: UserId, now: TimeMs) -> bool {
        if self.senders.len() >= SENDERS_MAX {
            self.senders.clear();
        }
        self.senders.entry(sender).or_insert(Bucket { tokens: BURST * 1000, at: now }).take(now)
    }
}

impl Bucket {
    fn take(&mut self, now: TimeMs) -> bool {
        let earned = now.0.saturating_sub(self.at.0).saturating_mul(PER_SECOND);
        self.tokens = self.tokens.saturating_add(earned).min(BURST * 1000);
        self.at = self.at.max(now);
        let enough = self.tokens >= 1000;
        if enough {
            self.tokens -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(made_ms: u64) -> ClientMsgId {
        ClientMsgId(u128::from(made_ms) << 80 | 0x7000_8000_0000_0000_0000)
    }

    #[test]
    fn ids_well_inside_the_window_are_decided_at_once() {
        let now = TimeMs(10_000_000);
        for made in [now.0, now.0 - 79_000, now.0 + 19_000] {
            assert!(!may_be_refused_for_now(id(made), now), "{made}");
        }
        for made in [0, now.0 - 81_000, now.0 + 21_000] {
            assert!(may_be_refused_for_now(id(made), now), "{made}");
        }
    }

    #[test]
    fn a_sender_earns_look_ups_with_time() {
        let mut limit = LookUpLimit::default();
        let sender = UserId(1);
        assert!((0..BURST).all(|_| limit.allows(sender, TimeMs(5_000))));
        assert!(!limit.allows(sender, TimeMs(5_000)));
        assert!(limit.allows(UserId(2), TimeMs(5_000)));
        assert!((0..PER_SECOND).all(|_| limit.allows(sender, TimeMs(6_000))));
        assert!(!limit.allows(sender, TimeMs(6_000)));
    }
}
