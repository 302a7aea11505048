//! Point 10, authorization: nobody is told of a record outside the intervals in which the log has them as a member.

use crate::torture::finding::{Finding, Findings, Reader};
use crate::torture::story::{Seen, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let feeds = story.feeds.iter().map(|(&user, seen)| (Reader { user, replica: None }, seen));
    let finals = story.finals.iter().map(|(&(user, replica), seen)| (Reader { user, replica: Some(replica) }, seen));
    feeds.chain(finals).for_each(|(reader, seen)| check_reader(story, reader, seen, findings));
    for read in story.reads.iter().filter(|read| read.head.0 != 0 && !story.may_see(read.user, read.head)) {
        let reader = Reader { user: read.user, replica: None };
        findings.add(Finding::Leak { conversation: story.conversation, reader, seq: read.head });
    }
}

fn check_reader(story: &Story<'_>, reader: Reader, seen: &[Seen<'_>], findings: &mut Findings) {
    for seen in seen.iter().filter(|seen| !story.may_see(reader.user, seen.seq)) {
        findings.add(Finding::Leak { conversation: story.conversation, reader, seq: seen.seq });
    }
}
