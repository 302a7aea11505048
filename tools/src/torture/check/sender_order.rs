//! Point 6, a sender's order: messages of one pipeline are stored in the order in which they were given to it.

use hashbrown::HashMap;

use crate::torture::finding::{Finding, Findings, Id};
use crate::torture::story::Story;

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let places = story.places();
    let mut last = HashMap::new();
    for sent in story.sent.iter().filter(|sent| sent.pipeline != 0) {
        let Some(&seq) = places.get(&sent.id) else { continue };
        let (before, at) = *last.entry((sent.user, sent.pipeline)).or_insert((sent.id, seq));
        if seq < at {
            findings.add(Finding::Reordered {
                conversation: story.conversation,
                user: sent.user,
                first: Id(before),
                second: Id(sent.id),
                first_at: at,
                second_at: seq,
            });
        } else {
            last.insert((sent.user, sent.pipeline), (sent.id, seq));
        }
    }
}
