//! Point 8, fresh reads: who asks after something was acknowledged is told of it, or of something newer.

use logstore::id::{SeqId, UserId};

use crate::torture::finding::{Finding, Findings};
use crate::torture::story::Story;

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let highest = highest_acked(story);
    for read in &story.reads {
        let before = highest.partition_point(|&(acked_ns, _)| acked_ns < read.since_ns);
        let Some(&(_, acked)) = before.checked_sub(1).and_then(|at| highest.get(at)) else { continue };
        if acked <= read.head {
            continue;
        }
        if let Some(acked) = newest_visible(story, read.user, read.head, acked) {
            let conversation = story.conversation;
            findings.add(Finding::Stale { conversation, user: read.user, acked, head: read.head });
        }
    }
}

/// By time of ack: the highest place acknowledged by then.
fn highest_acked(story: &Story<'_>) -> Vec<(u64, SeqId)> {
    let mut acks: Vec<_> = story.acks.iter().map(|ack| (ack.t_ns, ack.seq)).collect();
    acks.sort_unstable();
    let mut highest = SeqId(0);
    for (_, seq) in &mut acks {
        highest = highest.max(*seq);
        *seq = highest;
    }
    acks
}

/// Everything up to `upto` was in the log then: the newest of it that the user may see, if it is above `head`.
fn newest_visible(story: &Story<'_>, user: UserId, head: SeqId, upto: SeqId) -> Option<SeqId> {
    (head.0 + 1..=upto.0).rev().map(SeqId).find(|&seq| story.may_see(user, seq))
}
