//! Point 12, replica identity: every replica tells the same reader the same records, with the same changes of members.

use std::collections::BTreeMap;

use logstore::id::{SeqId, UserId};

use crate::torture::finding::{Finding, Findings};
use crate::torture::history::Replica;
use crate::torture::story::{Seen, Story};

pub fn check(story: &Story<'_>, findings: &mut Findings) {
    let mut first_of: BTreeMap<UserId, (Replica, &[Seen<'_>])> = BTreeMap::new();
    for &(user, replica) in &story.cast.readers {
        let told = story.finals.get(&(user, replica)).map_or(&[][..], Vec::as_slice);
        let (one, first) = *first_of.entry(user).or_insert((replica, told));
        if let Some(seq) = first_difference(first, told) {
            let conversation = story.conversation;
            findings.add(Finding::ReplicasDiffer { conversation, user, seq, one, other: replica });
        }
    }
}

fn first_difference(one: &[Seen<'_>], other: &[Seen<'_>]) -> Option<SeqId> {
    let same = |(a, b): &(&Seen<'_>, &Seen<'_>)| (a.seq, a.id, a.change) == (b.seq, b.id, b.change);
    let at = one.iter().zip(other).take_while(same).count();
    [one.get(at), other.get(at)].into_iter().flatten().map(|seen| seen.seq).min()
}
