//! Point 4, no gap: a client is given exactly the places that its user may see, one after the other, also across connections, restarts and
//! changes of members; and once everything was read back, all of them.

use logstore::id::SeqId;

use crate::torture::finding::{Finding, Findings, Reader};
use crate::torture::story::{Seen, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let settled = !story.cast.readers.is_empty();
    if settled {
        holes(story, findings);
    }
    let members = story.members();
    for &user in story.cast.listeners.iter().filter(|user| members.contains(user)) {
        let given = story.feeds.get(&user).map_or(&[][..], Vec::as_slice);
        walk(story, Reader { user, replica: None }, given, settled, findings);
    }
    for &(user, replica) in story.cast.readers.iter().filter(|(user, _)| members.contains(user)) {
        let read = story.finals.get(&(user, replica)).map_or(&[][..], Vec::as_slice);
        walk(story, Reader { user, replica: Some(replica) }, read, true, findings);
    }
}

fn holes(story: &Story<'_>, findings: &mut Findings) {
    let head = story.log.last_key_value().map_or(0, |(seq, _)| seq.0);
    for seq in (1..=head).map(SeqId).filter(|seq| !story.log.contains_key(seq)) {
        findings.add(Finding::Hole { conversation: story.conversation, seq });
    }
}

/// One finding a reader: after the first, everything is out of turn.
fn walk(story: &Story<'_>, reader: Reader, given: &[Seen<'_>], to_the_end: bool, findings: &mut Findings) {
    let conversation = story.conversation;
    let mut visible = story.visible(reader.user);
    // What is not theirs to see is another point's.
    for seen in given.iter().filter(|seen| story.may_see(reader.user, seen.seq)) {
        let expected = visible.next().unwrap_or(SeqId(u64::MAX));
        if expected != seen.seq {
            return findings.add(Finding::OutOfTurn { conversation, reader, expected, got: seen.seq });
        }
    }
    if let (true, Some(next)) = (to_the_end, visible.next()) {
        findings.add(Finding::EndsEarly { conversation, reader, next });
    }
}
