//! Point 2, uniqueness: a message is at one place, however often it was sent.

use hashbrown::HashMap;

use crate::torture::finding::{Finding, Findings, Id};
use crate::torture::story::Story;

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let mut places = HashMap::new();
    for seen in story.tellings() {
        let one = *places.entry(seen.id).or_insert(seen.seq);
        if one != seen.seq {
            let conversation = story.conversation;
            findings.add(Finding::TwoPlaces { conversation, id: Id(seen.id), one, other: seen.seq });
        }
    }
}
