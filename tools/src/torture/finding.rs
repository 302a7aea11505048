//! What a checker found: which promise was broken, by what.

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};

use super::history::Replica;

/// Findings of one point that are kept with their words; more are counted.
const KEPT_MAX: usize = 10;
/// Points of the checker.
pub const POINTS: [&str; 12] = [
    "agreement",
    "uniqueness",
    "durability",
    "no-gap",
    "real-time",
    "sender-order",
    "phantom",
    "fresh-reads",
    "monotonic",
    "authorization",
    "liveness",
    "replicas",
];

/// Who was told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The user.
    pub user: UserId,
    /// Of a final read; `None`: the user's client, as things came.
    pub replica: Option<Replica>,
}

impl std::fmt::Display for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.replica {
            None => write!(f, "the client of user {}", self.user),
            Some(replica) => write!(f, "the final read of user {} at node {}", self.user, replica.0),
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Each says itself what its fields are.
pub enum Finding {
    #[error("{conversation}: place {seq} was told as message {one} and as {other}")]
    TwoMessages { conversation: ConversationId, seq: SeqId, one: Id, other: Id },
    #[error("{conversation}: message {id} is at {one} and at {other}")]
    TwoPlaces { conversation: ConversationId, id: Id, one: SeqId, other: SeqId },
    #[error("{conversation}: message {id} was acknowledged at {seq}, and {reader} lacks it")]
    Lost { conversation: ConversationId, seq: SeqId, id: Id, reader: Reader },
    #[error("{conversation}: message {id} was acknowledged at {seq}, and nobody was ever told of it")]
    Vanished { conversation: ConversationId, seq: SeqId, id: Id },
    #[error("{conversation}: {reader} was given {got} where {expected} was next")]
    OutOfTurn { conversation: ConversationId, reader: Reader, expected: SeqId, got: SeqId },
    #[error("{conversation}: {reader} ends before {next}")]
    EndsEarly { conversation: ConversationId, reader: Reader, next: SeqId },
    #[error("{conversation}: nobody was ever told of place {seq}, which is below the head")]
    Hole { conversation: ConversationId, seq: SeqId },
    #[error("{conversation}: {later} was acknowledged before the message at {earlier} was sent")]
    BackInTime { conversation: ConversationId, earlier: SeqId, later: SeqId },
    #[error(
        "{conversation}: user {user} sent message {first} before {second}, and they are at {first_at} and {second_at}"
    )]
    Reordered { conversation: ConversationId, user: UserId, first: Id, second: Id, first_at: SeqId, second_at: SeqId },
    #[error("{conversation}: {seq} was told as message {id}, which {why}")]
    Phantom { conversation: ConversationId, seq: SeqId, id: Id, why: Why },
    #[error(
        "{conversation}: user {user} asked after {acked} had been acknowledged, and was told of {head} as the newest"
    )]
    Stale { conversation: ConversationId, user: UserId, acked: SeqId, head: SeqId },
    #[error("{conversation}: user {user} was told of {before} as the newest, and later of {after}")]
    WentBack { conversation: ConversationId, user: UserId, before: SeqId, after: SeqId },
    #[error("{conversation}: {reader} was told of {seq}, which is not theirs to see")]
    Leak { conversation: ConversationId, reader: Reader, seq: SeqId },
    #[error("shard {shard}: nothing sent after the {fault} at {:.3} s was durable within {} s of its end", *at_ns as f64 / 1e9, limit_ns / 1_000_000_000)]
    Silent { shard: u16, fault: &'static str, at_ns: u64, limit_ns: u64 },
    #[error("{conversation}: at {seq} nodes {} and {} told user {user} different things", one.0, other.0)]
    ReplicasDiffer { conversation: ConversationId, user: UserId, seq: SeqId, one: Replica, other: Replica },
}

/// What is wrong with a message that should not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// By nobody.
    #[error("nobody sent there")]
    NeverSent,
    /// Told to its sender.
    #[error("was refused")]
    Refused,
    /// Told to somebody.
    #[error("was sent only later")]
    SentLater,
}

/// A message's id, printed as everywhere else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id(pub ClientMsgId);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        uuid::Uuid::from_u128(self.0.0).fmt(f)
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Finding {
    /// Which of [`POINTS`] it breaks, from 0.
    pub fn point(&self) -> usize {
        match self {
            Finding::TwoMessages { .. } => 0,
            Finding::TwoPlaces { .. } => 1,
            Finding::Lost { .. } | Finding::Vanished { .. } => 2,
            Finding::OutOfTurn { .. } | Finding::EndsEarly { .. } | Finding::Hole { .. } => 3,
            Finding::BackInTime { .. } => 4,
            Finding::Reordered { .. } => 5,
            Finding::Phantom { .. } => 6,
            Finding::Stale { .. } => 7,
            Finding::WentBack { .. } => 8,
            Finding::Leak { .. } => 9,
            Finding::Silent { .. } => 10,
            Finding::ReplicasDiffer { .. } => 11,
        }
    }
}

/// All findings, counted; the first of each point with their words.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: [u64; POINTS.len()],
    kept: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        let point = finding.point();
        self.counts[point] += 1;
        if self.counts[point] <= KEPT_MAX as u64 {
            self.kept.push(finding);
        }
    }

    /// How many.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many of each point that has any.
    pub fn by_point(&self) -> impl Iterator<Item = (&'static str, u64)> {
        POINTS.into_iter().zip(self.counts).filter(|&(_, count)| count > 0)
    }

    /// Those that are kept.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }
}
