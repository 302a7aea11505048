//! The bug that is planted by the name `stale-read`: history is answered as of up to a second ago.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use logstore::id::{ConversationId, SeqId, UserId};
use logstore::plants::{Plant, is_planted};
use parking_lot::Mutex;

use crate::visible::Visible;

type Seen = (SeqId, Visible);
type Before = HashMap<(UserId, ConversationId), (Instant, Seen)>;

static BEFORE: LazyLock<Mutex<Before>> = LazyLock::new(Mutex::default);

/// What this reader was told of the conversation within the last second, if anything; else what is so.
pub(super) fn as_of_before(reader: UserId, conversation: ConversationId, now: Seen) -> Seen {
    if !is_planted(Plant::StaleRead) {
        return now;
    }
    let mut before = BEFORE.lock();
    let (at, seen) = before.entry((reader, conversation)).or_insert_with(|| (Instant::now(), now.clone()));
    if at.elapsed() > Duration::from_secs(1) {
        (*at, *seen) = (Instant::now(), now);
    }
    seen.clone()
}
