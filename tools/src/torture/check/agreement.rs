//! Point 1, agreement: there is one message at each place, whoever tells of it.

use hashbrown::HashMap;

use crate::torture::finding::{Finding, Findings, Id};
use crate::torture::story::Story;

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let mut at = HashMap::new();
    for seen in story.tellings() {
        let one = *at.entry(seen.seq).or_insert(seen.id);
        if one != seen.id {
            let (conversation, seq) = (story.conversation, seen.seq);
            findings.add(Finding::TwoMessages { conversation, seq, one: Id(one), other: Id(seen.id) });
        }
    }
}
