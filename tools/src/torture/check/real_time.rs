//! Point 5, real time: what is sent after something else was acknowledged comes after it.

use logstore::id::SeqId;

use crate::torture::finding::{Finding, Findings};
use crate::torture::story::Story;

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let places = story.places();
    let mut placed: Vec<_> = story.sent.iter().filter_map(|sent| Some((*places.get(&sent.id)?, sent))).collect();
    placed.sort_unstable_by_key(|&(seq, _)| std::cmp::Reverse(seq));
    // The earliest ack among the places above the one looked at.
    let mut earliest: Option<(u64, SeqId)> = None;
    for (seq, sent) in placed {
        if let Some((acked_ns, later)) = earliest
            && acked_ns < sent.invoked_ns
        {
            findings.add(Finding::BackInTime { conversation: story.conversation, earlier: seq, later });
        }
        if let Some((acked_ns, _)) = sent.acked {
            earliest = Some(earliest.map_or((acked_ns, seq), |known| known.min((acked_ns, seq))));
        }
    }
}
