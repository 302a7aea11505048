//! Point 7, no phantom: every record was sent by somebody, here, before anybody was told of it, and was not refused.

use crate::torture::finding::{Finding, Findings, Id, Why};
use crate::torture::story::{Seen, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    for seen in story.tellings() {
        if let Some(why) = why(story, seen) {
            let (conversation, seq, id) = (story.conversation, seen.seq, Id(seen.id));
            findings.add(Finding::Phantom { conversation, seq, id, why });
        }
    }
}

fn why(story: &Story<'_>, seen: &Seen<'_>) -> Option<Why> {
    let Some(&at) = story.by_id.get(&seen.id) else { return Some(Why::NeverSent) };
    let sent = &story.sent[at];
    if sent.is_refused {
        return Some(Why::Refused);
    }
    (seen.t_ns < sent.invoked_ns).then_some(Why::SentLater)
}
