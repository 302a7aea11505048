//! What is taken out of the log is in no file of the node afterwards.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logstore::BodyPlace;
use logstore::id::{ConversationId, LogIndex, SeqId, UserId};
use logstore::segment::Item;
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sequencer::{Command, Outcome, Recall, Record, SequencerOptions, Shard, Stored, TailStep};

use world::{World, id_now, options, text};

/// Long enough for seals, rewrites and files of zeros on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ERASED: u64 = 12;

/// 64 random bytes that are found again or are not.
fn random_body(runner: &mut TestRunner) -> Bytes {
    let bytes = any::<[[u8; 32]; 2]>().new_tree(runner).unwrap().current();
    let mut body = bytes.concat();
    body[0] |= 1;
    Bytes::from(body)
}

/// A message and what became of it.
struct Sent {
    conversation: ConversationId,
    sender: u64,
    body: Bytes,
    stored: Stored,
}

struct Story {
    _dir: tempfile::TempDir,
    world: World,
    groups: Vec<ConversationId>,
    sent: Vec<Sent>,
    runner: TestRunner,
}

impl Story {
    async fn begin() -> Story {
        let dir = tempfile::tempdir().unwrap();
        let options = SequencerOptions { shards: 2, ..options() };
        let world = World::in_dir(dir.path(), options).await;
        let mut groups = Vec::new();
        for number in 1..=6 {
            groups.push(world.group(number, &[10, 11, ERASED]).await);
        }
        Story { _dir: dir, world, groups, sent: Vec::new(), runner: TestRunner::deterministic() }
    }

    /// Messages of everybody everywhere.
    async fn chat(&mut self) {
        for conversation in self.groups.clone() {
            for sender in [10, 11, ERASED] {
                let body = random_body(&mut self.runner);
                let stored = self.world.send(text(conversation, sender, body.clone())).await;
                self.sent.push(Sent { conversation, sender, body, stored });
            }
        }
    }

    async fn seal(&self) {
        for shard in self.world.sequencer.shards() {
            shard.seal().await.unwrap();
        }
    }

    async fn history(&self, conversation: ConversationId) -> Vec<Record> {
        let all = (SeqId(1), SeqId(u64::MAX));
        self.shard(conversation).history(conversation, all.0, all.1, usize::MAX, usize::MAX).await.unwrap()
    }

    fn shard(&self, conversation: ConversationId) -> &Shard {
        self.world.shard_of(conversation)
    }

    async fn head_of(&self, sent: &Sent) -> Record {
        let (shard, seq) = (self.shard(sent.conversation), sent.stored.seq);
        shard.history(sent.conversation, seq, seq, 1, usize::MAX).await.unwrap().remove(0)
    }

    async fn recall(&self, sent: &Sent) {
        let head = self.head_of(sent).await.head;
        let recall = Command::Recall(Recall {
            conversation: head.conversation,
            actor: head.sender,
            request: id_now(),
            checked_upto: 0,
            seq: head.seq,
            ordinal: head.ordinal,
            sender: head.sender,
            by_operator: false,
        });
        let outcome = self.shard(sent.conversation).execute(recall).await.unwrap();
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    }

    /// Trims everything up to a message, itself included.
    async fn trim(&self, sent: &Sent) {
        let head = self.head_of(sent).await.head;
        let (conversation, before) = (head.conversation, head.seq.next());
        let trim = Command::Trim { conversation, before, ordinal: head.ordinal, time: head.time };
        assert_eq!(self.shard(conversation).execute(trim).await.unwrap(), Outcome::Done);
    }

    async fn erase(&self, user: u64) {
        for shard in self.world.sequencer.shards() {
            assert_eq!(shard.execute(Command::Erase { user: UserId(user) }).await.unwrap(), Outcome::Done);
        }
    }

    async fn erased(&self) {
        let is_pending = |shard: &Shard| shard.read(|state, _| !state.erasures().list().is_empty());
        self.wait("erased", || self.world.sequencer.shards().iter().any(|shard| is_pending(shard))).await;
    }

    async fn wait(&self, what: &str, mut goes_on: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while goes_on() {
            let waits: Vec<_> = self.world.sequencer.shards().iter().map(|shard| shard.erasing_waits_for()).collect();
            assert!(Instant::now() < deadline, "not {what} in time: {waits:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Payloads that are still kept for those who follow the log from its beginning.
    fn followed(&self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for shard in self.world.sequencer.shards() {
            let mut tail = shard.tail(LogIndex(0));
            while let Some(step) = tail.try_next() {
                if let TailStep::Batches(batches) = step {
                    payloads.extend(batches.iter().map(|batch| batch.payload.to_vec()));
                }
            }
        }
        payloads
    }

    async fn compact(&self) {
        let deadline = Instant::now() + PATIENCE;
        for shard in self.world.sequencer.shards() {
            shard.seal_and_compact().await.unwrap();
            while !shard.compact_plans().await.unwrap().is_empty() {
                assert!(Instant::now() < deadline, "not compacted: {:?}", shard.compact_plans().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Bodies that segments decode to.
    fn decoded(&self) -> Vec<Bytes> {
        let sets = self.world.sequencer.shards().iter().map(|shard| shard.read(|_, records| records.sealed().clone()));
        let items = sets.flat_map(|set| set.segments().iter().flat_map(|segment| segment.items()).collect::<Vec<_>>());
        items
            .filter_map(
                |item| if let Item::Record(record) = item.unwrap() { record.body.kept().cloned() } else { None },
            )
            .collect()
    }

    fn dir(&self) -> &Path {
        self._dir.path()
    }
}

/// Everything in every file below a directory whose path has `part` in it.
fn files(dir: &Path, part: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, part));
        } else if path.to_string_lossy().contains(part) {
            found.push(std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Which of these bodies are in any of the files: one pass over each, by the first 8 bytes.
fn found(files: &[Vec<u8>], sent: &[Sent]) -> Vec<bool> {
    let begins: HashMap<[u8; 8], usize> =
        sent.iter().enumerate().map(|(at, sent)| (*sent.body.first_chunk().unwrap(), at)).collect();
    assert_eq!(begins.len(), sent.len(), "random bodies begin differently");
    let mut found = vec![false; sent.len()];
    for file in files {
        // Most of a journal file is zeros.
        let mut places = (0..file.len().saturating_sub(7)).filter(|at| file[*at] != 0);
        for at in places.by_ref() {
            if let Some(which) = begins.get(file[at..].first_chunk::<8>().unwrap())
                && file[at..].starts_with(&sent[*which].body)
            {
                found[*which] = true;
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_recalled_and_trimmed_is_in_no_file_of_the_node() {
    let mut story = Story::begin().await;
    story.chat().await;
    story.seal().await;
    story.chat().await;
    story.seal().await;
    story.chat().await;
    let first_by = |sender: u64| story.sent.iter().position(|sent| sent.sender == sender).unwrap();
    let (recalled, trimmed) =
        (first_by(10), story.sent.iter().position(|s| s.conversation == story.groups[5]).unwrap());
    let journal = files(story.dir(), "journal");
    assert!(found(&journal, &story.sent).iter().all(|found| *found), "the search can tell");

    assert!(found(&story.followed(), &story.sent).iter().all(|found| *found), "and so do those who follow");

    story.recall(&story.sent[recalled]).await;
    story.trim(&story.sent[trimmed]).await;
    story.erase(ERASED).await;
    let is_gone = |at: usize, sent: &Sent| sent.sender == ERASED || at == recalled || at == trimmed;
    for (at, sent) in story.sent.iter().enumerate() {
        let record = story.head_of(sent).await;
        let gone = is_gone(at, sent);
        assert_eq!(record.head.body == BodyPlace::Removed, gone, "at once for readers");
        assert_eq!(record.body, if gone { Bytes::new() } else { sent.body.clone() });
    }
    story.erased().await;
    let followed = found(&story.followed(), &story.sent);
    assert!(!story.sent.iter().zip(followed).any(|(sent, found)| sent.sender == ERASED && found), "no queue has them");
    story.compact().await;

    let (raw, decoded) = (found(&files(story.dir(), ""), &story.sent), story.decoded());
    for (at, sent) in story.sent.iter().enumerate() {
        let gone = is_gone(at, sent);
        assert!(!gone || !raw[at], "message {at} is in a file");
        assert!(!gone || !decoded.contains(&sent.body), "message {at} is in a segment");
        assert!(gone || decoded.contains(&sent.body), "message {at} is lost");
    }
    let after = story.world.send(text(story.groups[0], ERASED, Bytes::from_static(b"anew"))).await;
    let record = story.history(story.groups[0]).await.pop().unwrap();
    assert_eq!((record.head.seq, &record.body[..]), (after.seq, &b"anew"[..]), "what comes later stays");

    let Story { world, groups, sent, _dir, .. } = story;
    let world = world.restart().await;
    let shard = world.shard_of(groups[1]);
    let records = shard.history(groups[1], SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap();
    let seqs: Vec<u64> = records.iter().map(|record| record.head.seq.0).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no place is lost");
    let bodies = sent.iter().filter(|sent| sent.conversation == groups[1] && sent.sender != ERASED).map(|s| &s.body);
    assert!(bodies.into_iter().all(|body| records.iter().any(|record| record.body == *body)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacting_drops_what_was_taken_back_a_moment_ago() {
    let mut story = Story::begin().await;
    story.chat().await;
    story.seal().await;
    story.recall(&story.sent[0]).await;
    let trimmed = story.sent.iter().position(|sent| sent.conversation == story.groups[5]).unwrap();
    story.trim(&story.sent[trimmed]).await;
    story.compact().await;
    let decoded = story.decoded();
    for (at, sent) in story.sent.iter().enumerate() {
        assert_eq!(decoded.contains(&sent.body), at != 0 && at != trimmed, "message {at}");
    }
    story.world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_goes_on_after_a_restart() {
    let mut story = Story::begin().await;
    story.chat().await;
    story.seal().await;
    story.chat().await;
    story.erase(ERASED).await;
    let Story { _dir, world, groups, sent, runner } = story;
    let story = Story { _dir, world: world.restart().await, groups, sent, runner };
    story.erased().await;
    let (raw, decoded) = (found(&files(story.dir(), ""), &story.sent), story.decoded());
    for (at, sent) in story.sent.iter().enumerate() {
        let is_there = raw[at] || decoded.contains(&sent.body);
        assert_eq!(is_there, sent.sender != ERASED, "message {at}");
    }
    story.world.stop().await;
}
