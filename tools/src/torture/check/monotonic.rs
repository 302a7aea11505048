//! Point 9, monotonic: of two questions of one user, one after the other, the second is never told of less.

use std::collections::BTreeMap;

use logstore::id::{SeqId, UserId};

use crate::torture::finding::{Finding, Findings};
use crate::torture::story::{Read, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let mut of_user: BTreeMap<UserId, Vec<&Read>> = BTreeMap::new();
    story.reads.iter().for_each(|read| of_user.entry(read.user).or_default().push(read));
    for (user, reads) in of_user {
        check_user(story, user, reads, findings);
    }
}

fn check_user(story: &Story<'_>, user: UserId, answered: Vec<&Read>, findings: &mut Findings) {
    let mut asked = answered.clone();
    asked.sort_by_key(|read| read.since_ns);
    let mut answered = answered.into_iter().peekable();
    let mut before = SeqId(0);
    for read in asked {
        while let Some(earlier) = answered.next_if(|earlier| earlier.t_ns < read.since_ns) {
            before = before.max(earlier.head);
        }
        if read.head < before {
            findings.add(Finding::WentBack { conversation: story.conversation, user, before, after: read.head });
        }
    }
}
