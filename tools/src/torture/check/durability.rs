//! Point 3, durability: what was acknowledged is in the end told by every replica to everybody who may see it.

use hashbrown::HashSet;

use crate::torture::finding::{Finding, Findings, Id, Reader};
use crate::torture::story::{Seen, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    if story.cast.readers.is_empty() {
        return;
    }
    for ack in lasting(story) {
        if story.log.get(&ack.seq).is_none_or(|told| told.id != ack.id) {
            let conversation = story.conversation;
            findings.add(Finding::Vanished { conversation, seq: ack.seq, id: Id(ack.id) });
        }
    }
    for &(user, replica) in &story.cast.readers {
        let read = story.finals.get(&(user, replica)).map_or(&[][..], Vec::as_slice);
        let held: HashSet<_> = read.iter().map(|seen| (seen.seq, seen.id)).collect();
        for ack in lasting(story).filter(|ack| story.may_see(user, ack.seq) && !held.contains(&(ack.seq, ack.id))) {
            let reader = Reader { user, replica: Some(replica) };
            let conversation = story.conversation;
            findings.add(Finding::Lost { conversation, seq: ack.seq, id: Id(ack.id), reader });
        }
    }
}

/// Acks of something that has a place.
fn lasting<'a>(story: &'a Story<'_>) -> impl Iterator<Item = &'a Seen<'a>> {
    story.acks.iter().filter(|ack| ack.seq.0 != 0)
}
